"""Lets one process at a time work in a folder.

Authors: IML-KD contributors
"""

import atexit
import contextlib
import errno
import json
import os
import socket
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from imlkd_brain.errors import UserError
from imlkd_brain.files import write_json

LOCK = ".lock"
_held = set()
_until_the_end = ExitStack()
atexit.register(_until_the_end.close)


class Busy(UserError):
    """Another process holds a lock."""


@contextmanager
def locked(path, busy, way_out=None):
    """Hold a lock file, which processes on this machine share.

    The lock ends with the process, also if it is killed. File systems without
    locks, and other machines on a shared one that does not pass locks on, are
    not held off.

    Arguments
    ---------
    path : str or pathlib.Path
        The lock file, in a folder that exists. It is made if missing. A file
        beside it, with ``.json`` after its name, says who holds it.
    busy : str
        What to say if another process holds the lock, without a full stop.
        The process, and since when, is added.
    way_out : str, optional
        Stop with ``busy`` and this. Without, print ``busy`` and wait.

    Raises
    ------
    Busy
        If another process holds the lock and there is a ``way_out``.

    Example
    -------
    >>> path = getfixture("tmp_path") / ".lock"
    >>> with locked(path, "another build is at work here", "come again"):
    ...     pass
    """
    lock, about = FileLock(path), Path(f"{path}.json")
    with ExitStack() as stack:
        try:
            _acquire(lock, about, busy, way_out)
        except (NotImplementedError, OSError) as error:
            # What filelock raises there; a lock is no reason not to work.
            number = getattr(error, "errno", None)
            if number not in (None, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            print(
                f"{path}: its file system has no locks, so nothing keeps "
                "another process out.",
                file=sys.stderr,
            )
        else:
            stack.callback(lock.release)
            # Before the lock ends: the file is then the next one's.
            stack.callback(_forget, about)
            _tell(about)
        yield


def _acquire(lock, about, busy, way_out):
    """Take a lock now, or wait for it and say so, or stop."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        said = f"{busy}{_holder(about)}"
        if way_out is not None:
            raise Busy(f"{said}; {way_out}.") from None
        print(f"{said}; waiting until it has ended.", flush=True)
        lock.acquire()


@contextmanager
def sole_use(folder, work, key="output_folder"):
    """Keep other processes that do such work out of a folder.

    Two runs of one script, such as a job that is queued twice, would write
    the same files and remove each other's.

    Arguments
    ---------
    folder : str or pathlib.Path
        Made if missing.
    work : str
        What is done there, for the message: ``training``, ``verification``.
    key : str
        The option that gives the folder.

    Raises
    ------
    Busy
        If another process on this machine works there, with its number and
        its command. A process that was killed holds nothing, see
        :func:`locked`.

    Example
    -------
    >>> with sole_use(getfixture("tmp_path") / "results", "verification"):
    ...     pass
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another {work} is at work there"
    way_out = f"wait until it has ended, or give another {key}"
    with locked(folder / LOCK, busy, way_out):
        yield


def hold(folder, work, key="output_folder"):
    """Keep other processes out of a folder until this one ends.

    Arguments
    ---------
    folder, work, key
        See :func:`sole_use`.

    Raises
    ------
    Busy
        As :func:`sole_use`.
    """
    place = Path(folder).resolve()
    if place not in _held:
        _held.add(place)
        try:
            _until_the_end.enter_context(sole_use(folder, work, key))
        except BaseException:
            _held.remove(place)
            raise


def _tell(path):
    """Write beside a lock who holds it; a full disk is the work's to report."""
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv)[:300],
    }
    with contextlib.suppress(OSError):
        write_json(path, about)


def _holder(path):
    """Say who wrote a file beside a lock; empty if nobody did."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return (
            f" (process {about['pid']} on {about['host']} since "
            f"{about['since']}: {about['command']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _forget(path):
    """Remove a file; one that cannot be removed harms nobody."""
    with contextlib.suppress(OSError):
        path.unlink()
