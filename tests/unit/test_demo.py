"""Unit tests of ``demo.py``."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import demo
import pytest
from ruamel.yaml import YAML

from imlkd_brain.comparison.steps import run_group
from imlkd_brain.settings import resolve_base


def keys_of(path):
    base, _ = resolve_base(str(path))
    return set(YAML().load(Path(base).read_text(encoding="utf-8")))


def test_what_comes_next_works_as_typed(tmp_path):
    place, *lines = demo.next_steps().splitlines()
    folder = Path(shlex.split(place)[1])
    commands = [
        words
        for line in lines
        for part in shlex.split(line, comments=True)[:1]
        for words in map(shlex.split, line.split(" && "))
    ]
    assert len(commands) == 4  # three steps, and captum for the last
    for python, *words in commands:
        # The Python of the demo, from the folder that is printed, in plain sh
        said = subprocess.run(
            [
                "sh",
                "-c",
                f"{place}; {python} -c 'import sys; print(sys.prefix)'",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert said.stdout.strip() == sys.prefix, said.stderr
        if words[0] == "-m":
            assert words[1:3] == ["pip", "install"]
            continue
        script, yaml, *options = words
        assert (folder / script).is_file() and (folder / yaml).is_file()
        given = {word[2:] for word in options if word.startswith("--")}
        assert given <= keys_of(folder / yaml)


@pytest.mark.parametrize("group", demo.GROUPS)
def test_the_steps_are_commands_of_this_folder(group):
    folder = Path(demo.__file__).parent
    for step in group:
        script, *options = shlex.split(step.command)
        if script == "-m":
            assert options == [
                "imlkd_brain.corpora.minivox",
                "--data_folder",
                demo.DATA,
            ]
            continue
        assert (folder / script).is_file() and (folder / options[0]).is_file()
        given = {word[2:] for word in options if word.startswith("--")}
        assert given <= keys_of(folder / options[0])


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
