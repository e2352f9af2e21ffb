"""Reports a user's mistake in one sentence, without a traceback.

Library code raises :class:`UserError`. Its sentence names the file or key,
what was expected, and the way out. Scripts run their main block inside
:func:`one_sentence_errors`, which prints it.
"""

import difflib
import errno
import os
import signal
import sys
import threading
from contextlib import contextmanager

from imlkd_brain.workers import (
    ChildStopped,
    Watch,
    end_children,
    sentence_of_workers,
)


class UserError(ValueError):
    """A mistake in what the user gave: a file, a key, a list, a checkpoint.

    Example
    -------
    >>> raise UserError("trials.txt, line 3: expected `label enrol test`.")
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: trials.txt, line 3: expected `label enrol test`.
    """


def expected_sentence(key, value, expected):
    """Say what a key is, in words, and what it must be."""
    return f"{key} is {value}, but must be {expected}."


def nearest(name, known):
    """Hint at the known name that is most like this one, if one is."""
    found = difflib.get_close_matches(str(name), [str(k) for k in known], 1)
    return f" (did you mean {found[0]}?)" if found else ""


# What a disk says of itself, with or without the name of a file.
FULL = (errno.ENOSPC, errno.EDQUOT)
FILES = (errno.EMFILE, errno.ENFILE)
SYSTEM = (*FULL, *FILES, errno.EROFS, errno.EIO)
# What torch says where it cannot write a file, without errno.
TORCH_WRITES = ("inline_container", "Parent directory", "cannot be opened")
# What a process says when another one that it trains with is gone.
PEERS = ("DistBackendError", "DistNetworkError", "DistStoreError")
PEER_GONE = (
    "another process of this run has ended; what it said stands above or below. "
    "Run the same command again, what was finished is kept."
)
# What torch says where it gets no memory, on a CPU and on a GPU
NO_MEMORY = ("DefaultCPUAllocator: ", "CUDA out of memory")
MEMORY = (
    "the memory does not suffice; run the same command again with a smaller "
    "batch (`--batch_size`, `--max_batch_seconds`) or fewer processes, what "
    "was finished is kept."
)
# What Python says where the number of a user is all that is known of them
NOBODY = (
    "getpwuid(): uid not found",
    "No username set in the environment",
    "Could not determine home directory",
)
NO_NAME = (
    "this user has no name or no home on this machine, as in a container; give "
    "both (`export USER=me HOME=/tmp/me`) and run the same command again, what "
    "was finished is kept."
)
AGAIN = (
    "Make it a place to write to and run the same command again, what was "
    "finished is kept."
)


@contextmanager
def one_sentence_errors():
    """Turn a user's mistake, a disk's or Ctrl-C into one line and an exit.

    Exit codes: 2 for :class:`UserError`, 130 for an interrupt, the system's
    error number for a file that cannot be read or written (28, ``ENOSPC``, for
    a full disk) and for too little memory, 1 for processes of its own that
    died, hang or were stopped and for another process of the same training
    that did. Any other exception is a bug and keeps its traceback.
    SIGTERM, which schedulers send at the end of a job's time, counts as an
    interrupt, also where Ctrl-C is ignored (``nohup ... &`` in a script).

    Example
    -------
    >>> with one_sentence_errors():
    ...     pass
    """
    previous, watch = None, Watch()
    if threading.current_thread() is threading.main_thread():
        previous = signal.signal(signal.SIGTERM, _interrupt(os.getpid(), watch))
        watch.start()
    try:
        try:
            yield
        except BaseException as error:
            _end(error)
            raise
    except RuntimeError as error:
        # torch's own handler speaks of a worker that died, at any moment.
        _end(error)
        raise
    finally:
        watch.end()
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _interrupt(pid, watch):
    """Return a handler that interrupts one process and ends its forks."""

    def handler(number, frame):
        if os.getpid() == pid:
            raise watch.found or KeyboardInterrupt
        # A worker that its pool ends inherits this handler.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handler


def _end(error):
    """Exit with the sentence of an error, if there is one."""
    code, message = _code_and_message(error)
    if message:
        end_children()
        sys.stdout.flush()
        print(f"\n{message}", file=sys.stderr, flush=True)
        raise SystemExit(code) from None


def _code_and_message(error):
    """The exit code and last line of an error; of a bug no line."""
    if isinstance(error, UserError):
        return 2, f"error: {_sentence(error)}"
    if isinstance(error, ChildStopped):
        return 1, f"error: {error}"
    if isinstance(error, KeyboardInterrupt):
        return 130, (
            "interrupted: what was finished is kept; "
            "run the same command again to go on."
        )
    said = sentence_of_workers(error)
    if said:
        return 1, f"error: {said}"
    said = str(error)
    if isinstance(error, (KeyError, OSError, RuntimeError)) and any(
        part in said for part in NOBODY
    ):
        return 2, f"error: {NO_NAME}"
    if isinstance(error, RuntimeError) and (
        type(error).__name__ in PEERS or "gloo/transport" in said
    ):
        return 1, f"error: {PEER_GONE}"
    if isinstance(error, MemoryError) or any(p in said for p in NO_MEMORY):
        return errno.ENOMEM, f"error: {MEMORY}"
    if isinstance(error, RuntimeError) and "Too many open files" in said:
        error = OSError(errno.EMFILE, "", "while workers hand over batches")
    if isinstance(error, OSError):
        named = isinstance(error.filename, (str, bytes, os.PathLike))
        if error.errno and (named or error.errno in SYSTEM):
            return error.errno, f"error: {_sentence_of_system(error)}"
    # torch.save gives no errno; it fails to write for no other reason.
    if isinstance(error, RuntimeError) and "Reader" not in said:
        if "inline_container" in said:
            full = OSError(errno.ENOSPC, "", "while writing a checkpoint")
            return errno.ENOSPC, f"error: {_sentence_of_system(full)}"
        if any(part in said for part in TORCH_WRITES):
            return errno.EACCES, f"error: {said.splitlines()[0]} {AGAIN}"
    return None, ""


def _sentence(error):
    """Return the sentence of an error, also of a data loader's worker.

    torch raises a worker's error again with the worker's traceback as its
    message. The sentence follows the last name in it.
    """
    message = str(error)
    if "Original Traceback" in message:
        return message.rpartition(f"{UserError.__qualname__}: ")[2].strip()
    return message


def _sentence_of_system(error):
    """Return what stands in the way of a file, and the way out."""
    name = error.filename
    name = os.fsdecode(name) if name else "while writing"
    if error.errno in FULL:
        return (
            f"the disk is full ({name}); free some space and run the same "
            "command again, what was finished is kept."
        )
    if error.errno in FILES:
        return (
            f"the system lets this process open no more files ({name}); allow "
            "more (`ulimit -n 4096`) or give fewer `--num_workers`, and run "
            "the same command again, what was finished is kept."
        )
    if error.filename2 is not None:
        name = f"{name} -> {os.fsdecode(error.filename2)}"
    reason = (error.strerror or os.strerror(error.errno)).lower()
    return (
        f"{name}: {reason}; restore the file, or make the folder one that can "
        "be read and written, and run the same command again, what was "
        "finished is kept."
    )
