#!/usr/bin/env python3
"""Runs the recipe from nothing on MiniVox: corpus, teacher, students, table.

To run it (about ten minutes on two CPU cores):
> python demo.py

Steps that are done already are skipped, so it can be interrupted at any time.
It prints each step as a command that can be typed by itself.

Authors
    * IML-KD contributors
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from imlkd_brain.comparison.run import child_environment
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.trained_with import TrainingRecord
from imlkd_brain.training import SAVE

DATA = "data/minivox"
RESULTS = "results/minivox"


@dataclass(frozen=True)
class Step:
    """A command of the demo.

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


# The steps of a group run side by side: two trainings on one core each are
# faster than one after the other on two.
GROUPS = [
    [
        Step(
            "corpus",
            f"-m imlkd_brain.corpora.minivox --data_folder {DATA}",
            f"{DATA}/manifest.json",
        )
    ],
    [
        Step(
            "teacher",
            # Four of the YAML's six epochs: a first run should be short.
            "train_kd.py hparams/minivox/train_teacher.yaml "
            "--number_of_epochs 4 --lr_step_epochs 2",
            f"{RESULTS}/teacher/1986/inference/hyperparams.yaml",
        )
    ],
    [
        Step(
            "IML-KD student",
            "train_kd.py hparams/minivox/iml_kd.yaml",
            f"{RESULTS}/iml_kd/1986/inference/hyperparams.yaml",
        ),
        Step(
            "student from scratch",
            "train_kd.py hparams/minivox/iml_kd.yaml --method scratch",
            f"{RESULTS}/scratch/1986/inference/hyperparams.yaml",
        ),
    ],
    # It embeds only what it has not embedded before.
    [Step("verification", "verify.py hparams/minivox/eval.yaml")],
]

# What to try next, with its minutes on two CPU cores.
NEXT = [
    (
        "another method (2 min)",
        "python train_kd.py hparams/minivox/iml_kd.yaml --method vanilla_kd",
    ),
    (
        "its error rates beside the others' (1 min)",
        "python verify.py hparams/minivox/eval.yaml --models "
        f"'[{RESULTS}/vanilla_kd/1986, {RESULTS}/iml_kd/1986]'",
    ),
    (
        "where the models look (14 min; needs the extra `explain`: captum)",
        "python -m pip install 'captum>=0.7' && "
        "python explain.py hparams/minivox/explain.yaml",
    ),
]


def run_group(group):
    """Runs the steps of a group that are not done, side by side.

    The first step shows its progress. The others write their output to files.

    Arguments
    ---------
    group : list of Step
        They do not need each other.

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
            os.makedirs(RESULTS, exist_ok=True)
            path = f"{RESULTS}/{step.name.replace(' ', '_')}.txt"
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


def check_done(step):
    """Stops where a training was done with other options than today's."""
    script, *options = shlex.split(step.command)
    if script != "train_kd.py":
        return
    folder = os.path.dirname(os.path.dirname(step.done))
    record = TrainingRecord.of_command(options)
    if "teacher" not in options[0]:
        record.add_data(teacher=f"{RESULTS}/teacher/1986")
    record.check(folder, os.path.join(folder, SAVE), same_limits=True)


def next_steps():
    """Returns shell commands to try next, whatever the shell's own Python."""
    folder = Path(__file__).parent.absolute()
    # A relative path is shorter where the environment is near.
    python = os.path.relpath(sys.executable, folder)
    python = shlex.quote(min(python, sys.executable, key=len))
    lines = [f"cd {shlex.quote(str(folder))}"]
    for what, command in NEXT:
        lines += [f"# {what}", command.replace("python", python)]
    return "\n".join(lines)


def main():
    """Runs the steps, says how long each took, and what to try next."""
    seconds = {}
    for group in GROUPS:
        seconds.update(run_group(group))
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
    print(f"\nNext, with minutes on two CPU cores:\n\n{next_steps()}")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
