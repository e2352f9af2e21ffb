"""Scripts that run others: steps side by side, each done once.

Authors: IML-KD contributors
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass

import pandas as pd

from imlkd_brain.comparison.run import child_environment
from imlkd_brain.errors import UserError


@dataclass(frozen=True)
class Step:
    """A command of a script that runs others.

    Arguments
    ---------
    name : str
        In the table of times.
    command : str
        What follows ``python``.
    done : str, optional
        The file that it writes last. Without it, the step always runs.
    """

    name: str
    command: str
    done: str = None


def run_group(group, results, check_done):
    """Runs the steps of a group that are not done, side by side.

    The first step shows its progress. The others write their output to files.

    Arguments
    ---------
    group : list of Step
        They do not need each other.
    results : str
        The folder of the outputs of all but the first.
    check_done : callable
        ``check_done(step)`` raises where a step was done with other options
        than today's.

    Returns
    -------
    seconds : dict
        Step to its seconds, None for one that was done before.
    """
    seconds, todo = {}, []
    for step in group:
        seconds[step.name] = None
        if step.done and os.path.exists(step.done):
            check_done(step)
            print(f"\n== {step.name}: done before ({step.done})", flush=True)
        else:
            todo.append(step)
    threads = max(1, os.cpu_count() // len(todo)) if len(todo) > 1 else None
    running = {}
    for number, step in enumerate(todo):
        print(f"\n== {step.name}: python {step.command}", flush=True)
        command, output = [sys.executable, *shlex.split(step.command)], None
        if number:
            os.makedirs(results, exist_ok=True)
            path = f"{results}/{step.name.replace(' ', '_')}.txt"
            print(f"   (beside the step above; its output is in {path})")
            output = open(path, "w", encoding="utf-8")
            command.append("--noprogressbar")
        running[step.name] = subprocess.Popen(
            command,
            env=child_environment(threads),
            stdout=output,
            stderr=output,
        )
    began = time.monotonic()
    try:
        while any(seconds[name] is None for name in running):
            time.sleep(0.2)
            for name, process in running.items():
                if seconds[name] is None and process.poll() is not None:
                    seconds[name] = time.monotonic() - began
    except BaseException:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        raise
    for name, process in running.items():
        if process.returncode:
            raise UserError(
                f"the step `{name}` stopped with exit code "
                f"{process.returncode} (its message is above or in its file); "
                "run the same command again, what is done is kept."
            )
    return seconds


def run_groups(groups, results, check_done=lambda step: None):
    """Runs groups one after the other, and says how long each step took.

    Arguments
    ---------
    groups : list of list of Step
        Those of a group do not need each other.
    results, check_done
        See :func:`run_group`.
    """
    seconds = {}
    for group in groups:
        seconds.update(run_group(group, results, check_done))
    table = pd.DataFrame(
        {
            "step": list(seconds),
            "seconds": [
                "done before" if s is None else f"{s:.0f}"
                for s in seconds.values()
            ],
        }
    )
    print(f"\nTime of each step, on {os.cpu_count()} CPU cores:")
    print(table.to_string(index=False))
