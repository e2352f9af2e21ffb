#!/usr/bin/env python3
"""What an update of each method costs, and what the teacher's cache saves.

To run it, after the corpus is there (`make demo`):
> python benchmarks/bench_training.py [DATA_FOLDER]

Every contender is the real train_kd.py on MiniVox for the same 20 updates, on
one thread; they take turns, and what is reported is the median over rounds of
the ratio to `scratch` within a round, which another load on the machine
disturbs least. Printed and written to bench_training.md beside this file. The
teacher has the YAML's size and two updates of training: neither matters for
time.

Authors: IML-KD contributors
"""

import csv
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imlkd_brain.comparison.run import child_environment
from imlkd_brain.training import DEBUG

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "VoxCeleb" / "IMLKD"
ROUNDS = 2
UPDATES = 20
METHODS = [
    "scratch",
    "embedding_kd",
    "multi_level_kd",
    "iml_kd",
    "iml_kd_plus",
]
CACHED = ["iml_kd", "iml_kd_plus"]


def train(yaml, folder, batches, *options):
    """Run train_kd.py for some updates; the seconds of one of them."""
    subprocess.run(
        [sys.executable, "train_kd.py", f"hparams/minivox/{yaml}.yaml"]
        + ["--debug", "--debug_batches", str(batches), "--debug_epochs", "1"]
        + ["--debug_persistently", "--noprogressbar"]
        + ["--output_folder", str(folder), *map(str, options)],
        cwd=RECIPE,
        env=child_environment(1),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = folder / DEBUG / "train_stats.csv"
    with open(path, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return float(row["train seconds"]) / batches


def one_round(work, shared, seconds):
    """Every contender once."""

    def measure(name, method, *options):
        folder = work / "student"
        spent = train(
            "iml_kd", folder, UPDATES, "--method", method, *shared, *options
        )
        shutil.rmtree(folder)
        seconds.setdefault(name, []).append(spent)

    for method in METHODS:
        measure(method, method)
    for method in CACHED:
        cache = work / "cache"
        options = ("--teacher_cache", cache)
        measure(f"{method}, cache empty", method, *options)
        measure(f"{method}, cache full", method, *options)
        kept = sum(f.stat().st_size for f in cache.rglob("*.pt"))
        shutil.rmtree(cache)
        yield method, kept / UPDATES


def report(seconds, kept):
    """The table, as markdown."""
    lines = [
        "## Cost of a training update",
        "",
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, one "
        f"thread a training, torch {torch.__version__}, load of the machine at "
        f"the end {os.getloadavg()[0]:.1f}; {ROUNDS} rounds of {UPDATES} updates "
        "of batch 32, MiniVox's models. `python benchmarks/bench_training.py`",
        "",
        "Floor: no method can cost less than scratch, which is the student's "
        "own forward and backward pass over x; with a full cache what is left "
        "above it are the passes over I(x), the losses and reading the entries.",
        "",
        "| method | seconds | beside scratch | read from the cache (MB) |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        ratio = statistics.median(
            a / b for a, b in zip(values, seconds["scratch"], strict=True)
        )
        full = name.endswith("full")
        size = f"{kept[name.split(',')[0]] / 1e6:.2f}" if full else ""
        lines.append(
            f"| {name} | {statistics.median(values):.3f} | {ratio:.2f} | "
            f"{size} |"
        )
    return "\n".join(lines) + "\n"


def main():
    """Measure, print, and keep the table beside this file."""
    data = Path(sys.argv[1] if sys.argv[1:] else RECIPE / "data" / "minivox")
    data = data.resolve()
    seconds, kept = {}, {}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        train("train_teacher", work / "teacher", 2, "--data_folder", data)
        teacher = work / "teacher" / DEBUG
        shared = ("--data_folder", data, "--teacher_folder", teacher)
        shared += ("--measure_interval", "0")
        for number in range(ROUNDS):
            kept.update(one_round(work, shared, seconds))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    text = report(seconds, kept)
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
