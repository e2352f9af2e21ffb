#!/usr/bin/env python3
"""What the class level costs, beside the other way to do it.

To run it: python benchmarks/bench_objectives.py

The class level as three B x B products against the C x C matrices it stands for,
in time, in peak memory and in accuracy near the teacher.

Contenders take turns within each round, and what is reported is the median
over rounds of the ratio within a round, which another load on the machine
disturbs least.

Authors: IML-KD contributors
"""

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from page import about, publish, sentence, table

from imlkd_brain.distillation.losses import class_loss

ROUNDS = 5
BATCH_SIZE = 96


def dense_class_loss(student_logits, teacher_logits, temperature):
    """The class level as it is written: two C x C matrices, float32."""
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    difference = teacher.T @ teacher - student.T @ student
    return difference.square().sum() / student.shape[1]


def three_norms_class_loss(student_logits, teacher_logits, temperature):
    """The B x B identity that cancels near the teacher, float32."""
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    norms = [
        (a @ b.T).square().sum()
        for a, b in ((student, student), (teacher, teacher), (student, teacher))
    ]
    return (norms[0] + norms[1] - 2 * norms[2]) / student.shape[1]


def posteriors_floor(student_logits, teacher_logits, temperature):
    """No class level at all: both posteriors in float64, and a sum."""
    student = torch.softmax(student_logits.double() / temperature, dim=1)
    teacher = torch.softmax(teacher_logits.double() / temperature, dim=1)
    return (student * teacher).sum()


CLASS_LEVELS = {
    "ours": class_loss,
    "dense C x C": dense_class_loss,
    "floor": posteriors_floor,
}


def make_logits(n_classes, distance=1.0):
    """Student and teacher logits (B, C) a relative distance apart."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH_SIZE, n_classes)
    teacher = 6 * torch.randn(shape, generator=generator)
    other = 6 * torch.randn(shape, generator=generator)
    return teacher + distance * (other - teacher), teacher


def take_turns(contenders, rounds=ROUNDS):
    """Median seconds of each, and of the ratios within a round to the first.

    Arguments
    ---------
    contenders : dict of str to callable
        Called without arguments.
    rounds : int
        Measured rounds after one that is not.

    Returns
    -------
    dict of str to dict
        ``milliseconds`` and ``ratio`` of each.
    """
    seconds = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    first = next(iter(seconds.values()))
    return {
        name: {
            "milliseconds": round(1e3 * statistics.median(values), 3),
            "ratio": round(
                statistics.median(
                    a / b for a, b in zip(values, first, strict=True)
                ),
                3,
            ),
        }
        for name, values in seconds.items()
    }


def peak_memory(name, n_classes):
    """Peak MB of a class level and its gradient, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", name, str(n_classes)],
        capture_output=True,
        text=True,
        check=True,
        # Freed blocks go back at once, so the peak is what was in use.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return round(float(done.stdout), 1)


def print_peak(name, n_classes):
    """The process that :func:`peak_memory` starts."""

    def peak():
        # Not ru_maxrss: a process inherits that from the one that started it.
        status = Path("/proc/self/status").read_text("utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    # What the first use of each kernel allocates is not the loss's.
    gradient_of(CLASS_LEVELS[name], *make_logits(4))()
    call = gradient_of(CLASS_LEVELS[name], *make_logits(n_classes))
    before = peak()
    call()
    print(peak() - before)


def gradient_of(loss, student, teacher):
    """A call that computes a loss and its gradient."""

    def call():
        logits = student.detach().requires_grad_()
        return torch.autograd.grad(loss(logits, teacher, 1.0), logits)[0]

    return call


def bench_class_level():
    """Time and memory of the class level at several numbers of speakers."""
    rows = []
    for n_classes in (50, 1211, 5994):
        student, teacher = make_logits(n_classes)
        timings = take_turns(
            {
                name: gradient_of(loss, student, teacher)
                for name, loss in CLASS_LEVELS.items()
            }
        )
        for name, timing in timings.items():
            peak = peak_memory(name, n_classes)
            rows.append(
                {"classes": n_classes, "way": name, **timing, "peak_MB": peak}
            )
    return rows


def bench_near_teacher():
    """Relative error of value and gradient as the student nears its teacher."""
    rows = []
    for distance in (1e-1, 1e-2, 1e-3, 1e-4):
        student, teacher = make_logits(1211, distance)
        exact = student.double().requires_grad_()
        value = dense_class_loss(exact, teacher.double(), 1.0)
        (gradient,) = torch.autograd.grad(value, exact)
        for name, loss in (
            ("ours", class_loss),
            ("three norms, float32", three_norms_class_loss),
        ):
            logits = student.detach().requires_grad_()
            actual = loss(logits, teacher, 1.0)
            (actual_gradient,) = torch.autograd.grad(actual, logits)
            error = (actual_gradient.double() - gradient).norm()
            rows.append(
                {
                    "distance": distance,
                    "way": name,
                    "value": float(actual.detach()),
                    "error_of_value": float(
                        (actual / value - 1).abs().detach()
                    ),
                    "error_of_gradient": float(error / gradient.norm()),
                }
            )
    return rows


def rows_of(results):
    """Columns and rows of a table."""
    columns = [name.replace("_", " ") for name in results[0]]
    return columns, [
        [f"{v:.3g}" if isinstance(v, float) else v for v in row.values()]
        for row in results
    ]


def main():
    """Measure and publish."""
    torch.set_num_threads(1)
    level, near = bench_class_level(), bench_near_teacher()
    facts = about()
    lines = [
        "## The class level of the losses",
        "",
        f"{sentence(facts)} One thread, batch of {BATCH_SIZE}; the ratio is time "
        "over ours. `python benchmarks/bench_objectives.py`",
        "",
        "Loss and gradient, beside the C x C matrices that it stands for. The "
        "floor is the posteriors alone.",
        "",
        *table(*rows_of(level)),
        "",
        "Error near the teacher, beside float64.",
        "",
        *table(*rows_of(near)),
    ]
    publish(
        "bench_objectives",
        lines,
        facts,
        class_level=level,
        near_the_teacher=near,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(sys.argv[2], int(sys.argv[3]))
    else:
        main()
