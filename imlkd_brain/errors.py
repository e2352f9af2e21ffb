"""What a user can get wrong is reported in one sentence, never a traceback.

The scripts run their main block inside :func:`one_sentence_errors`. Library
code raises :class:`UserError` with a sentence that names the file or key, what
was expected, and the way out.
"""

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


@contextmanager
def one_sentence_errors():
    """Turn a user's mistake, a full disk or Ctrl-C into one line and an exit.

    Exit codes: 2 for :class:`UserError`, 28 (``ENOSPC``) for a full disk, 130
    for an interrupt. Any other exception is a bug and keeps its traceback.
    SIGTERM, which schedulers send at the end of a job's time, is an interrupt
    as well, also where Ctrl-C is ignored (``nohup ... &`` in a script).

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
    """A handler that interrupts one process and just ends its forks."""

    def handler(number, frame):
        if os.getpid() == pid:
            raise KeyboardInterrupt
        # A worker that its pool ends inherits this handler.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handler


def _sentence(error):
    """The user's sentence, also where a data loader's worker raised it.

    From a worker, torch raises the same type again with the worker's
    traceback as the message; the sentence is what follows the last name.
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
