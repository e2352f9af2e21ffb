"""Unit tests of ``imlkd_brain.settings``."""

import pytest
from hyperpyyaml import load_hyperpyyaml, resolve_references

from imlkd_brain.errors import UserError
from imlkd_brain.settings import load_hyperparameters

YAML = """
seed: 3
data_folder: !PLACEHOLDER
other: !PLACEHOLDER
wavs: !ref <data_folder>/wav
lengths: [1.0, 2.0]
n_steps: 4
rule: midpoint
integrated_inputs: !new:imlkd_brain.distillation.integrated_inputs.IntegratedInputs
    mode: gate
    rule: !ref <rule>
    n_steps: !ref <n_steps>
    target: true_class
    baseline: zero
    durations: !ref <lengths>
    gate: 1.0
    max_weight: 3.0
    keep: 0.5
    internal_batch_size: null
"""


@pytest.fixture
def yaml(tmp_path):
    (tmp_path / "minivox").mkdir()
    for folder in (tmp_path, tmp_path / "minivox"):
        (folder / "train.yaml").write_text(YAML)
    return str(tmp_path / "train.yaml")


def test_command_line(yaml):
    file, hparams, run_opts, overrides = load_hyperparameters(
        [yaml, "--data_folder", "/a b", "--other=1", "--lengths", "[0.5]"]
        + ["--device", "cpu"]
    )
    assert file == yaml and run_opts.device == "cpu"
    assert hparams["wavs"] == "/a b/wav" and hparams["other"] == 1
    assert hparams["integrated_inputs"].durations == (0.5,) or (
        list(hparams["integrated_inputs"].durations) == [0.5]
    )
    assert "data_folder: /a b" in overrides


def test_each_mistake_on_the_command_line_has_its_sentence(yaml, tmp_path):
    filled = [yaml, "--data_folder", "d", "--other", "o"]
    minivox = str(tmp_path / "minivox" / "train.yaml")
    for argv, words in (
        ([], "first argument must be a hyperparameter file"),
        (["--seed", "1"], "first argument must be a hyperparameter file"),
        (["none.yaml"], "^none.yaml: no such hyperparameter file"),
        ([yaml], f"--data_folder /path/to/VoxCeleb1.*minivox.*{minivox}"),
        ([yaml, "--data_folder", "d"], "give `--other ...`, it has no"),
        ([*filled, "--sed", "4"], "--sed` names no key"),
        ([*filled, "--rule", "trapezoid"], "rule.*trapezoid.*midpoint"),
        ([*filled, "--lengths", "[1.0, 2"], "--lengths.*cannot be read"),
        ([*filled, "--seed", "1: 2"], "--seed.*cannot be read"),
        ([*filled, "--seed", "{a: 1}"], "structure.*seed"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            load_hyperparameters(argv)
        assert "\n" not in str(raised.value), argv
    with pytest.raises(UserError) as raised:
        load_hyperparameters([minivox])
    # MiniVox's own YAML does not point to itself.
    assert "imlkd_brain.corpora.minivox" not in str(raised.value)


def test_a_broken_yaml_has_its_sentence(tmp_path):
    path = tmp_path / "a.yaml"
    for text, words in (
        ("a: [1\n", "cannot be read"),
        ("a: !new:no.such.Class\n", "no.such.Class"),
        ("a: !ref <b>\n", 'reference "b"'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path}.*{words}") as raised:
            load_hyperparameters([str(path)])
        assert "\n" not in str(raised.value)


def test_a_yaml_with_a_base_is_the_base_with_changes(tmp_path):
    (tmp_path / "whole.yaml").write_text(
        "out: results\n"
        "report: !ref <out>/main\n"
        "methods:\n    a: {eta: 1}\n    b: {eta: 2}\n"
        "folds: [0, 1]\n"
    )
    (tmp_path / "other").mkdir()
    middle = tmp_path / "other" / "middle.yaml"
    middle.write_text(
        "base: ../whole.yaml\n"
        "report: !ref <out>/middle\n"
        "methods:\n    a: null\n    c: {eta: 3}\n"
        "folds: [2]\n"
    )
    last = tmp_path / "last.yaml"
    last.write_text("base: other/middle.yaml\nmethods: {b: {tau: 4}}\n")
    file, hparams, _, overrides = load_hyperparameters(
        [str(last), "--out", "elsewhere"]
    )
    assert file == str(tmp_path / "whole.yaml")
    assert hparams == {
        "out": "elsewhere",
        "report": "elsewhere/middle",
        "methods": {"a": None, "b": {"eta": 2, "tau": 4}, "c": {"eta": 3}},
        "folds": [2],
    }
    # What is written beside the results is the same.
    resolved = resolve_references((tmp_path / "whole.yaml").open(), overrides)
    assert load_hyperpyyaml(resolved) == hparams


def test_each_mistake_with_a_base_has_its_sentence(tmp_path):
    (tmp_path / "whole.yaml").write_text("eta: 1\n")
    mine = tmp_path / "mine.yaml"
    for text, words in (
        ("base: none.yaml\n", "mine.yaml: its base .*none.yaml is missing"),
        ("base: mine.yaml\n", "mine.yaml leads back to itself"),
        ("base: whole.yaml\nteta: 2\n", "`teta` is not in its base .*whole"),
        ("base: whole.yaml\neta: [1\n", "mine.yaml, line.*cannot be read"),
    ):
        mine.write_text(text)
        with pytest.raises(UserError, match=words):
            load_hyperparameters([str(mine)])
