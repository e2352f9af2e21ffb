"""Unit tests of ``imlkd_brain.comparison.run``."""

import os
import subprocess
import sys
import time

import pytest

from imlkd_brain.comparison.plan import plan, run_folder
from imlkd_brain.comparison.run import drop_caches, sole_use
from imlkd_brain.errors import UserError

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


def test_two_comparisons_do_not_train_the_same_run(hparams):
    jobs = plan(hparams)
    place = run_folder(hparams["output_folder"], "p", RUNS[0])
    with sole_use(jobs):
        with pytest.raises(UserError, match=f"{place}: .*another comparison"):
            with sole_use(jobs[:1]):
                pass
    with sole_use(jobs):
        pass


def test_a_cache_goes_with_the_last_training_of_its_run(hparams):
    jobs = plan(hparams)
    caches = [
        run_folder(hparams["output_folder"], "p", run) / "teacher_cache"
        for run in RUNS
    ]
    for cache in caches:
        (cache / "ab").mkdir(parents=True)
    drop_caches(hparams, jobs[2:])
    assert all(cache.is_dir() for cache in caches)
    # What is left is of the second run.
    drop_caches(hparams, jobs[-1:])
    assert [cache.is_dir() for cache in caches] == [False, True]
    drop_caches(hparams, [])
    assert not caches[1].exists()


def test_trainings_end_with_what_started_them(tmp_path):
    # As `nohup ... &` starts it: Ctrl-C is ignored, by the trainings as well.
    said = tmp_path / "pid"
    training = f"""
import os, time
open({str(said)!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""
    job = {
        "folder": tmp_path / "out",
        "command": [sys.executable, "-c", training],
        "depends": None,
        "overrides": {},
    }
    script = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from pathlib import Path, PosixPath
from imlkd_brain.comparison.run import run_jobs
from imlkd_brain.errors import one_sentence_errors
with one_sentence_errors():
    run_jobs({{"jobs": 1, "threads": 1, "pairs": {{}}}}, [{job!r}])
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
