#!/usr/bin/env python3
"""How many training chunks a worker reads in a second, and what an H100 asks for.

To run it: python benchmarks/bench_input.py

200 files of 8.2 s, VoxCeleb1's mean, with noise in them. A worker reads a random
chunk of 2 s and changes its speed, as a training does. Noise, reverberation and
the rest of the augmentation work on whole batches where the model trains; here they
run on the CPU. The same files are read out of shards as well, and the calls that a
network file system would have to answer are counted. What an H100 asks for is the batch of 96 over the planned time of an
update (plan_paper_run.json), an assumption and no measurement.

Authors: IML-KD contributors
"""

import contextlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from page import HERE, about, publish, sentence, table, take_turns

from imlkd_brain.data.crops import RandomChunks
from imlkd_brain.data.datasets import ChunkReader
from imlkd_brain.data.in_shard import Shards
from imlkd_brain.data.shards import build
from imlkd_brain.files import write_csv

RATE, CHUNK, SECONDS, N_FILES, BATCH, ROUNDS = 16000, 2.0, 8.2, 200, 96, 5
N_BYTES = 2 * RATE * CHUNK


def write_files(folder):
    """Speech-like files of both formats, and noise, each with a CSV."""
    stream = np.random.default_rng(1986)
    for number in range(N_FILES):
        steps = stream.standard_normal(int(RATE * SECONDS)).cumsum()
        samples = 0.3 * (steps - steps.mean()) / np.abs(steps).max()
        for kind in ("wav", "flac"):
            soundfile.write(
                folder / f"{number}.{kind}", samples, RATE, "PCM_16"
            )
    rows = [
        {
            "ID": n,
            "duration": SECONDS,
            "wav": folder / f"{n}.wav",
            "wav_format": "wav",
            "wav_opts": None,
        }
        for n in range(50)
    ]
    write_csv(folder / "noise.csv", rows)
    return folder / "noise.csv"


def reading(paths, speed=1.0):
    """A function that reads every file's chunk once, at one speed."""
    reader = ChunkReader(RandomChunks(1986), CHUNK, RATE, (speed,))

    def read():
        for number, path in enumerate(paths):
            reader(str(number), path, SECONDS, speed)

    return read


def paths_of(folder, kind):
    """The files of a format, by themselves and in shards."""
    paths = [str(folder / f"{n}.{kind}") for n in range(N_FILES)]
    csv, shards = folder / f"{kind}.csv", folder / f"{kind}_shards"
    rows = [
        {"ID": n, "duration": SECONDS, "wav": path, "start": 0}
        | {"stop": int(RATE * SECONDS), "spk_id": "a"}
        for n, path in enumerate(paths)
    ]
    write_csv(csv, rows)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        build(csv, "", shards)
    rows = dict(enumerate(paths))
    rows = {str(n): {"wav": path} for n, path in rows.items()}
    Shards(shards).in_place_of_files(rows, "", csv)
    return paths, [row["wav"] for row in rows.values()]


def count_calls(paths):
    """How often files are looked up or opened for a chunk of each path."""
    names, real = [], (os.stat, os.open, soundfile.SoundFile)

    def counted(call):
        def wrapper(path, *args, **kwargs):
            # A file object was opened before; libsndfile opens a path itself.
            if isinstance(path, str | Path):
                names.append(path)
            return call(path, *args, **kwargs)

        return wrapper

    os.stat, os.open, soundfile.SoundFile = map(counted, real)
    try:
        reading(paths)()
    finally:
        os.stat, os.open, soundfile.SoundFile = real
    return len(names)


def augmenting(csv):
    """A function that augments a batch as the YAML does, seeded."""
    with open(
        HERE.parent / "hparams" / "iml_kd.yaml", encoding="utf-8"
    ) as file:
        # One process, which reads the noise itself
        changes = {"data_folder": "none", "num_workers": 0}
        changes |= {"noise_annotation": str(csv), "rir_annotation": str(csv)}
        changes |= {"output_folder": str(csv.parent / "output")}
        augment = load_hyperpyyaml(file, changes)["wav_augment"]
    torch.manual_seed(1986)
    wavs, lens = torch.randn(BATCH, int(RATE * CHUNK)), torch.ones(BATCH)

    def call():
        # The same draws in each round: some do nothing, some do two things.
        torch.manual_seed(1986)
        random.seed(1986)
        for _ in range(4):
            augment(wavs, lens)

    return call


def main():
    """Measure and publish."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        csv = write_files(folder)
        wav, wav_shards = paths_of(folder, "wav")
        flac, flac_shards = paths_of(folder, "flac")
        calls = {
            name: count_calls(paths)
            for name, paths in (("files", wav), ("shards", wav_shards))
        }
        contenders = {
            "WAV": (reading(wav), N_FILES),
            "WAV, 0.9 times as fast": (reading(wav, 0.9), N_FILES),
            "WAV, 1.1 times as fast": (reading(wav, 1.1), N_FILES),
            "WAV in shards": (reading(wav_shards), N_FILES),
            "FLAC": (reading(flac), N_FILES),
            "FLAC in shards": (reading(flac_shards), N_FILES),
            "augmentation of a batch": (augmenting(csv), 4 * BATCH),
        }
        seconds = take_turns(
            {name: call for name, (call, _) in contenders.items()}, ROUNDS
        )
    rates = {
        name: n / statistics.median(seconds[name])
        for name, (_, n) in contenders.items()
    }
    show(rates, seconds, calls)


def show(rates, seconds, calls):
    """Publish the rates, and the workers that they make necessary."""
    speeds = list(rates)[:3]
    # A third of the rows have each speed.
    worker = len(speeds) / sum(1 / rates[name] for name in speeds)
    plans = json.loads((HERE / "plan_paper_run.json").read_text())["plans"]
    asked = [
        [name, f"{ms} ms", f"{1000 * BATCH / float(ms):,.0f}"]
        + [f"{1000 * BATCH / float(ms) / worker:.1f}"]
        for name, _, ms, *_ in plans["VoxCeleb1"]["rows"]
    ]
    more = 1e6 * (1 / rates["WAV in shards"] - 1 / rates["WAV"])
    facts = about()
    lines = [
        "## Reading a training's audio",
        "",
        f"{sentence(facts)} One thread, processor seconds, medians of {ROUNDS} "
        f"rounds; chunks of {CHUNK:g} s out of files of {SECONDS:g} s, which are in "
        f"memory: a disk's time comes on top. Floor: {N_BYTES / 1000:.0f} kB a chunk. "
        "`python benchmarks/bench_input.py`",
        "",
        *table(
            ["part", "chunks a second", "MB/s"],
            [
                [name, f"{rate:,.0f}", f"{rate * N_BYTES / 1e6:.0f}"]
                for name, rate in rates.items()
            ],
        ),
        "",
        f"Of three speeds in equal shares a worker reads {worker:,.0f} chunks a "
        "second. What one H100 asks for is the batch of "
        f"{BATCH} over the update's time as planned above, an assumption:",
        "",
        *table(["method", "update", "chunks a second", "workers"], asked),
        "",
        "`num_workers: 4` of the YAML feeds `iml_kd`. With stored answers, or from "
        "scratch, reading is what an H100 would wait for.",
        "",
        "[Shards](../docs/training.md#slow-disks) are for disks where opening a file "
        f"is what costs: a chunk of each of {N_FILES} files takes {calls['files']} "
        f"calls that look a file up or open it, and in shards {calls['shards']}, one "
        "for each shard. Here all files are in memory, and a chunk out of a shard "
        f"takes {more:.0f} µs more, because libsndfile then reads through Python. "
        "They pay where looking a file up and opening it takes longer than that. A "
        "network file system was not at hand to measure it on.",
    ]
    publish(
        "bench_input",
        lines,
        facts,
        rates=rates,
        seconds=seconds,
        calls=calls,
    )


if __name__ == "__main__":
    sys.exit(main())
