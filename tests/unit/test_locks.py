"""Unit tests of ``imlkd_brain.locks``."""

import subprocess
import sys

import pytest

from imlkd_brain.errors import UserError
from imlkd_brain.locks import HOLDER, locked, sole_use

HOLD = """
import sys
from imlkd_brain.locks import locked
with locked(sys.argv[1], "busy"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_stops_or_waits(tmp_path, capsys):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipe) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="^busy$"):
            with locked(path, "busy"):
                pass
        # It ends while the next one waits for it.
        holder.stdin.write("\n")
        holder.stdin.flush()
        with locked(path, "waiting", wait=True):
            pass
    assert capsys.readouterr().out in ("", "waiting\n")


def test_a_killed_process_holds_nothing(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipe) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
        with locked(path, "busy"):
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
