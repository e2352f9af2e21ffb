#!/usr/bin/env python3
"""Preparing a tree of VoxCeleb1's size and names, beside SpeechBrain's script.

To run it, with a checkout of SpeechBrain as the peer where there is one:
> [SPEECHBRAIN=../speechbrain] python benchmarks/bench_preparation.py [N_FILES]

1,251 speakers, 150,000 files `wav/id10001/VIDEO/00001.wav` and so on of two seconds. They are hard
links to 200 files, so a slow disk's time is not in it. Each preparation is a process of
its own: seconds on the wall, and peak memory. The first meets broken files, which it
names all at once; these go, and the second goes on. The list of trials names 40 speakers,
as VoxCeleb1-O does.

Authors: IML-KD contributors
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from page import about, publish, sentence, table

ROOT = Path(__file__).resolve().parents[1]
N_SPEAKERS, N_FILES, N_TEST, N_BROKEN = 1251, 150_000, 40, 20
RATE, SECONDS, CHUNK = 16000, 2.0, 1.5
PREPARE = """
import sys
from voxceleb_prepare import prepare_voxceleb
data, save, trials = sys.argv[1:]
prepare_voxceleb(
    data_folder=data, save_folder=save, verification_pairs_file=trials,
    splits=["train", "dev", "test"], split_ratio=[90, 10], seg_dur={seconds},
)
"""


def build(data, n_files):
    """Make the tree; return its broken files and a list of trials."""
    seeds = data / "seeds"
    seeds.mkdir(parents=True)
    stream = np.random.default_rng(1986)
    sources = []
    for number in range(200):
        path = seeds / f"{number}.wav"
        samples = 0.1 * stream.standard_normal(int(RATE * SECONDS))
        soundfile.write(path, samples, RATE, "PCM_16")
        sources.append(path)
    broken, names = [], []
    sources = itertools.cycle(sources)
    each = -(-n_files // N_SPEAKERS)
    for number in range(n_files):
        speaker, place = divmod(number, each)
        name = (
            f"id{10001 + speaker}/video{place // 8:06d}/{place % 8 + 1:05d}.wav"
        )
        path = data / "wav" / name
        if place % 8 == 0:
            path.parent.mkdir(parents=True)
        if number % (n_files // N_BROKEN) == n_files // N_BROKEN - 1:
            path.write_bytes(b"RIFF, and nothing that follows")
            broken.append(path)
        else:
            os.link(next(sources), path)
            names.append(name)
    last = set(sorted({name.split("/")[0] for name in names})[-N_TEST:])
    tested = [name for name in names if name.split("/")[0] in last]
    trials = data / "veri_test.txt"
    pairs = zip(tested, tested[1:], strict=False)
    trials.write_text("".join(f"1 {a} {b}\n" for a, b in pairs))
    return broken, trials


def prepare(folder, *arguments):
    """Prepare in a process; its seconds, peak in MB, exit code and words."""
    path = f"{folder}{os.pathsep}{ROOT}"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE.format(seconds=CHUNK)]
        + [str(argument) for argument in arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    return (
        seconds,
        used.ru_maxrss / 1024,
        os.waitstatus_to_exitcode(status),
        said,
    )


def rows_of(folder):
    """Rows of the CSVs in a folder."""
    return sum(
        sum(1 for _ in open(folder / f"{name}.csv", encoding="utf-8")) - 1
        for name in ("train", "dev", "enrol", "test")
    )


def main(argv):
    """Measure and publish."""
    n_files = int(argv[0]) if argv else N_FILES
    voxceleb = ROOT / "recipes" / "VoxCeleb"
    checkout = os.environ.get("SPEECHBRAIN")
    found = []
    with tempfile.TemporaryDirectory() as work:
        data, save = Path(work) / "data", Path(work) / "ours"
        begun = time.perf_counter()
        broken, trials = build(data, n_files)
        print(f"built in {time.perf_counter() - begun:.0f} s", file=sys.stderr)

        def measure(name, folder, place, expected=0):
            """One preparation, as a row."""
            seconds, peak, code, said = prepare(folder, data, place, trials)
            if (code == 0) != (expected == 0):
                raise RuntimeError(f"{name} ended with {code}: {said[-2000:]}")
            rows = rows_of(place) if not code else ""
            found.append([name, f"{seconds:.1f}", f"{peak:.0f}", rows])
            print(found[-1], file=sys.stderr)
            return said

        said = measure("ours, first, broken files there", voxceleb, save, 1)
        named = int(re.search(r"(\d+) of \d+ audio files cannot", said)[1])
        for path in broken:
            path.unlink()
        measure("ours, again without them", voxceleb, save)
        measure("ours, nothing has changed", voxceleb, save)
        measure("ours, from nothing", voxceleb, Path(work) / "new")
        if checkout:
            theirs = Path(checkout).resolve() / "recipes" / "VoxCeleb"
            measure(
                "SpeechBrain's, from nothing", theirs, Path(work) / "theirs"
            )
        n_bytes = sum(p.stat().st_size for p in (data / "seeds").iterdir())
    facts = about()
    lines = [
        "## Preparing VoxCeleb",
        "",
        f"{sentence(facts)} {N_SPEAKERS:,} speakers, {n_files:,} files of "
        f"{SECONDS:g} s, {N_BROKEN} of them broken at first ({named} in the splits, "
        f"all named at once), {os.cpu_count()} threads of ours; "
        "one run each, the processes' start included. The files are hard links to "
        "200, so they come from memory: a disk's time comes on top. Floor: each "
        "file is opened and decoded once, "
        f"{n_files * n_bytes / 200 / 1e9:.1f} GB. "
        "`SPEECHBRAIN=../speechbrain python benchmarks/bench_preparation.py`",
        "",
        *table(["preparation", "seconds", "peak memory (MB)", "rows"], found),
        "",
        "SpeechBrain's script draws the dev files at random, so its rows are others. "
        "It stops at the first broken file, so it is given the tree without.",
    ]
    publish("bench_preparation", lines, facts, rows=found)


if __name__ == "__main__":
    main(sys.argv[1:])
