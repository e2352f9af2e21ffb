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


@contextmanager
def one_sentence_errors():
    """Turn a user's mistake, a full disk or Ctrl-C into one line and an exit.

    Exit codes: 2 for :class:`UserError`, 28 (``ENOSPC``) for a full disk, 130
    for an interrupt. Any other exception is a bug and keeps its traceback.
    SIGTERM, which schedulers send at the end of a job's time, counts as an
    interrupt, also where Ctrl-C is ignored (``nohup ... &`` in a script).

    Example
    -------
    >>> with one_sentence_errors():
    ...     pass
    """
    full = (
        "error: the disk is full ({}); free some space and run the same "
        "command again, what was finished is kept."
    )
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
        if error.errno != errno.ENOSPC:
            raise
        _exit(errno.ENOSPC, full.format(error.filename or "while writing"))
    except RuntimeError as error:
        # torch.save gives no errno; it fails to write for no other reason.
        if "inline_container" not in str(error) or "Reader" in str(error):
            raise
        _exit(errno.ENOSPC, full.format("while writing a checkpoint"))
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


def _exit(code, message):
    """Print ``message`` as the last line on stderr and exit with ``code``."""
    sys.stdout.flush()
    print(f"\n{message}", file=sys.stderr, flush=True)
    raise SystemExit(code) from None
