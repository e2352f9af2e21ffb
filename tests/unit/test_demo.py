"""Unit tests of ``demo.py``."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import demo
import pytest
from ruamel.yaml import YAML

from imlkd_brain.commands.parser import make_parser
from imlkd_brain.comparison.steps import run_group
from imlkd_brain.corpora.splits import read_splits, roles
from imlkd_brain.data.labels import read_speakers
from imlkd_brain.settings import resolve_base

RECIPE = Path(demo.__file__).parent


def keys_of(path):
    base, _ = resolve_base(str(path))
    return set(YAML().load(Path(base).read_text(encoding="utf-8")))


def check_command(folder, words):
    """The script, its YAML and the YAML's keys are there."""
    script, *options = words
    if script == "-m":
        assert options[:2] == ["imlkd_brain.corpora.minivox", "--data_folder"]
        return
    assert (folder / script).is_file() and (folder / options[0]).is_file()
    given = {word[2:] for word in options if word.startswith("--")}
    assert given <= keys_of(folder / options[0])


def test_what_comes_next_works_as_typed(tmp_path):
    place, *lines = demo.next_steps().splitlines()
    folder = Path(shlex.split(place)[1])
    activation = [line for line in lines if line.startswith(". ")]
    commands = [shlex.split(line) for line in lines if line[0] not in "#."]
    assert len(commands) == 3
    # The Python of the demo, from any folder, in plain sh
    before = "; ".join([place, *activation])
    said = subprocess.run(
        ["sh", "-c", f"{before}; python -c 'import sys; print(sys.prefix)'"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    if sys.prefix != sys.base_prefix:
        assert said.stdout.strip() == sys.prefix, said.stderr
    for program, *words in commands:
        if program == "imlkd":
            make_parser().parse_args(words)
        else:
            assert program == "python"
            check_command(folder, words)


@pytest.mark.parametrize("group", demo.GROUPS + demo.WITH_TEACHER)
def test_the_steps_are_commands_of_this_folder(group):
    for step in group:
        words = shlex.split(step.command)
        check_command(Path(demo.__file__).parent, words)


def test_the_labelled_voices_are_trained_on():
    """They and no test or dev speaker of MiniVox's default split."""
    labelled = set(read_speakers(RECIPE / "hparams/minivox/ten_voices.txt"))
    splits = read_splits()
    train = {
        name
        for name, role in roles(splits, 0).items()
        if role == "train" and not name.startswith("uqm-")
    }
    assert len(labelled) == 10 and labelled < train and len(train) == 35


def test_the_table_and_what_it_says():
    rates = {"ten_voices": 0.3, demo.METHOD: 0.2, "all_labels": 0.25}
    rates["teacher"] = 0.125
    results = {
        "models": {name: {"parameters": 45_200} for name in rates},
        "lists": {"test": {"speakers": 12}},
        "results": [
            {
                "model": name,
                "list": "test",
                "duration": duration,
                "group": group,
                "eer": rate + 0.01 * (duration == "2s") + (group != "all"),
            }
            for name, rate in rates.items()
            for duration in ("full", "2s", "pooled")
            for group in ("all", "klettres")
        ],
    }
    table, _, said = demo.summary(results).rpartition("\n\n")
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(demo.LEARNT_FROM)
    assert [row[-3:] for row in rows][1] == ["20.0", "21.0", "20.0"]
    assert "On 12 voices" in said
    assert "from 30.0 to 20.0 %" in said and "give 25.0 %" in said


def test_the_figure_opens_on_a_screen_alone(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display, terminal in (("", True), (":0", False), (":0", True)):
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.setattr(sys.stdout, "isatty", lambda value=terminal: value)
        demo.show("results/demo.png")
    assert len(opened) == 1 and opened[0].startswith("file:///")


def test_steps_end_with_the_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pid = tmp_path / "pid"
    code = f"import os,time;open({str(pid)!r},'w').write(str(os.getpid()));"
    step = demo.Step("long", shlex.join(["-c", code + "time.sleep(60)"]))

    def interrupt(seconds):
        if pid.is_file() and pid.read_text():
            raise KeyboardInterrupt
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr("imlkd_brain.comparison.steps.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_group([step], str(tmp_path), lambda step: None)
    alive = subprocess.run(["kill", "-0", pid.read_text()], capture_output=True)
    assert alive.returncode, "the step goes on without the demo"
