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
import sys
from pathlib import Path

from imlkd_brain.comparison.steps import Step, run_groups
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.trained_with import TrainingRecord
from imlkd_brain.training import SAVE

DATA = "data/minivox"
RESULTS = "results/minivox"


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
    run_groups(GROUPS, RESULTS, check_done)
    print(f"\nNext, with minutes on two CPU cores:\n\n{next_steps()}")


if __name__ == "__main__":
    with one_sentence_errors():
        main()
