"""Processes that are killed at a write, counted."""

import builtins
import os
import signal

import pytest
import torch

# What changes the disk; `open` for writing alone
WRITES = (
    (os, "replace"),
    (os, "rename"),
    (os, "mkdir"),
    (os, "unlink"),
    (torch, "save"),
    (builtins, "open"),
)


def is_killed(number, function):
    """Call a function in a fork that is killed before its n-th write.

    Arguments
    ---------
    number : int
        From 0.
    function : callable
        Without arguments.

    Returns
    -------
    bool
        False if it ended, since it writes less often.
    """
    pid = os.fork()
    if not pid:
        try:
            # A forked process cannot use the threads of its parent.
            torch.set_num_threads(1)
            with pytest.MonkeyPatch.context() as patch:
                _count_down(number, patch)
                function()
            os._exit(0)
        except BaseException:
            # Whatever it is: pytest must not go on in the fork.
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _count_down(number, patch):
    """Kill this process before a write."""
    left = [number]
    for owner, name in WRITES:
        patch.setattr(owner, name, _counted(getattr(owner, name), name, left))


def _counted(real, name, left):
    """A function that takes part in the count."""

    def write(*args, **kwargs):
        mode = args[1] if len(args) > 1 else kwargs.get("mode", "r")
        if name != "open" or not str(mode).startswith("r"):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return real(*args, **kwargs)

    return write
