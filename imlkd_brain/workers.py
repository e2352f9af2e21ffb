"""Watches over the processes that a script waits for.

A process that is stopped (SIGSTOP) keeps what it has begun: half a batch in a
pipe, a lock, a lesson that its parent joins. What waits for it waits for ever,
also where torch's ``timeout`` is given, which covers the wait for the first
byte of a batch alone. One that is killed at such a moment ends in one of many
errors of sockets and pickles.

Authors: IML-KD contributors
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool

STOPPED_SECONDS = 30  # in which a stopped process may go on
ENDING_SECONDS = 1.0  # in which a child may end by itself
# Where torch fetches what a worker has made, in torch.utils.data.dataloader
FETCHING = "_try_get_data"
TORCH_SAYS = ("DataLoader worker (pid", "DataLoader timed out")


class ChildStopped(KeyboardInterrupt):
    """A child process was stopped and did not go on."""


class Watch(threading.Thread):
    """Interrupts the main thread when a child process stays stopped.

    The main thread gets SIGTERM; its handler raises :attr:`found`. A system
    without ``os.waitid`` is not watched.

    Arguments
    ---------
    seconds : int
        How long a child may be stopped.

    Example
    -------
    >>> watch = Watch()
    >>> watch.start()
    >>> watch.end()
    >>> print(watch.found)
    None
    """

    def __init__(self, seconds=STOPPED_SECONDS):
        super().__init__(name="watch over children", daemon=True)
        self.seconds = seconds
        self.found = None
        self._ended = threading.Event()

    def run(self):
        """Look once a second."""
        # Looks are counted, not seconds: Ctrl-Z stops this process as well.
        looks, before = 0, None
        while not self._ended.wait(1.0):
            child = stopped_child()
            same = child is not None and child == before
            looks, before = (looks + 1 if same else 0), child
            if looks >= self.seconds:
                self.found = ChildStopped(
                    f"the process {child}, which this one waits for, was "
                    f"stopped (SIGSTOP) for {self.seconds} s; run the same "
                    "command again, what was finished is kept."
                )
                looks = 0
                main = threading.main_thread().ident
                signal.pthread_kill(main, signal.SIGTERM)

    def end(self):
        """Look no more."""
        self._ended.set()


def stopped_child():
    """Return the number of a child process that is stopped, or None.

    Example
    -------
    >>> stopped_child() is None
    True
    """
    if not hasattr(os, "waitid"):
        return None
    try:
        # The child's end stays to be waited for by whoever started it.
        found = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid


def sentence_of_workers(error):
    """Say what became of a process that worked for this one.

    Arguments
    ---------
    error : Exception
        Whatever ended the script.

    Returns
    -------
    str
        A sentence; empty if the error is about something else.

    Example
    -------
    >>> sentence_of_workers(ValueError("a bug"))
    ''
    """
    said = str(error)
    if isinstance(error, BrokenProcessPool):
        return (
            "a process that worked for this one ended without a word, killed "
            "for want of memory perhaps; run the same command again, what was "
            "finished is kept."
        )
    fetching = _was_fetching(error) and not isinstance(error, RuntimeError)
    if not fetching and not any(part in said for part in TORCH_SAYS):
        return ""
    if "timed out" in said:
        what = "gave nothing for the seconds of its `timeout`"
    elif "killed by signal" in said:
        name = said.partition("killed by signal: ")[2].partition(".")[0]
        what = f"was killed ({name}), for want of memory perhaps"
    else:
        what = "ended without a word"
    return (
        f"a process that reads audio (num_workers) {what}; run the same "
        "command again, it goes on from the last checkpoint, with fewer "
        "processes (`--num_workers 0`) if it comes again."
    )


def _was_fetching(error):
    """Whether an error arose where a worker hands a batch over."""
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_name == FETCHING:
            return True
        place = place.tb_next
    return False


def end_children():
    """End processes that multiprocessing would wait for, stopped ones too."""
    if threading.current_thread() is threading.main_thread():
        # torch's handler would raise once more for each worker that ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(ENDING_SECONDS)
        if child.is_alive():
            # One that is stopped takes no other signal.
            child.kill()
            child.join(ENDING_SECONDS)
