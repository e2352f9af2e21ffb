"""The command line as a whole: help, mistakes, exit codes."""

import subprocess
import sys

import pytest

from imlkd_brain import __version__
from imlkd_brain.commands import parser
from imlkd_brain.commands.exit_codes import CODES, ERROR, NO, SOME_BAD, YES


def test_the_help_names_every_verb_and_exit_code(call):
    code, said, _ = call("--help", with_model=False)
    assert code == 0 and CODES in said
    verbs = "verify embed enrol identify info export corpus"
    for verb in verbs.split():
        assert f"    {verb} " in said
        code, about, _ = call(verb, "--help", with_model=False)
        assert code == 0 and about.startswith(f"usage: imlkd {verb}")
    code, said, _ = call("--version", with_model=False)
    assert said == f"imlkd {__version__}\n"
    for number in (YES, NO, ERROR, SOME_BAD):
        assert f"\n  {number} " in CODES


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "required: VERB"),
        (["verfiy", "a", "b"], "invalid choice: 'verfiy'"),
        (["verify", "a"], "required: B"),
        (["verify", "a", "b", "--threshold", "2"], "not between -1 and 1"),
        (["verify", "a", "b", "--prior", "1"], "not between 0 and 1"),
        (["verify", "a", "b", "--prior", "x"], "invalid _probability"),
        (["identify", "a", "--gallery", "g.npz", "--top", "0"], "not above 0"),
        (["embed", "a"], "required: --out"),
        (["corpus", "voxceleb"], "invalid choice: 'voxceleb'"),
    ],
)
def test_mistakes_are_explained(call, words, says):
    code, said, error = call(*words, with_model=False)
    assert code == ERROR and says in error and not said


def test_the_builders_keep_their_options(call):
    code, said, _ = call("corpus", "minivox", "--help", with_model=False)
    assert code == 0 and said.startswith("usage: imlkd corpus minivox")
    assert "--tiny" in said
    code, _, error = call("corpus", "minivox", with_model=False)
    assert code == ERROR and "--data_folder" in error


def test_graphs_are_those_of_the_export():
    from imlkd_brain.models.onnx_export import GRAPHS

    assert set(parser.GRAPHS) == set(GRAPHS)


def test_the_help_imports_nothing_slow():
    code = (
        "import sys; from imlkd_brain.commands.parser import make_parser\n"
        "make_parser().format_help()\n"
        "print(*sorted({'torch', 'speechbrain', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stdout == "\n", done.stderr


def test_other_errors_of_files_are_one_sentence(call, monkeypatch):
    def denied(arguments):
        raise PermissionError(13, "Permission denied", "x.npz")

    monkeypatch.setattr(parser, "_function", lambda _: denied)
    code, _, error = call("info", with_model=False)
    assert code == ERROR and "x.npz: cannot be read or written" in error


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(parser, "_function", lambda _: lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parser.main(["info"])


def test_output_into_a_pipe_that_is_closed(model, here):
    code = (
        "import os, sys; from imlkd_brain.commands.parser import main\n"
        "sys.exit(main(['verify', 'anna/1.wav', 'anna/2.wav', '--model', "
        f"{model!r}]))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.close()
    error = running.stderr.read()
    assert running.wait() == 0 and "Traceback" not in error, error
