#!/usr/bin/env python3
"""Runs the recipe from nothing on MiniVox: corpus, students, table, figure.

Ten voices have a label, 25 more have none. A student learns from the ten alone;
the same student learns from all 35 with a teacher, the model in the package.

To run it (about ten minutes on two CPU cores):
> python demo.py

A teacher trained on the spot, with labels for all voices (as long again):
> python demo.py --train_teacher

Steps that are done already are skipped, so it can be interrupted at any time.
It prints each step as a command that can be typed by itself.

Authors
    * IML-KD contributors
"""

import argparse
import json
import os
import shlex
import sys
import webbrowser
from pathlib import Path

from tabulate import tabulate

from imlkd_brain.comparison.steps import Step, run_groups
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.figures import join_pictures
from imlkd_brain.trained_with import TrainingRecord
from imlkd_brain.training import SAVE

DATA = "data/minivox"
RESULTS = "results/minivox"
DEMO = f"{RESULTS}/demo"
TRAIN = "train_kd.py hparams/minivox/demo.yaml"
METHOD = "iml_kd_plus"
MODEL = "inference/hyperparams.yaml"  # written last
SHIPPED = "ecapa80"

CORPUS = [
    Step(
        "corpus",
        f"-m imlkd_brain.corpora.minivox --data_folder {DATA}",
        f"{DATA}/manifest.json",
    )
]

# The steps of a group run side by side: two trainings on one core each are
# faster than one after the other on two.
GROUPS = [
    CORPUS,
    # It computes only what it has not computed before.
    [Step("teacher's answers", "teach.py hparams/minivox/demo_teach.yaml")],
    [
        Step(
            "ten labelled voices, IML-KD with 25 unlabelled ones",
            TRAIN,
            f"{DEMO}/{METHOD}/1986/{MODEL}",
        ),
        Step(
            "ten labelled voices alone",
            # As many updates as the others.
            f"{TRAIN} --method scratch --number_of_epochs 14 "
            f"--lr_step_epochs 7 --output_folder {DEMO}/ten_voices/1986",
            f"{DEMO}/ten_voices/1986/{MODEL}",
        ),
        Step(
            "all voices labelled",
            f"{TRAIN} --method scratch --labelled_speakers null "
            f"--output_folder {DEMO}/all_labels/1986",
            f"{DEMO}/all_labels/1986/{MODEL}",
        ),
    ],
    # It embeds only what it has not embedded before.
    [
        Step("verification", "verify.py hparams/minivox/demo_eval.yaml"),
        Step("map", "explain.py hparams/minivox/demo_map.yaml"),
    ],
]
VERIFIED = f"{DEMO}/verification/1986"
PICTURES = (
    f"{VERIFIED}/det_test.png",
    f"{DEMO}/map/1986/figures/maps_verification_integrated_gradients.png",
)

# Model of demo_eval.yaml: what it learnt from
LEARNT_FROM = {
    "ten_voices": "10 voices with label",
    METHOD: "10 with label, 25 without, teacher",
    "all_labels": "35 with label",
    "teacher": "more voices, with label",
}

WITH_TEACHER = [
    CORPUS,
    [
        Step(
            "teacher",
            # Four of the YAML's six epochs: a first run should be short.
            "train_kd.py hparams/minivox/train_teacher.yaml "
            "--number_of_epochs 4 --lr_step_epochs 2",
            f"{RESULTS}/teacher/1986/{MODEL}",
        )
    ],
    [
        Step(
            "IML-KD student",
            "train_kd.py hparams/minivox/iml_kd.yaml",
            f"{RESULTS}/iml_kd/1986/{MODEL}",
        ),
        Step(
            "student from scratch",
            "train_kd.py hparams/minivox/iml_kd.yaml --method scratch",
            f"{RESULTS}/scratch/1986/{MODEL}",
        ),
    ],
    [
        Step(
            "verification",
            "verify.py hparams/minivox/eval.yaml",
        )
    ],
]

# What to try next, with its time on two CPU cores.
NEXT = [
    (
        "are two recordings of one voice? (3 s)",
        f"imlkd verify {DATA}/wav/tuxpaint-bg/s00/00002.wav "
        f"{DATA}/wav/tuxpaint-ru/s00/00000.wav "
        f"--model {DEMO}/{METHOD}/1986",
    ),
    (
        "another method on the stored answers (2 min)",
        f"python {TRAIN} --method embedding_kd",
    ),
    (
        "its error rates beside these (1 min)",
        "python verify.py hparams/minivox/demo_eval.yaml --models "
        f"'[{DEMO}/embedding_kd/1986, {DEMO}/{METHOD}/1986]' "
        f"--output_folder {DEMO}/verification/methods",
    ),
]


def check_done(step):
    """Stops where a training was done with other options than today's."""
    script, *options = shlex.split(step.command)
    if script != "train_kd.py":
        return
    folder = os.path.dirname(os.path.dirname(step.done))
    record = TrainingRecord.of_command(options)
    record.check(folder, os.path.join(folder, SAVE), same_limits=True)


def summary(results):
    """Returns the demo's table and what it says, from verify.py's results."""
    eer = {
        (row["model"], row["duration"]): 100 * row["eer"]
        for row in results["results"]
        if row["group"] == "all" and row["list"] == "test"
    }
    table = tabulate(
        [
            (
                name,
                learnt_from,
                f"{results['models'][name]['parameters'] / 1e6:.2f} M",
                *(f"{eer[name, d]:.1f}" for d in ("full", "2s", "pooled")),
            )
            for name, learnt_from in LEARNT_FROM.items()
        ],
        ["model", "learnt from", "size", "EER % full", "2 s", "pooled"],
        disable_numparse=True,
    )
    alone, taught, labelled = (
        eer[name, "pooled"] for name in ("ten_voices", METHOD, "all_labels")
    )
    return (
        f"{table}\n\nOn {results['lists']['test']['speakers']} voices that "
        "none of these models learnt: speech without labels and a teacher "
        f"change the pooled EER of the student with ten labelled voices from "
        f"{alone:.1f} to {taught:.1f} %; labels for all 35 voices give "
        f"{labelled:.1f} %."
    )


def next_steps():
    """Returns shell commands to try next, from any folder, in plain sh."""
    folder = Path(__file__).parent.absolute()
    lines = [f"cd {shlex.quote(str(folder))}"]
    activate = Path(sys.prefix, "bin", "activate")
    if sys.prefix != sys.base_prefix and activate.is_file():
        # A relative path is shorter where the environment is near.
        near = os.path.relpath(activate, folder)
        lines.append(f". {shlex.quote(min(near, str(activate), key=len))}")
    for what, command in NEXT:
        lines += [f"# {what}", command]
    return "\n".join(lines)


def show(picture):
    """Opens the figure where there is a screen to open it on."""
    there = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if sys.stdout.isatty() and (there or sys.platform == "darwin"):
        webbrowser.open(Path(picture).absolute().as_uri())


def main(argv=None):
    """Runs the steps, says how long each took, and what to try next."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--train_teacher",
        action="store_true",
        help="train a teacher and two students with labels for all voices",
    )
    if parser.parse_args(argv).train_teacher:
        run_groups(WITH_TEACHER, RESULTS, check_done)
        return
    run_groups(GROUPS, RESULTS, check_done)
    picture = f"{DEMO}/demo.png"
    join_pictures(PICTURES, picture)
    results = json.loads(Path(VERIFIED, "results.json").read_text("utf-8"))
    print(f"\n{summary(results)}\n\nFigure: {picture}")
    print(f"\nNext, with times on two CPU cores:\n\n{next_steps()}")
    show(picture)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
