#!/usr/bin/env python3
"""Runs the recipe from nothing on MiniVox: corpus, teacher, students, table.

To run it (about a quarter of an hour on two CPU cores):
> python demo.py

What is done already is skipped, so that it can be interrupted at any time.
Each step is a command that can be typed by itself.

Authors
    * IML-KD contributors
"""

import os
import subprocess
import sys
import time

import pandas as pd

from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.processes import child_environment

DATA = "data/minivox"
# Step, its command after `python`, and the file that shows it was done.
STEPS = [
    (
        "corpus",
        ["-m", "imlkd_brain.minivox", "--data_folder", DATA],
        f"{DATA}/manifest.json",
    ),
    (
        "teacher",
        ["train_kd.py", "hparams/minivox/train_teacher.yaml"],
        "results/minivox/teacher/1986/inference/hyperparams.yaml",
    ),
    (
        "IML-KD student",
        ["train_kd.py", "hparams/minivox/iml_kd.yaml"],
        "results/minivox/iml_kd/1986/inference/hyperparams.yaml",
    ),
    (
        "student from scratch",
        ["train_kd.py", "hparams/minivox/iml_kd.yaml", "--method", "scratch"],
        "results/minivox/scratch/1986/inference/hyperparams.yaml",
    ),
    # Always run: it embeds only what it has not embedded before.
    ("verification", ["verify.py", "hparams/minivox/eval.yaml"], None),
]


def run_step(name, command, done):
    """Runs one command; returns its seconds, or None if it was done before."""
    if done and os.path.exists(done):
        print(f"\n== {name}: done before ({done})", flush=True)
        return None
    print(f"\n== {name}: python {' '.join(command)}", flush=True)
    began = time.monotonic()
    code = subprocess.call([sys.executable, *command], env=child_environment())
    if code:
        raise UserError(
            f"the step `{name}` stopped with exit code {code} (its message is "
            "above); run the same command again, what is done is kept."
        )
    return time.monotonic() - began


def main():
    """Runs the steps and says how long each took."""
    seconds = {name: run_step(name, *rest) for name, *rest in STEPS}
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
    print("\nNext: `python explain.py hparams/minivox/explain.yaml`.")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
