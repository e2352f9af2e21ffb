#!/usr/bin/env python3
"""Runs the recipe from nothing on MiniVox: corpus, teacher, students, table.

To run it (about twenty minutes on two CPU cores):
> python demo.py

What is done already is skipped, so that it can be interrupted at any time.
Each step is a command that can be typed by itself.

Authors
    * IML-KD contributors
"""

import os
import shlex
import subprocess
import sys
import time

import pandas as pd

from imlkd_brain.comparison.run import child_environment
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.trained_with import SAVE, TrainingRecord

DATA = "data/minivox"
RESULTS = "results/minivox"
# Groups of steps: name, command after `python`, and the file that shows it was
# done. The steps of a group do not need each other and run side by side: two
# trainings on one core each are faster than one after the other on two.
STEPS = [
    [
        (
            "corpus",
            ["-m", "imlkd_brain.corpora.minivox", "--data_folder", DATA],
            f"{DATA}/manifest.json",
        )
    ],
    [
        (
            "teacher",
            # Four of the YAML's six epochs: a first run should be short.
            ["train_kd.py", "hparams/minivox/train_teacher.yaml"]
            + ["--number_of_epochs", "4", "--lr_step_epochs", "2"],
            f"{RESULTS}/teacher/1986/inference/hyperparams.yaml",
        )
    ],
    [
        (
            "IML-KD student",
            ["train_kd.py", "hparams/minivox/iml_kd.yaml"],
            f"{RESULTS}/iml_kd/1986/inference/hyperparams.yaml",
        ),
        (
            "student from scratch",
            ["train_kd.py", "hparams/minivox/iml_kd.yaml"]
            + ["--method", "scratch"],
            f"{RESULTS}/scratch/1986/inference/hyperparams.yaml",
        ),
    ],
    # Always run: it embeds only what it has not embedded before.
    [("verification", ["verify.py", "hparams/minivox/eval.yaml"], None)],
]


def run_group(group):
    """Runs the steps of a group that are not done, side by side.

    The first shows its progress; the output of the others would be mixed with
    it and goes to files.

    Returns
    -------
    seconds : dict
        Step to its seconds, None for one that was done before.
    """
    seconds = {name: None for name, _, _ in group}
    todo = []
    for name, command, done in group:
        if done and os.path.exists(done):
            check_done(command, done)
            print(f"\n== {name}: done before ({done})", flush=True)
        else:
            todo.append((name, command))
    threads = max(1, os.cpu_count() // len(todo)) if len(todo) > 1 else None
    running = {}
    for number, (name, command) in enumerate(todo):
        print(f"\n== {name}: python {' '.join(command)}", flush=True)
        output = None
        if number:
            os.makedirs(RESULTS, exist_ok=True)
            path = f"{RESULTS}/{name.replace(' ', '_')}.txt"
            print(f"   (beside the step above; its output is in {path})")
            output = open(path, "w", encoding="utf-8")
            command = [*command, "--noprogressbar"]
        running[name] = subprocess.Popen(
            [sys.executable, *command],
            env=child_environment(threads),
            stdout=output,
            stderr=output,
        )
    began = time.monotonic()
    while any(seconds[name] is None for name in running):
        time.sleep(0.2)
        for name, process in running.items():
            if seconds[name] is None and process.poll() is not None:
                seconds[name] = time.monotonic() - began
    failed = [name for name in running if running[name].returncode]
    if failed:
        raise UserError(
            f"the step `{failed[0]}` stopped with exit code "
            f"{running[failed[0]].returncode} (its message is above or in its "
            "file); run the same command again, what is done is kept."
        )
    return seconds


def check_done(command, done):
    """Stops where a training was done with other options than today's."""
    script, *options = command
    if script != "train_kd.py":
        return
    folder = os.path.dirname(os.path.dirname(done))
    record = TrainingRecord.of_command(options)
    if "teacher" not in options[0]:
        record.add_data(teacher=f"{RESULTS}/teacher/1986")
    record.check(folder, os.path.join(folder, SAVE), same_limits=True)


def next_command():
    """A command that works where the demo was started."""
    if "MAKELEVEL" in os.environ:
        return "make explain"
    python = shlex.quote(sys.executable)
    return (
        f"{python} -m pip install 'captum>=0.7' && "
        f"{python} explain.py hparams/minivox/explain.yaml"
    )


def main():
    """Runs the steps and says how long each took."""
    print(f"The commands below run in {os.getcwd()},\nwith {sys.executable}")
    seconds = {}
    for group in STEPS:
        seconds.update(run_group(group))
    print(f"\nTime of each step, on {os.cpu_count()} CPU cores:")
    table = pd.DataFrame(
        {
            "step": list(seconds),
            "seconds": [
                "done before" if s is None else f"{s:.0f}"
                for s in seconds.values()
            ],
        }
    )
    print(table.to_string(index=False))
    print(f"\nNext, to see where the models look:\n    {next_command()}")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
