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
HOLDER = ".lock.json"
_held = set()
_until_the_end = ExitStack()
atexit.register(_until_the_end.close)


@contextmanager
def locked(path, busy, wait=False):
    """Hold a lock file, which processes on this machine share.

    The lock ends with the process, also if it is killed.

    Arguments
    ---------
    path : str or pathlib.Path
        The lock file, in a folder that exists. It is made if missing.
    busy : str
        What to say if another process holds the lock.
    wait : bool
        If True, print ``busy`` and wait; if False, stop with it.

    Raises
    ------
    UserError
        If another process holds the lock and ``wait`` is False.

    Example
    -------
    >>> path = getfixture("tmp_path") / ".lock"
    >>> with locked(path, "another build is at work here"):
    ...     pass
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise UserError(busy) from None
        print(busy, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
    UserError
        If another process on this machine works there, with its number and
        its command. A process that was killed holds nothing. File systems
        without locks, and other machines on a shared one that does not pass
        locks on, are not held off.

    Example
    -------
    >>> with sole_use(getfixture("tmp_path") / "results", "verification"):
    ...     pass
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        busy = (
            f"{folder}: another {work} is at work there"
            f"{_holder(folder / HOLDER)}; wait until it has ended, or give "
            f"another {key}."
        )
        try:
            stack.enter_context(locked(folder / LOCK, busy))
        except (NotImplementedError, OSError) as error:
            # What filelock raises there; a lock is no reason not to work.
            number = getattr(error, "errno", None)
            if number not in (None, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            print(
                f"{folder}: its file system has no locks, so nothing keeps a "
                f"second {work} out.",
                file=sys.stderr,
            )
        else:
            about = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": time.strftime("%Y-%m-%d %H:%M:%S"),
                "command": " ".join(sys.argv)[:300],
            }
            write_json(folder / HOLDER, about)
            # Before the lock ends: the file is then the next one's.
            stack.callback(_forget, folder / HOLDER)
        yield


def hold(folder, work, key="output_folder"):
    """Keep other processes out of a folder until this one ends.

    Arguments
    ---------
    folder, work, key
        See :func:`sole_use`.

    Raises
    ------
    UserError
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
