#!/usr/bin/env python3
"""What error rates, scores and s-norm cost, beside SpeechBrain's way.

To run it: python benchmarks/bench_verification.py

Tables, printed and written to bench_verification.md beside this file:

- EER and minDCF against SpeechBrain's, on the same scores, at sizes where
  both finish, with the equality of their results;
- time and peak memory of ours at the size of VoxCeleb1-H and beyond, beside
  one sort of the same scores, which is the floor;
- cosine scores of a list of VoxCeleb1-H's size beside torch's on gathered
  rows, with the bytes that must move at least;
- s-norm of a list of VoxCeleb1-O's size beside the per-trial way measured on
  a part of the trials, and beside one product with the cohort, which is the
  floor of the adaptive kind.

One thread. Contenders take turns within each round and ratios are medians over
rounds of the ratio within a round. Seconds are those of the processor, which
another load on the machine disturbs less than the clock on the wall.

Authors: IML-KD contributors
"""

import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imlkd_brain import metrics, verification  # noqa: E402
from speechbrain.utils import metric_stats  # noqa: E402

RESULTS = Path(__file__).with_suffix(".md")
SEED = 1986
ROUNDS = 5
DIM = 192
COHORT = 20000
VOX1_O = (4708, 37611)  # utterances, trials
VOX1_H = (137924, 551000)
PART = 24  # trials that the per-trial way is measured on


def random_scores(trials):
    """Half targets, half nontargets, about 10 % EER, as float32."""
    generator = torch.Generator().manual_seed(SEED)
    half = trials // 2
    positive = 0.6 + 0.15 * torch.randn(half, generator=generator)
    negative = 0.2 + 0.15 * torch.randn(trials - half, generator=generator)
    return positive, negative


def seconds_of(function):
    """Processor seconds of a call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def side_by_side(*contenders, rounds=ROUNDS):
    """Median seconds of each, and median ratios of the others to the first."""
    times = [[seconds_of(c) for c in contenders] for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    ratios = [
        statistics.median(row[i] / row[0] for row in times)
        for i in range(1, len(contenders))
    ]
    return medians, ratios


def peak_bytes():
    """Peak resident memory of this process, not of the one that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def measure_peak(trials):
    """Added peak memory of EER and minDCF, in a process of its own."""
    scores = random_scores(trials)
    metrics.EER(*random_scores(1000))
    before = peak_bytes()
    metrics.EER(*scores)
    metrics.minDCF(*scores)
    print(peak_bytes() - before)


def added_peak(trials):
    """Run :func:`measure_peak` in a fresh process; MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", str(trials)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout) / 2**20


def metrics_tables():
    """EER and minDCF beside SpeechBrain's, then alone at full size."""
    yield "### EER and minDCF beside SpeechBrain's"
    yield ""
    yield "| trials | measure | ours (s) | SpeechBrain (s) | ratio | results |"
    yield "|---|---|---|---|---|---|"
    # SpeechBrain's minDCF holds about 12 bytes times twice the square.
    for trials, names in (
        (1000, ("EER", "minDCF")),
        (4000, ("EER", "minDCF")),
        (VOX1_O[1], ("EER",)),
    ):
        scores = random_scores(trials)
        for name in names:
            ours, theirs = getattr(metrics, name), getattr(metric_stats, name)
            (a, b), (ratio,) = side_by_side(
                lambda f=ours: f(*scores),  # noqa: B023
                lambda f=theirs: f(*scores),  # noqa: B023
                rounds=ROUNDS if trials <= 4000 else 1,
            )
            same = ours(*scores) == theirs(*scores)
            yield (
                f"| {trials:,} | {name} | {a:.4f} | {b:.3f} | {ratio:,.0f} | "
                f"{'equal to the last bit' if same else 'DIFFERENT'} |"
            )
    yield ""
    yield "### Ours at full size"
    yield ""
    yield (
        "Floor: the scores are read and sorted once, N log2 N comparisons; "
        "`torch.sort` of the same scores is measured beside it."
    )
    yield ""
    yield (
        "| trials | comparisons of one sort | bytes of scores | sort (s) | "
        "EER (s) | minDCF (s) | EER / sort | added peak memory of both (MB) |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for trials in (VOX1_H[1], 3700000):
        positive, negative = random_scores(trials)
        both = torch.cat([positive, negative])
        bits = (trials - 1).bit_length()
        (sort, eer, dcf), (ratio, _) = side_by_side(
            lambda: torch.sort(both),  # noqa: B023
            lambda: metrics.EER(positive, negative),  # noqa: B023
            lambda: metrics.minDCF(positive, negative),  # noqa: B023
        )
        yield (
            f"| {trials:,} | {trials * bits / 1e6:,.0f} M | "
            f"{4 * trials / 1e6:.1f} MB | {sort:.3f} | {eer:.3f} | {dcf:.3f} | "
            f"{ratio:.1f} | {added_peak(trials):.0f} |"
        )
    yield ""


def scoring_table():
    """Cosine scores in blocks beside torch's on gathered rows."""
    utterances, trials = VOX1_H
    generator = torch.Generator().manual_seed(SEED)
    embeddings = torch.randn(utterances, DIM, generator=generator)
    pairs = torch.randint(utterances, (trials, 2), generator=generator)
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)

    def blocks():
        verification.score_trials(embeddings, embeddings, pairs)

    def gathered():
        cosine(embeddings[pairs[:, 0]], embeddings[pairs[:, 1]])

    def per_trial():
        for i, j in pairs[:1000].tolist():
            cosine(embeddings[i], embeddings[j])

    (ours, torchs, loop), (ratio, _) = side_by_side(blocks, gathered, per_trial)
    moved = 2 * trials * DIM * 4
    yield f"### Scores of {trials:,} trials, {utterances:,} embeddings, {DIM}-d"
    yield ""
    yield (
        f"Floor: 2 x {trials:,} x {DIM} x 4 = {moved / 1e9:.2f} GB of rows are "
        f"read, for {2 * trials * DIM / 1e9:.2f} GFLOP."
    )
    yield ""
    yield "| way | seconds | beside ours |"
    yield "|---|---|---|"
    yield f"| score_trials | {ours:.3f} ({moved / ours / 1e9:.1f} GB/s) | 1 |"
    yield f"| CosineSimilarity on all gathered rows | {torchs:.3f} | {ratio:.1f} |"
    loop *= trials / 1000
    yield (
        f"| CosineSimilarity trial by trial (from 1,000) | {loop:.1f} | "
        f"{loop / ours:.0f} |"
    )
    yield ""


def per_trial_s_norm(embeddings, cohort, pairs):
    """s-norm the way SpeechBrain's recipe computes it, trial by trial."""
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    scores = []
    for i, j in pairs.tolist():
        enrol, test = embeddings[i], embeddings[j]
        score, sides = cosine(enrol, test), []
        for side in (enrol, test):
            against = cosine(side.repeat(len(cohort), 1), cohort)
            sides.append((score - against.mean()) / against.std())
        scores.append((sides[0] + sides[1]) / 2)
    return torch.stack(scores)


def s_norm_table():
    """s-norm of a list beside the per-trial way and the bare product."""
    utterances, trials = VOX1_O
    generator = torch.Generator().manual_seed(SEED)
    embeddings = torch.randn(utterances, DIM, generator=generator)
    cohort = torch.randn(COHORT, DIM, generator=generator)
    pairs = torch.randint(utterances, (trials, 2), generator=generator)
    results = {}

    def ours(top=None):
        statistics_ = verification.cohort_statistics(embeddings, cohort, top)
        results["ours"] = verification.normalise_scores(
            verification.score_trials(embeddings, embeddings, pairs),
            pairs,
            statistics_,
            statistics_,
            "s-norm",
        )

    def theirs():
        results["theirs"] = per_trial_s_norm(embeddings, cohort, pairs[:PART])

    def product():
        for start in range(0, utterances, 512):
            embeddings[start : start + 512] @ cohort.T

    (a, b, c), _ = side_by_side(ours, theirs, product)
    ours_part = results["ours"][:PART]
    gap = float((ours_part - results["theirs"]).abs().max())
    whole = b * trials / PART
    (adaptive,), _ = side_by_side(lambda: ours(300), rounds=3)
    flop = 2 * utterances * COHORT * DIM
    yield (
        f"### s-norm: {utterances:,} utterances, {trials:,} trials, {DIM}-d, "
        f"cohort of {COHORT:,}"
    )
    yield ""
    yield (
        f"Floor: {2 * (utterances + COHORT) * DIM**2 / 1e9:.1f} GFLOP for the "
        "cohort's covariance and the quadratic forms; adaptive, one product "
        f"of the utterances with the cohort, {flop / 1e9:.1f} GFLOP. "
        f"{4 * (utterances + COHORT) * DIM / 1e6:.0f} MB are read."
    )
    yield ""
    yield "| way | seconds | beside ours |"
    yield "|---|---|---|"
    yield f"| ours, the whole list | {a:.2f} | 1 |"
    yield f"| ours, adaptive (closest 300) | {adaptive:.2f} | {adaptive / a:.1f} |"
    yield f"| the product alone (floor, adaptive) | {c:.2f} | {c / a:.2f} |"
    yield (
        f"| trial by trial, measured on {PART} trials | {b:.2f} for these, "
        f"{whole:,.0f} for the list | {whole / a:,.0f} |"
    )
    yield ""
    yield f"Largest difference of the {PART} normalised scores: {gap:.1e}."
    yield ""


def processor():
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.*)", info.read_text())
        name = found[1] if found else name
    return f"{name}, {os.cpu_count()} cores"


def main():
    """Measure, print and write."""
    torch.set_num_threads(1)
    lines = [
        "## Verification benchmark",
        "",
        f"{datetime.date.today().isoformat()}, {processor()}, one thread, "
        f"torch {torch.__version__}, seed {SEED}; load of the machine at the "
        f"start {os.getloadavg()[0]:.1f}. Processor seconds, medians of "
        f"{ROUNDS} rounds. `python benchmarks/bench_verification.py`",
        "",
    ]
    print("\n".join(lines))
    for table in (metrics_tables, scoring_table, s_norm_table):
        for line in table():
            print(line, flush=True)
            lines.append(line)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(int(sys.argv[2]))
    else:
        main()
