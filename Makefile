# Everything runs in its own environment, .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
RECIPE := recipes/VoxCeleb/IMLKD
# A branch, tag or commit of the checkout SPEECHBRAIN.
REVISION ?= HEAD

.PHONY: demo explain compare test test-all lint bench bench-gpu upstream-patch upstream-check clean

demo: .venv/demo
	cd $(RECIPE) && ../../../$(BIN)/python demo.py

# Where the demo's models look.
explain: .venv/explain
	cd $(RECIPE) && ../../../$(BIN)/python explain.py hparams/minivox/demo_explain.yaml

compare: .venv/demo
	cd $(RECIPE) && ../../../$(BIN)/python -m imlkd_brain.corpora.minivox --data_folder data/minivox
	cd $(RECIPE) && ../../../$(BIN)/python compare.py hparams/minivox/compare.yaml

test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# With the faults that `make test` has examples of
test-all: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow or not slow"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint -s -c .yamllint.yaml hparams
	$(BIN)/codespell --skip='./.git,./.venv,./data,./upstream,./recipes/VoxCeleb/IMLKD/data,*/results,*.csv' --ignore-words-list=nd,noone,notin,trian,chanels,modles,verfiy .

bench: .venv/dev
	$(BIN)/python benchmarks/run.py

bench-gpu: .venv/dev
	$(BIN)/python benchmarks/run.py --gpu

# The contribution to SpeechBrain: patches for `git am`, and a trial of them.
upstream-patch: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m upstream.contribute patch "$(SPEECHBRAIN)" --revision "$(REVISION)"

upstream-check: .venv/dev
	PYTHONPATH=tests $(BIN)/python -m upstream.contribute check "$(SPEECHBRAIN)" --revision "$(REVISION)"

.venv/%: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[$*]"
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
