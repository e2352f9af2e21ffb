"""One sentence and an exit code for what a user can get wrong."""

import errno
import getpass
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from imlkd_brain.errors import UserError, one_sentence_errors


def outcome(capsys, error):
    """Exit code and what is left on stderr."""
    with pytest.raises(SystemExit) as stopped:
        with one_sentence_errors():
            raise error
    assert stopped.value.__cause__ is None
    return stopped.value.code, capsys.readouterr().err.strip()


def test_user_errors_are_one_sentence(capsys):
    sentence = "a.csv: missing; prepare the data."
    assert outcome(capsys, UserError(sentence)) == (2, f"error: {sentence}")


def test_interrupts_say_how_to_go_on(capsys):
    code, said = outcome(capsys, KeyboardInterrupt())
    assert code == 130
    assert said.startswith("interrupted: ") and "same command again" in said


def test_a_schedulers_signal_is_an_interrupt(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        with one_sentence_errors():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
    assert stopped.value.code == 130
    assert "interrupted: " in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_that_its_pool_ends_says_nothing(capfd):
    with one_sentence_errors():
        worker = multiprocessing.get_context("fork").Process(
            target=time.sleep, args=(60,)
        )
        worker.start()
        time.sleep(0.5)
        worker.terminate()
        worker.join(10)
    assert worker.exitcode == -signal.SIGTERM
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_is_named(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "save/x.ckpt")
    code, said = outcome(capsys, error)
    assert code == errno.ENOSPC
    assert "disk is full (save/x.ckpt)" in said and "\n" not in said


@pytest.mark.parametrize(
    "number",
    [
        errno.EROFS,
        errno.EACCES,
        errno.EIO,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENOENT,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    ],
)
def test_what_a_disk_says_is_one_sentence(capsys, number):
    error = OSError(number, os.strerror(number), "results/table.txt")
    code, said = outcome(capsys, error)
    assert code == number and "\n" not in said
    assert said.startswith("error: results/table.txt: ") and "again" in said


def test_a_folder_that_is_not_there_for_torch(capsys, tmp_path):
    with pytest.raises(RuntimeError) as raised:
        torch.save([], tmp_path / "not" / "there.pt")
    code, said = outcome(capsys, raised.value)
    assert code == errno.EACCES and "not" in said and "\n" not in said


def test_a_user_without_name_and_home_is_told(capsys, monkeypatch):
    """As in a container that runs with the number of a user it lacks."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    # torch asks for the name, folders of models for the home.
    for ask in (getpass.getuser, Path("~/models").expanduser):
        with pytest.raises((KeyError, OSError, RuntimeError)) as raised:
            ask()
        code, said = outcome(capsys, raised.value)
        assert code == 2 and "\n" not in said
        assert said.startswith("error: this user has no name")
        assert "export USER=" in said and "HOME=" in said


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), OSError("no number"), KeyError("k")]
)
def test_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)) as raised:
        with one_sentence_errors():
            raise error
    assert raised.value is error


def test_nothing_is_printed_when_nothing_happens(capsys):
    with one_sentence_errors():
        pass
    assert capsys.readouterr() == ("", "")


class Broken(torch.utils.data.Dataset):
    """A file that cannot be read, in one of the ways there are."""

    def __init__(self, chained):
        self.chained = chained

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise RuntimeError("a decoder's complaint")
        except RuntimeError as error:
            if self.chained:
                raise UserError("b.wav: broken; restore it.") from error
        raise UserError("b.wav: broken; restore it.")


@pytest.mark.parametrize("chained", [True, False])
def test_a_workers_sentence_comes_without_its_traceback(capsys, chained):
    """torch raises the same type here, its message being the traceback."""
    loader = torch.utils.data.DataLoader(Broken(chained), num_workers=1)
    with pytest.raises(UserError) as raised:
        next(iter(loader))
    code, said = outcome(capsys, raised.value)
    assert (code, said) == (2, "error: b.wav: broken; restore it.")


def test_torch_out_of_disk_space_is_a_full_disk(capsys):
    """torch.save turns ENOSPC into a RuntimeError of its own."""
    with pytest.raises(RuntimeError) as raised:
        torch.save(torch.zeros(100_000), "/dev/full")
    code, said = outcome(capsys, raised.value)
    assert code == errno.ENOSPC and "disk is full" in said and "\n" not in said


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "Killed"),
        ("DataLoader worker (pid(s) 7) exited unexpectedly", "without a word"),
        ("DataLoader timed out after 50 seconds", "gave nothing"),
    ],
)
def test_what_torch_says_of_workers_is_one_sentence(capsys, said, says):
    code, sentence = outcome(capsys, RuntimeError(said))
    assert code == 1 and says in sentence and "\n" not in sentence
    assert "goes on from the last checkpoint" in sentence
