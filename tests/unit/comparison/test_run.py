"""Unit tests of ``imlkd_brain.comparison.run``."""

import os
import subprocess
import sys
import time

import pytest

from imlkd_brain.comparison.run import drop_caches, sole_use
from imlkd_brain.errors import UserError


def test_two_comparisons_do_not_train_the_same_run(comparison):
    runs = comparison.runs()
    place = runs[0].folder
    with sole_use(runs):
        with pytest.raises(UserError, match=f"{place}: .*another comparison"):
            with sole_use(runs[:1]):
                pass
    comparison.pairs = {"q": {"teacher_of": "p"}}
    with sole_use(runs):
        # The run of the teacher that is shared is in use.
        with pytest.raises(UserError, match=f"{place}: .*another comparison"):
            with sole_use(comparison.runs()):
                pass
    with sole_use(runs):
        pass


def test_a_cache_goes_with_the_last_training_of_its_run(comparison):
    trainings = comparison.trainings()
    caches = [run.folder / "teacher_cache" for run in comparison.runs()]
    for cache in caches:
        (cache / "ab").mkdir(parents=True)
    drop_caches(trainings, trainings[2:])
    assert all(cache.is_dir() for cache in caches)
    # What is left is of the second run.
    drop_caches(trainings, trainings[-1:])
    assert [cache.is_dir() for cache in caches] == [False, True]
    drop_caches(trainings, [])
    assert not caches[1].exists()


def test_trainings_end_with_what_started_them(tmp_path):
    # As `nohup ... &` starts it: Ctrl-C is ignored, by the trainings as well.
    said = tmp_path / "pid"
    training = f"""
import os, time
open({str(said)!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""
    command = [sys.executable, "-c", training]
    script = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from pathlib import Path
from imlkd_brain.comparison.trainings import Training
from imlkd_brain.comparison.run import run_trainings
from imlkd_brain.errors import one_sentence_errors
with one_sentence_errors():
    run_trainings([Training("m", Path({str(tmp_path / "out")!r}), {command!r})])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True
    )
    for _ in range(300):
        if said.is_file() and said.read_text():
            break
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: what was finished is kept" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)
