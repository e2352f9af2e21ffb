#!/usr/bin/env python3
"""What an update of each method costs, and what saves some of it.

To run it, after the corpus is there (`make demo`):
> python benchmarks/bench_training.py [DATA_FOLDER]

Every contender is the real train_kd.py on MiniVox in one process, on one thread.
They take turns with one update each. The teacher has the YAML's size and two
updates of training: neither matters for time. The peer is the student of
SpeechBrain's recipe as it is, without a teacher.

Authors: IML-KD contributors
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from page import (
    about,
    measured_rates,
    publish,
    ratio,
    sentence,
    table,
    take_turns,
)
from updates import (
    RECIPE,
    Operations,
    brain_of,
    short_teacher,
    teach,
    update,
)

from speechbrain.nnet.CNN import Conv1d

ROUNDS = 9
METHODS = (
    "scratch",
    "embedding_kd",
    "multi_level_kd",
    "iml_kd",
    "iml_kd_plus",
)
PEER = "SpeechBrain's student alone"
HALF = "{}, segments of half of the batch"
STORED = "{}, answers stored"
BEFORE = "{}, the teacher as it was trained"


def as_speechbrain(brain):
    """The student as SpeechBrain has it, every convolution padded."""
    for module in brain.modules.embedding_model.modules():
        if isinstance(module, Conv1d):
            module.padding = "same"
    return brain


def unfolded(brain):
    """The teacher with its BatchNorm, as it was trained."""
    teacher = brain.guidance.teacher
    teacher.embedding_model = teacher.embedding_model.network
    return brain


def contenders_of(work, data, teacher, device):
    """Brains by the names of the table."""
    shared = [f"--data_folder={data}", f"--teacher_folder={teacher}"]
    answers = work / "answers"
    stored = [*shared, "--answers_variants=1"]
    teach.main(
        ["hparams/minivox/teach.yaml", *stored, "--noprogressbar"]
        + [f"--teacher_answers={answers}", f"--device={device}"]
        # The speakers of the training, which the teacher has classes for
        + [f"--verification_file={data}/trials/test.txt"]
        + [f"--valid_trials={data}/trials/dev.txt", "--split_ratio=[90, 10]"]
    )
    stored.append(f"--teacher_answers={answers}")

    def brain(method, name, options=shared):
        """A Brain with a folder of its own."""
        return brain_of(work / name, method, *options, device=device)

    brains = {PEER: as_speechbrain(brain("scratch", "peer"))}
    for method in METHODS:
        brains[method] = brain(method, "ours")
    half = [*shared, "--segment_share=0.5"]
    for method in METHODS[3:]:
        brains[HALF.format(method)] = brain(method, "half", half)
    for method in METHODS[3:]:
        brains[STORED.format(method)] = brain(method, "stored", stored)
    for method in METHODS[2:]:
        brains[BEFORE.format(method)] = unfolded(brain(method, "before"))
    return brains


def main():
    """Measure and publish."""
    data = Path(sys.argv[1] if sys.argv[1:] else RECIPE / "data" / "minivox")
    data, device = data.resolve(), os.environ.get("DEVICE", "cpu")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        os.chdir(RECIPE)
        teacher = short_teacher(work, data)
        brains = contenders_of(work, data, teacher, device)
        flops = {}
        for name, brain in brains.items():
            with Operations() as counted:
                update(brain)
            flops[name] = counted.flops
        clock = time.process_time if device == "cpu" else time.perf_counter

        def turn(brain):
            """One update, to its end on a GPU."""
            update(brain)
            if device != "cpu":
                torch.cuda.synchronize()

        spent = take_turns(
            {name: lambda b=b: turn(b) for name, b in brains.items()},
            ROUNDS,
            clock,
        )
    rate, _ = measured_rates(device)
    rows = [
        [
            name,
            f"{statistics.median(seconds):.3f}",
            f"{ratio(seconds, spent[PEER]):.2f}",
            f"{ratio(seconds, spent['scratch']):.2f}",
            f"{ratio(seconds, spent['multi_level_kd']):.2f}",
            f"{flops[name] / 1e9:.1f}",
            f"{flops[name] / rate:.3f}",
        ]
        for name, seconds in spent.items()
    ]
    facts = about()
    lines = [
        "## A training update",
        "",
        f"{sentence(facts)} One thread, medians of {ROUNDS} updates of batch 32 "
        "with MiniVox's models, processor seconds, reading included. All draw "
        "the same durations of segments. Floor: the counted operations of the "
        f"first update, whose segments have 2 s, at {rate / 1e9:.0f} GFLOP/s, which a product "
        "of matrices of 1,024 rows reaches here. `python "
        "benchmarks/bench_training.py`",
        "",
        *table(
            ["update", "seconds", "to SpeechBrain's student", "to scratch"]
            + ["to multi-level KD", "GFLOP", "floor (s)"],
            rows,
        ),
        "",
        "SpeechBrain's student pads, and so copies, the input of convolutions "
        "of one frame as well; ours gives the same bits without. The teacher "
        "as it was trained has its BatchNorm; before 2026-11-26 it was asked "
        "like that.",
    ]
    publish(
        "bench_training" if device == "cpu" else "bench_training_gpu",
        lines,
        facts,
        seconds=spent,
        flops=flops,
        flops_per_second=rate,
    )


if __name__ == "__main__":
    main()
