#!/usr/bin/env python3
"""What error rates, scores and s-norm cost, beside SpeechBrain's way.

To run it: python benchmarks/bench_verification.py

Tables, published on README.md beside this file:

- EER and minDCF against SpeechBrain's, on the same scores, at sizes where
  both finish, with the equality of their results;
- time and peak memory of ours at the size of VoxCeleb1-H and beyond, beside
  one sort of the same scores, which is the floor;
- cosine scores of a list of VoxCeleb1-H's size beside torch's on gathered
  rows, with the bytes that must move at least;
- bootstrap over speakers of 550,000 trials beside the way that sums up the
  whole list in every draw, with the equality of their results;
- s-norm of a list of VoxCeleb1-O's size beside the per-trial way measured on
  a part of the trials, and beside one product with the cohort, which is the
  floor of the adaptive kind.

One thread. Contenders take turns within each round and ratios are medians over
rounds of the ratio within a round. Seconds are those of the processor, which
another load on the machine disturbs less than the clock on the wall.

Authors: IML-KD contributors
"""

import math
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from page import about, publish, sentence

from imlkd_brain.metrics import error_rates
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
)
from imlkd_brain.metrics.error_rates import EER, minDCF
from imlkd_brain.verification.scoring import (
    cohort_statistics,
    normalise_scores,
    score_trials,
)
from speechbrain.utils import metric_stats  # noqa: E402

SEED = 1986
ROUNDS = 5
DIM = 192
COHORT = 20000
VOX1_O = (4708, 37611)  # utterances, trials
VOX1_H = (137924, 551000)
# Speakers and trials: few speakers with every pair of them in the list, and
# the size of VoxCeleb1-E, where most pairs of speakers are not in the list.
BOOTSTRAPS = ((40, 550000), (1251, 580000))
DRAWS = 100
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


def measure_bootstrap_peak(speakers, trials):
    """Added peak memory of a bootstrap, in a process of its own."""
    listed = speaker_trials(speakers, trials)
    counts = bootstrap_counts(10, 2)
    bootstrap_over_speakers(*speaker_trials(10, 1000), counts)
    counts = bootstrap_counts(speakers, DRAWS)
    before = peak_bytes()
    bootstrap_over_speakers(*listed, counts)
    print(peak_bytes() - before)


def measure_peak(trials):
    """Added peak memory of EER and minDCF, in a process of its own."""
    scores = random_scores(trials)
    EER(*random_scores(1000))
    before = peak_bytes()
    EER(*scores)
    minDCF(*scores)
    print(peak_bytes() - before)


def added_peak(*sizes):
    """Run one of the two above in a fresh process; MB."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", *map(str, sizes)],
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
            ours, theirs = (
                getattr(error_rates, name),
                getattr(metric_stats, name),
            )
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
            lambda: EER(positive, negative),  # noqa: B023
            lambda: minDCF(positive, negative),  # noqa: B023
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
        score_trials(embeddings, embeddings, pairs)

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


def speaker_trials(speakers, trials):
    """Scores, labels and speakers of both sides, about 8 % EER."""
    generator = torch.Generator().manual_seed(SEED)

    def drawn(high):
        return torch.randint(high, (trials,), generator=generator)

    labels = drawn(2).bool()
    enrol = drawn(speakers)
    other = (enrol + 1 + drawn(speakers - 1)) % speakers
    test = torch.where(labels, enrol, other)
    of_speaker = 0.04 * torch.randn(speakers, generator=generator)
    scores = 0.2 + 0.4 * labels + of_speaker[enrol] + of_speaker[test]
    scores += 0.12 * torch.randn(trials, generator=generator)
    return scores, labels, enrol, test


def bootstrap_of_whole_lists(
    scores, labels, enrol, test, counts, p_target=0.01
):
    """The plain way: every draw weighs and sums up the whole list."""
    order = torch.argsort(scores)
    labels, enrol, test = labels[order], enrol[order], test[order]
    ordered = scores[order]
    last = torch.ones_like(labels)
    last[:-1] = ordered[:-1] != ordered[1:]
    eer, min_dcf = torch.full((2, len(counts)), math.nan, dtype=torch.float64)

    def summed(weights):
        cumulated = torch.cumsum(weights, dim=1)
        return torch.nn.functional.pad(cumulated[:, last], (1, 0))

    block = max(1, 2**18 // len(ordered))
    for start in range(0, len(counts), block):
        part = slice(start, start + block)
        weights = counts[part][:, enrol]
        weights = torch.where(labels, weights, weights * counts[part][:, test])
        missed, refused = summed(weights * labels), summed(weights * ~labels)
        targets, nontargets = missed[:, -1:], refused[:, -1:]
        p_miss, p_fa = missed / targets, 1.0 - refused / nontargets
        # Whole numbers: no rounding decides which threshold is the nearest.
        gap = (nontargets - refused) * targets - missed * nontargets
        best = torch.argmin(gap.abs(), dim=1, keepdim=True)
        rates = (p_fa.gather(1, best) + p_miss.gather(1, best)).squeeze(1) / 2
        cost = p_target * p_miss + (1 - p_target) * p_fa
        cost = cost.min(dim=1).values / min(p_target, 1 - p_target)
        valid = ~(p_miss.isnan() | p_fa.isnan()).any(dim=1)
        eer[part] = rates.where(valid, math.nan)
        min_dcf[part] = cost.where(valid, math.nan)
    return eer, min_dcf


def bootstrap_table():
    """Bootstrap over speakers beside the way that sums up whole lists."""
    yield "### Bootstrap over speakers: EER and minDCF of a draw"
    yield ""
    yield (
        "Floor: the speakers of a trial (one of a target, two of a nontarget, "
        "4 bytes each) are read once in a draw."
    )
    yield ""
    yield (
        "| trials | speakers | bytes of a draw | ours (s) | whole lists (s) | "
        "ratio | sorting, once (s) | added peak memory (MB) | results |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for speakers, trials in BOOTSTRAPS:
        listed = speaker_trials(speakers, trials)
        few = 5
        generator = torch.Generator().manual_seed(SEED)
        counts = bootstrap_counts(speakers, 1 + DRAWS, generator)

        def ours(draws, listed=listed, counts=counts):
            return bootstrap_over_speakers(*listed, counts[:draws])

        def theirs(draws, listed=listed, counts=counts):
            return bootstrap_of_whole_lists(*listed, counts[:draws])

        (once, many, whole, sort), _ = side_by_side(
            lambda: ours(1),  # noqa: B023
            lambda: ours(1 + DRAWS),  # noqa: B023
            lambda: theirs(few),  # noqa: B023
            lambda: torch.sort(listed[0]),  # noqa: B023
        )
        a, b = (many - once) / DRAWS, (whole - sort) / few
        same = all(
            one.equal(other)
            for one, other in zip(ours(few), theirs(few), strict=True)
        )
        read = 4 * (trials + int((~listed[1]).sum()))
        yield (
            f"| {trials:,} | {speakers:,} | {read / 1e6:.1f} MB | {a:.5f} | "
            f"{b:.4f} | {b / a:.0f} | {once:.3f} | "
            f"{added_peak(speakers, trials):.0f} | "
            f"{'equal to the last bit' if same else 'DIFFERENT'} |"
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
        statistics_ = cohort_statistics(embeddings, cohort, top)
        results["ours"] = normalise_scores(
            score_trials(embeddings, embeddings, pairs),
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


def main():
    """Measure, print and write."""
    torch.set_num_threads(1)
    lines = [
        "## Verification benchmark",
        "",
        f"{sentence(about())} One thread, seed {SEED}, processor seconds, medians of "
        f"{ROUNDS} rounds. `python benchmarks/bench_verification.py`",
        "",
    ]
    print("\n".join(lines))
    for table in (
        metrics_tables,
        bootstrap_table,
        scoring_table,
        s_norm_table,
    ):
        for line in table():
            print(line, flush=True)
            lines.append(line)
    publish("bench_verification", lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        sizes = [int(size) for size in sys.argv[2:]]
        (measure_peak, measure_bootstrap_peak)[len(sizes) - 1](*sizes)
    else:
        main()
