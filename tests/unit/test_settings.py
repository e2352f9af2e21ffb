"""Unit tests of ``imlkd_brain.settings``."""

import ast

import pytest
from helpers.scripts import RECIPE, run_script
from hyperpyyaml import load_hyperpyyaml, resolve_references

from imlkd_brain.errors import UserError
from imlkd_brain.schema import Option, built, mapping, whole
from imlkd_brain.settings import load_hyperparameters, read_command
from imlkd_brain.values import Schema

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
        ([*filled, "--seed", "{a: 1}"], r"seed is no mapping there"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            load_hyperparameters(argv)
        assert "\n" not in str(raised.value), argv
    with pytest.raises(UserError) as raised:
        load_hyperparameters([minivox])
    # MiniVox's own YAML does not point to itself.
    assert "imlkd_brain.corpora.minivox" not in str(raised.value)


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


def test_a_mapping_replaces_what_a_base_set_to_null(tmp_path):
    """A YAML between has no noise; the last one, or the command, has it."""
    (tmp_path / "whole.yaml").write_text(
        "noise: {snr: 0, files: a.csv}\nother: {one: 1}\nseed: 1\n"
    )
    (tmp_path / "middle.yaml").write_text(
        "base: whole.yaml\nnoise: null\nother: null\n"
    )
    last = tmp_path / "last.yaml"
    last.write_text("base: middle.yaml\nnoise: {snr: 5}\n")
    _, hparams, _, _ = load_hyperparameters([str(last), "--other={one: 2}"])
    assert hparams == {
        "noise": {"snr": 5, "files": "a.csv"},
        "other": {"one": 2},
        "seed": 1,
    }


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


SCHEMA = Schema(
    {
        "seed": whole("Seed.", low=0),
        "models": mapping(
            "Models.", Option("path", "One.", null="out"), replaces=True
        ),
        "methods": mapping("Methods.", whole("Weight."), optional=True),
        "thing": built("A thing.", optional=True),
    }
)


@pytest.fixture
def small(tmp_path):
    """A YAML of that schema, and one with it as its base."""
    (tmp_path / "whole.yaml").write_text(
        "seed: 1\nmodels: {a: here, b: there}\nmethods: {x: 1, y: 2}\n"
        "thing: !new:collections.Counter\n    seed: !ref <seed>\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "base: whole.yaml\nmodels: {c: elsewhere}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "option, value",
    [
        ("optimizer_step_limit", 6),
        ("grad_accumulation_factor", 2),
        ("ckpt_interval_steps", 9),
        ("max_grad_norm", 1.5),
    ],
)
def test_numbers_among_run_options_are_numbers(small, option, value):
    for given in ([f"--{option}={value}"], [f"--{option}", str(value)]):
        file = str(small / "whole.yaml")
        _, run_opts, _ = read_command([file, *given], SCHEMA)
        assert getattr(run_opts, option) == value


def test_a_key_that_repeats_another_names_it(small):
    (small / "whole.yaml").write_text(
        "start: -1\nmodels: {}\nseed: !ref <start>\n"
    )
    with pytest.raises(UserError, match="seed is -1.*give `--start`"):
        read_command([str(small / "whole.yaml")], SCHEMA)


def test_nearest_names_are_given(small):
    whole_yaml = str(small / "whole.yaml")
    with pytest.raises(UserError, match="--sede.*did you mean seed"):
        read_command([whole_yaml, "--sede", "4"], SCHEMA)
    (small / "whole.yaml").write_text("sede: 1\nmodels: {}\n")
    with pytest.raises(UserError, match="reads the key `sede`.*mean seed"):
        read_command([whole_yaml], SCHEMA)
    (small / "mine.yaml").write_text("base: whole.yaml\nmodles: {}\n")
    with pytest.raises(UserError, match="modles.*did you mean models"):
        read_command([str(small / "mine.yaml")], SCHEMA)


def test_a_key_of_ones_own_is_good_where_another_refers_to_it(small):
    text = (small / "whole.yaml").read_text().replace("<seed>", "<mine>")
    (small / "whole.yaml").write_text(text + "mine: 5\n")
    read_command([str(small / "whole.yaml")], SCHEMA)
    (small / "whole.yaml").write_text(text + "mine: 5\nother: 6\n")
    with pytest.raises(UserError, match="nothing reads the key `other`"):
        read_command([str(small / "whole.yaml")], SCHEMA)


def test_a_mapping_on_the_command_line_replaces_where_it_is_declared(small):
    for yaml, before in (("whole", {"a", "b"}), ("mine", {"a", "b", "c"})):
        argv = [str(small / f"{yaml}.yaml"), "--models"]
        _, hparams, _, _ = load_hyperparameters([*argv, "{d: new}"], SCHEMA)
        left = {k for k, v in hparams["models"].items() if v is not None}
        assert left == {"d"} and set(hparams["models"]) == before | {"d"}
        # Nothing but null takes out of what is there.
        _, hparams, _, _ = load_hyperparameters([*argv, "{a: null}"], SCHEMA)
        left = {k for k, v in hparams["models"].items() if v is not None}
        assert left == before - {"a"}
    argv[1] = "--methods"
    _, hparams, _, overrides = load_hyperparameters([*argv, "{y: 3}"], SCHEMA)
    assert hparams["methods"] == {"x": 1, "y": 3}
    # What is written beside the results is the same.
    resolved = resolve_references((small / "whole.yaml").open(), overrides)
    assert load_hyperpyyaml(resolved) == hparams


def test_nothing_is_built_before_all_is_checked(small, monkeypatch):
    def build(*args):
        raise AssertionError("an object was built")

    monkeypatch.setattr("imlkd_brain.settings.load_hyperpyyaml", build)
    (small / "whole.yaml").write_text(
        "thing: !new:collections.Counter\nmodels: {}\nseed: -1\n"
    )
    with pytest.raises(UserError, match="seed is -1"):
        load_hyperparameters([str(small / "whole.yaml")], SCHEMA)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--precision", "fp8"], "precision: invalid choice: 'fp8'"),
        (["--max_grad_norm", "abc"], "max_grad_norm: invalid float"),
        (["--max_grad_norm", "nan"], "max_grad_norm is nan"),
        (["--grad_accumulation_factor", "0"], "grad_accumulation_factor is 0"),
        (["--device", "cuda:99"], "device: cuda:99 is not there.*--device cpu"),
        (["--device", "toaster"], "'toaster' is no device"),
        (["stray"], "'stray' on the command line belongs to no option"),
        (["--seed"], "seed is null"),
        (["--seed", "1", "--seed", "2"], "cannot be read"),
        (["--thing", "3"], "thing is 3, but must be an object"),
        (["--thing", "{seed: [}"], "cannot be read"),
        # A remark to YAML, a path to who types it
        (["--data_folder", "/my data #2/vox"], "#2/vox.* is a remark"),
        (["--data_folder=/my data #2/vox"], "#2/vox.* is a remark"),
        (["--data_folder", "/my: data"], "quote .* again"),
        # An umlaut in a locale that has none
        (["--data_folder", "/M\udcc3\udcbcller"], "LC_ALL=C.UTF-8"),
    ],
)
def test_mistakes_in_options_have_their_sentence(small, argv, words):
    with pytest.raises(UserError, match=words) as raised:
        read_command([str(small / "whole.yaml"), *argv], SCHEMA)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "script", ["train_kd", "teach", "verify", "explain", "compare"]
)
def test_help_is_the_docstring_and_a_hint_is_the_scripts_own(script):
    path = RECIPE / f"{script}.py"
    usage = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    helped, bare = run_script(path.name, "--help"), run_script(path.name)
    assert (helped.returncode, helped.stdout.strip()) == (0, usage.strip())
    assert bare.returncode == 2
    hint = bare.stderr.split("`")[1].removeprefix("python ")
    # It is a command of the docstring, and its YAML is there.
    assert hint in usage
    assert (path.parent / hint.split()[1]).is_file()
