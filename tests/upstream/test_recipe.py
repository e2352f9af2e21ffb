"""The slim recipe is complete without the rest of this repository."""

import ast
import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from speechbrain.utils.run_opts import RunOptions
from upstream import left_out, recipe, shaking


@pytest.fixture(scope="module")
def files():
    """Path to text."""
    return recipe.files()


@pytest.fixture(scope="module")
def modules(files):
    """Dotted name to syntax tree, as the oldest Python reads it."""
    return {
        path[:-3].replace("/", ".").replace(".__init__", ""): ast.parse(
            text, path, feature_version=(3, 8)
        )
        for path, text in files.items()
        if path.endswith(".py")
    }


def test_everything_that_is_imported_is_there(modules):
    tops = {name: set(shaking.top_level(t)) for name, t in modules.items()}
    missing = [
        f"{name} imports {source}.{attribute}"
        for name, tree in modules.items()
        for _, source, attribute in shaking.imports_of(tree)
        if source.split(".")[0] == recipe.PACKAGE
        and not (
            attribute in tops.get(source, ())
            or f"{source}.{attribute}" in tops
            or (attribute is None and source in tops)
        )
    ]
    assert not missing


def test_the_yamls_build_only_what_is_there(files, modules):
    for path, text in files.items():
        if path.endswith(".yaml"):
            for built in re.findall(r"!\w+:(imlkd_brain[.\w]+)", text):
                module, _, name = built.rpartition(".")
                assert name in shaking.top_level(modules[module]), built


def test_the_yamls_refer_only_to_their_own_keys(files):
    for path, text in files.items():
        if path.endswith(".yaml"):
            keys = set(YAML().load(text))
            assert set(re.findall(r"!ref.*?<(\w+)", text)) <= keys, path


def test_the_script_reads_every_key(files):
    """SpeechBrain's consistency check; it knows run options itself."""
    script = files["train_kd.py"]
    for path, text in files.items():
        # verify.yaml is for SpeechBrain's own script.
        if not path.endswith(".yaml") or path.endswith("verify.yaml"):
            continue
        plain = {
            match.group(1)
            for match in re.finditer(r"(?m)^(\w+):(?!.*!apply)", text)
        }
        used = set(re.findall(r"!ref.*?<(\w+)", text))
        read = {
            a or b
            for a, b in re.findall(r'\["(\w+)"\]|hparams\.get\("(\w+)"', script)
        }
        read |= set(re.findall(r"hparams\.(\w+)", script))
        options = set(RunOptions().as_dict())
        assert plain <= used | read | options, path


def test_no_name_is_undefined(files, tmp_path):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    command = ["ruff", "check", "--isolated", "--select=F", "."]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_python_3_8_can_run_it(modules):
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", "")
            if called == "zip":
                assert not node.keywords, f"{name}: zip(strict=)"
            if called == "isinstance":
                # isinstance(x, a | b)
                assert not isinstance(node.args[1], ast.BinOp), name


def test_it_is_as_small_as_promised(files):
    assert recipe.within_limits(files), recipe.counts_table(files)


def test_nothing_speaks_of_what_is_not_there(files):
    found = [
        f"{path}: {line.strip()}"
        for path, text in files.items()
        # Others are written for upstream alone.
        if not (recipe.FILES / Path(path).name).is_file()
        for line in text.splitlines()
        if re.search(left_out.OURS, line, re.IGNORECASE)
    ]
    assert not found


def test_every_entry_of_the_lists_means_something():
    text = "\n".join(recipe.sources().values())
    yamls = "\n".join(
        (recipe.ROOT / "hparams" / name).read_text(encoding="utf-8")
        for name in recipe.YAMLS
    )
    names = [n.rpartition(":")[2].rpartition(".")[2] for n in left_out.NAMES]
    for name in [*names, *left_out.ATTRIBUTES, *left_out.PARAMETERS]:
        assert re.search(rf"\b{name}\b", text), name
    for key in [*left_out.KEYS, *left_out.NESTED_KEYS]:
        assert re.search(rf"\b{key.split('.')[-1]}\b", yamls + text), key
    for old in left_out.YAML_TEXTS:
        assert old in yamls, old


def test_rows_lead_from_the_teacher_to_the_scores():
    teacher, student, scores = recipe.rows(9)
    assert (
        "--teacher_folder=tests/tmp/VoxCeleb_row_09"
        in (student["test_debug_flags"])
    )
    assert "tests/tmp/VoxCeleb_row_10/inference" in scores["test_debug_flags"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(teacher))
    writer.writerows([teacher, student, scores])
    assert len(stream.getvalue().splitlines()) == 3


def test_docstrings_are_told_from_code():
    text = '"""One."""\n\n\ndef two():\n    """Three\n\n    four.\n    """\n'
    assert recipe.docstring_lines(text) == 5
