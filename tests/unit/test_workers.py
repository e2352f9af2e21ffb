"""Processes that die or are stopped while another one waits for them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.workers import Watch, sentence_of_workers, stopped_child


class Zeros(torch.utils.data.Dataset):
    """Utterances that cost nothing."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        return torch.zeros(16_000)


def fetch(number, wait):
    """Send a worker a signal while it has batches ready; fetch on."""
    loader = torch.utils.data.DataLoader(
        Zeros(), batch_size=4, num_workers=2, timeout=50, prefetch_factor=4
    )
    batches = iter(loader)
    next(batches)
    time.sleep(0.2)
    os.kill(batches._workers[0].pid, number)
    time.sleep(wait)
    for _ in batches:
        pass


def outcome(capsys, function, *arguments):
    """Exit code and last line of a script's main block."""
    with pytest.raises(SystemExit) as stopped:
        with one_sentence_errors():
            function(*arguments)
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return stopped.value.code, said


@pytest.mark.parametrize(
    "wait",
    [0, 0.001, 0.05, *[pytest.param(0, marks=pytest.mark.slow)] * 9],
)
def test_a_killed_worker_is_a_sentence_at_any_moment(capsys, wait):
    code, said = outcome(capsys, fetch, signal.SIGKILL, wait)
    assert code == 1 and "goes on from the last checkpoint" in said


@pytest.mark.parametrize("wait", [0, 0.5])
def test_a_stopped_worker_ends_the_run(capsys, monkeypatch, wait):
    """torch's own timeout would wait for 50 s, and for ever in a hand-over."""
    monkeypatch.setattr(Watch.__init__, "__defaults__", (2,))
    began = time.monotonic()
    code, said = outcome(capsys, fetch, signal.SIGSTOP, wait)
    assert time.monotonic() - began < 20
    assert code == 1 and "was stopped (SIGSTOP) for 2 s" in said
    assert not multiprocessing.active_children()


def test_one_that_goes_on_in_time_ends_nothing(monkeypatch):
    monkeypatch.setattr(Watch.__init__, "__defaults__", (3,))
    with subprocess.Popen(["sleep", "60"]) as child:
        with one_sentence_errors():
            child.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            assert stopped_child() == child.pid
            child.send_signal(signal.SIGCONT)
            time.sleep(3)
        assert stopped_child() is None and child.poll() is None
        child.kill()


def kill_oneself():
    """What a system short of memory does to a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_pool_whose_process_is_killed_ends(capsys):
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        code, said = outcome(capsys, lambda: pool.submit(kill_oneself).result())
    assert code == 1 and "what was finished is kept" in said


@pytest.mark.parametrize("error", [EOFError("a bug"), RuntimeError("a bug")])
def test_other_errors_are_not_the_workers(error):
    assert sentence_of_workers(error) == ""


def test_a_script_ends_though_its_worker_stays_stopped(tmp_path):
    """multiprocessing would wait for it at the interpreter's end."""
    script = tmp_path / "script.py"
    script.write_text(
        "import signal\n"
        "from test_workers import Watch, fetch, one_sentence_errors\n"
        "Watch.__init__.__defaults__ = (2,)\n"
        "with one_sentence_errors():\n"
        "    fetch(signal.SIGSTOP, 0.2)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(
            [os.path.dirname(__file__), *filter(None, sys.path)]
        )},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
