"""Lets one process at a time work in a folder.

Authors: IML-KD contributors
"""

from contextlib import contextmanager

from filelock import FileLock, Timeout

from imlkd_brain.errors import UserError


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
