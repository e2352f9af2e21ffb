"""Every key of every YAML is declared, and no wrong value passes."""

import copy
import importlib
import os
from collections import Counter
from pathlib import Path

import pytest
from helpers.faults import Begun, faults, outcome, stop_before_work
from ruamel.yaml import YAML
from synthetic import HPARAMS

from imlkd_brain import registry
from imlkd_brain.errors import UserError
from imlkd_brain.registry import SCRIPTS
from imlkd_brain.settings import read_command, resolve_base

RECIPE = Path(registry.__file__).parents[1] / "recipes/VoxCeleb/IMLKD"
ROOT = HPARAMS.parent
CASES = [(n, y) for n, script in SCRIPTS.items() for y in script.yamls]


@pytest.fixture
def in_recipe(monkeypatch):
    """The folder in which commands are typed."""
    monkeypatch.chdir(RECIPE)


def keys_of(path):
    """Keys of a YAML, those that begin with __ apart."""
    content = YAML().load(path.read_text(encoding="utf-8"))
    return {key for key in content if not key.startswith("__")}


@pytest.mark.parametrize(("script", "yaml"), CASES)
def test_a_wrong_value_of_any_key_is_one_sentence(
    script, yaml, in_recipe, monkeypatch, tmp_path
):
    """Generated: every key times every wrong kind of value."""

    def build(*args, **kwargs):
        raise AssertionError("an object was built")

    monkeypatch.setattr("imlkd_brain.settings.load_hyperpyyaml", build)
    before = sorted(os.listdir("."))
    listed = [f for f in faults() if (f.script, f.yaml) == (script, yaml)]
    wrong, counts = [], Counter()
    for fault in listed:
        if fault.argument:
            continue
        kind, message = outcome(fault, monkeypatch)
        counts[kind] += 1
        if kind != "sentence" or len(message) > 700:
            wrong.append((kind, *fault.argv[1:3], message))
    assert not wrong, wrong[:5]
    assert counts["sentence"] > 6 * len(SCRIPTS[script].schema.options)
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize(("script", "yaml"), CASES)
def test_a_wrong_argument_of_an_object_is_one_sentence(script, yaml, in_recipe):
    schema = SCRIPTS[script].schema
    values = described(yaml)
    listed = [f for f in faults() if (f.script, f.yaml) == (script, yaml)]
    for fault in listed:
        made = values.get(fault.key) if fault.argument else None
        if made is None:
            continue
        changed = copy.deepcopy(values)
        changed[fault.key].kwargs[fault.argument] = YAML(typ="safe").load(
            f"k: {fault.value}"
        )["k"]
        with pytest.raises(UserError) as raised:
            schema.check_values(changed, yaml, values)
        assert f"{fault.key}.{fault.argument}" in str(raised.value), fault


def described(yaml):
    """What a YAML resolves to, its objects described."""
    from imlkd_brain.settings import describe

    path, changes = resolve_base(f"hparams/{yaml}", "data_folder: data")
    return describe(path, changes)[0]


def test_there_are_at_least_a_thousand_faults(in_recipe):
    assert len(faults()) >= 1000


@pytest.mark.parametrize("script", SCRIPTS)
def test_declared_keys_are_those_of_the_yamls(script):
    declared = SCRIPTS[script].schema.options
    there = [keys_of(ROOT / yaml) for yaml in SCRIPTS[script].yamls]
    missing = set().union(*there) - set(declared)
    assert not missing, f"declare them in keys.py of their room: {missing}"
    unused = set(declared) - set().union(*there)
    assert not unused, f"no YAML of {script} has these: {unused}"


def test_every_yaml_passes(in_recipe):
    """Also those with a base, whose script their keys tell."""
    for path in sorted(ROOT.rglob("*.yaml")):
        base, _ = resolve_base(str(path))
        keys = keys_of(Path(base))
        (script,) = [
            name
            for name, script in SCRIPTS.items()
            if {"train_kd.py": "train_log", "verify.py": "embedding_store"}.get(
                name,
                {
                    "explain.py": "units",
                    "compare.py": "runs",
                    "export.py": "model_folder",
                }.get(name),
            )
            in keys
        ]
        argv = [str(path), "--data_folder", "data"]
        if "teacher_answers: !PLACEHOLDER" in path.read_text():
            argv += ["--teacher_answers", "answers"]
        read_command(argv, SCRIPTS[script].schema)


@pytest.mark.parametrize(("script", "yaml"), CASES)
def test_a_missing_key_is_named(script, yaml, in_recipe):
    schema = SCRIPTS[script].schema
    values = described(yaml)
    declared = schema.chosen(values) if schema.chosen else schema.options
    for key in values:
        left = {k: v for k, v in values.items() if k != key}
        # Whether there is a teacher is told by this key.
        if declared[key].optional or key == "objective":
            schema.check_values(left, yaml, values)
            continue
        with pytest.raises(UserError, match=f"the key `{key}` is missing"):
            schema.check_values(left, yaml, values)


def test_good_values_reach_the_work(in_recipe, monkeypatch):
    """The faults do not stop for another reason."""
    for script, yaml in CASES[2:3]:
        module = importlib.import_module(script[:-3])
        stop_before_work(module, monkeypatch)
        with pytest.raises(Begun):
            module.main([f"hparams/{yaml}", "--data_folder", "data"])


def test_the_page_of_options_is_up_to_date():
    text = registry.DOCUMENT.read_text(encoding="utf-8")
    assert text == registry.document(), "run python -m imlkd_brain.registry"


def test_the_page_names_every_key_with_a_sentence():
    text = registry.DOCUMENT.read_text(encoding="utf-8")
    for script in SCRIPTS.values():
        for key, option in script.schema.options.items():
            assert f"| `{key}` |" in text
            assert option.meaning[0].isupper() and option.meaning[-1] == "."
