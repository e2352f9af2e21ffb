"""Unit tests of ``imlkd_brain.locks``."""

import errno
import re
import subprocess
import sys
import threading

import pytest

from imlkd_brain.errors import UserError
from imlkd_brain.locks import locked, sole_use

HOLDER = ".lock.json"

HOLD = """
import sys
from imlkd_brain.locks import locked
with locked(sys.argv[1], "busy"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_stops_or_waits_and_says_for_whom(tmp_path, capsys):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipe) as holder:
        assert holder.stdout.readline() == "held\n"
        whose = rf"busy \(process {holder.pid} on .* since .*\); "
        with pytest.raises(UserError, match=f"^{whose}come again.$"):
            with locked(path, "busy", "come again"):
                pass
        # It ends while the next one waits for it.
        end = threading.Timer(0.3, holder.stdin.close)
        end.start()
        with locked(path, "busy"):
            pass
        end.join()
    said = capsys.readouterr().out
    assert re.fullmatch(f"{whose}waiting until it has ended.\n", said)
    assert [file.name for file in tmp_path.iterdir()] in ([], [".lock"])


def test_a_full_disk_keeps_nobody_from_a_lock(tmp_path, monkeypatch):
    """The work itself says it, at its first write."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("imlkd_brain.locks.write_json", full)
    with locked(tmp_path / ".lock", "busy"):
        with pytest.raises(UserError, match="^busy; come again.$"):
            with locked(tmp_path / ".lock", "busy", "come again"):
                pass


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipe) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
        with locked(path, "busy", "come again"):
            pass


HOLD_FOLDER = """
import sys
from imlkd_brain.locks import hold
hold(sys.argv[1], "verification")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_folder_has_one_run_and_says_whose(tmp_path, killed):
    command = [sys.executable, "-c", HOLD_FOLDER, str(tmp_path)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipe) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            UserError,
            match=f"^{tmp_path}: another verification .*process {holder.pid} "
            "on .*output_folder",
        ):
            with sole_use(tmp_path, "verification"):
                pass
        if killed:
            holder.kill()
        else:
            holder.stdin.write("\n")
            holder.stdin.flush()
        holder.wait()
        assert (tmp_path / HOLDER).exists() == killed
        with sole_use(tmp_path, "verification"):
            pass
    assert not (tmp_path / HOLDER).exists()
