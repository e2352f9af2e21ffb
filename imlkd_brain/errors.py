"""Reports a user's mistake in one sentence, without a traceback.

Library code raises :class:`UserError`. Its sentence names the file or key,
what was expected, and the way out. Scripts run their main block inside
:func:`one_sentence_errors`, which prints it.
"""

import difflib
import errno
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import contextmanager


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
DISK = (*FULL, errno.EROFS, errno.EIO)
# What torch says where it cannot write a file, without errno.
TORCH_WRITES = ("inline_container", "Parent directory", "cannot be opened")
TORCH_WORKERS = ("DataLoader worker (pid", "DataLoader timed out")
# What a process says when another one that it trains with is gone.
PEERS = ("DistBackendError", "DistNetworkError", "DistStoreError")
PEER_GONE = (
    "another process of this run has ended; what it said stands above or below. "
    "Run the same command again, what was finished is kept."
)
AGAIN = (
    "Make it a place to write to and run the same command again, what was "
    "finished is kept."
)
PATIENCE = 1.0  # seconds in which a child may end by itself


@contextmanager
def one_sentence_errors():
    """Turn a user's mistake, a disk's or Ctrl-C into one line and an exit.

    Exit codes: 2 for :class:`UserError`, 130 for an interrupt, the system's
    error number for a file that cannot be read or written (28, ``ENOSPC``, for
    a full disk), 1 for data-loader workers that died or hang and for another
    process of the same training that did. Any other exception is a bug and
    keeps its traceback.
    SIGTERM, which schedulers send at the end of a job's time, counts as an
    interrupt, also where Ctrl-C is ignored (``nohup ... &`` in a script).

    Example
    -------
    >>> with one_sentence_errors():
    ...     pass
    """
    previous = None
    if threading.current_thread() is threading.main_thread():
        previous = signal.signal(signal.SIGTERM, _interrupt(os.getpid()))
    try:
        yield
    except UserError as error:
        _exit(2, f"error: {_sentence(error)}")
    except KeyboardInterrupt:
        _exit(
            130,
            "interrupted: what was finished is kept; "
            "run the same command again to go on.",
        )
    except OSError as error:
        named = isinstance(error.filename, (str, bytes, os.PathLike))
        if not error.errno or not (named or error.errno in DISK):
            raise
        _exit(error.errno, f"error: {_sentence_of_system(error)}")
    except RuntimeError as error:
        said = str(error)
        if any(part in said for part in TORCH_WORKERS):
            _exit(1, f"error: {_sentence_of_workers(said)}")
        if type(error).__name__ in PEERS or "gloo/transport" in said:
            _exit(1, f"error: {PEER_GONE}")
        # torch.save gives no errno; it fails to write for no other reason.
        if "Reader" in said or not any(part in said for part in TORCH_WRITES):
            raise
        if "inline_container" in said:
            full = OSError(errno.ENOSPC, "", "while writing a checkpoint")
            _exit(errno.ENOSPC, f"error: {_sentence_of_system(full)}")
        _exit(errno.EACCES, f"error: {said.splitlines()[0]} {AGAIN}")
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _interrupt(pid):
    """Return a handler that interrupts one process and ends its forks."""

    def handler(number, frame):
        if os.getpid() == pid:
            raise KeyboardInterrupt
        # A worker that its pool ends inherits this handler.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handler


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
    if error.filename2 is not None:
        name = f"{name} -> {os.fsdecode(error.filename2)}"
    reason = (error.strerror or os.strerror(error.errno)).lower()
    return (
        f"{name}: {reason}; restore the file, or make the folder one that can "
        "be read and written, and run the same command again, what was "
        "finished is kept."
    )


def _sentence_of_workers(said):
    """Return what became of the processes that read a training's audio."""
    if "timed out" in said:
        what = "gave nothing for the seconds of its `timeout`"
    elif "killed by signal" in said:
        signal_name = said.partition("killed by signal: ")[2].partition(".")[0]
        what = f"was killed ({signal_name}), for want of memory perhaps"
    else:
        what = "ended without a word"
    return (
        f"a process that reads audio (num_workers) {what}; run the same "
        "command again, it goes on from the last checkpoint, with fewer "
        "processes (`--num_workers 0`) if it comes again."
    )


def _leave_workers_alone():
    """Let torch's handler not raise once more for a worker that died."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _end_children():
    """End processes that multiprocessing would wait for, stopped ones too."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(PATIENCE)
        if child.is_alive():
            # One that is stopped (SIGSTOP) takes no other signal.
            child.kill()


def _exit(code, message):
    """Print ``message`` as the last line on stderr and exit with ``code``."""
    _end_children()
    sys.stdout.flush()
    print(f"\n{message}", file=sys.stderr, flush=True)
    raise SystemExit(code) from None
