#!/usr/bin/env python3
"""How often the 95 % intervals of a comparison, and of one system, hold the truth.

To run it:
> python benchmarks/bench_intervals.py comparison 2000
> python benchmarks/bench_intervals.py system 1000

The number is that of simulations for each row. The tables are written to
README.md beside this file.

*Comparison.* Two methods that do not differ are trained and tested in simulation, many
times, and their relative difference is given its interval by
:mod:`imlkd_brain.metrics.intervals`, from scores of trials and a bootstrap over
speakers as ``compare.py`` has them. As both methods follow one distribution,
the truth is a difference of zero. The designs are those of the experiments:

- *shared*: the runs of all folds are tested on the same speakers;
- *own*: every fold has its own test speakers;

with one or two trainings of each fold, and with trainings or speakers as what
varies most.

*System.* One system is tested on few speakers, and its EER is given the
percentile interval of ``verify.py``, from the same bootstrap. Scores are normal,
so the EER over all speakers and trials is known.

Authors: IML-KD contributors
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from page import about, publish, sentence

from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
)
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.metrics.intervals import (
    percentile_interval,
    relative_difference,
    speaker_covariance,
)

FOLDS = 5
SAMPLES = 200  # draws of a bootstrap
TARGETS = 16  # target trials of a speaker
# Standard deviations of what moves the targets' scores, whose noise is 1:
# the fold for both methods, the fold and method, the training, the speaker
# for both methods, the speaker and method.
TRAININGS = {"fold": 0.3, "bias": 0.1, "run": 0.3, "all": 0.5, "own": 0.2}
SPEAKERS = {"fold": 0.3, "bias": 0.05, "run": 0.1, "all": 0.5, "own": 0.6}
SETTINGS = [
    (design, seeds, name, spread)
    for design in ("shared", "own")
    for seeds in (1, 2)
    for name, spread in (("trainings", TRAININGS), ("speakers", SPEAKERS))
]


# Test speakers, and the standard deviation between speakers of one system.
SYSTEMS = [(n, spread) for n in (10, 20, 40) for spread in (0.5, 1.0)]
SEPARATION = 2.3  # mean distance of target and nontarget scores


def listed_trials(n_speakers):
    """Targets of each speaker, and a nontarget of each ordered pair.

    Arguments
    ---------
    n_speakers : int
        Number of speakers.

    Returns
    -------
    enrol, test : torch.Tensor
        Speakers of both sides, (trials,).
    labels : torch.Tensor
        True for target trials, (trials,).
    """
    pairs = torch.cartesian_prod(*2 * [torch.arange(n_speakers)])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    whose = torch.arange(n_speakers).repeat_interleave(TARGETS)
    enrol = torch.cat([whose, pairs[:, 0]])
    test = torch.cat([whose, pairs[:, 1]])
    return enrol, test, torch.arange(len(enrol)) < len(whose)


def one_comparison(design, seeds, spread, generator):
    """Simulate the runs of two equal methods and compare them.

    Arguments
    ---------
    design : str
        ``shared`` or ``own``.
    seeds : int
        Trainings of each fold.
    spread : dict
        Standard deviations, as ``TRAININGS``.
    generator : torch.Generator
        Of all that is drawn.

    Returns
    -------
    dict
        As :func:`imlkd_brain.metrics.intervals.relative_difference` returns it.
    """

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    shared = design == "shared"
    n_speakers = 20 if shared else 10
    enrol, test, labels = listed_trials(n_speakers)
    counts = bootstrap_counts(
        n_speakers, SAMPLES, torch.Generator().manual_seed(0)
    )

    def voices():
        """What speakers do to the targets, (2, S), and noise, (2, trials)."""
        own = spread["own"] * draw(2, n_speakers)
        return spread["all"] * draw(n_speakers) + own, draw(1, len(enrol))

    same = voices()
    eers, replicates, folds, speakers = [], [], [], []
    for fold in range(FOLDS):
        of_speaker, noise = same if shared else voices()
        of_fold = 2.3 + spread["fold"] * draw(1) + spread["bias"] * draw(2)
        for _ in range(seeds):
            of_run = of_fold + spread["run"] * draw(2)
            scores = (noise + draw(2, len(enrol))) / 2**0.5
            scores += (of_run[:, None] + of_speaker[:, enrol]) * labels
            eers.append([100 * EER(s[labels], s[~labels])[0] for s in scores])
            folds.append(fold)
            speakers.append(
                frozenset((0 if shared else fold, s) for s in range(n_speakers))
            )
            if shared:  # of folds with their own, nothing would be used
                drawn = [
                    bootstrap_over_speakers(s, labels, enrol, test, counts)[0]
                    for s in scores
                ]
                replicates.append(100 * torch.stack(drawn).numpy())
            else:
                replicates.append(np.zeros((2, 2)))
    covariance, degrees = speaker_covariance(
        np.array(replicates), folds, speakers
    )
    ours, theirs = np.array(eers).T
    return relative_difference(ours, theirs, folds, covariance, degrees)


def coverage(design, seeds, spread, simulations, seed=0):
    """Share of simulations whose interval holds zero, and the mean width.

    Arguments
    ---------
    design, seeds, spread
        See :func:`one_comparison`.
    simulations : int
        How many comparisons.
    seed : int
        Seed of the first.

    Returns
    -------
    covered : float
        Share of the intervals that hold the truth; 0.95 is promised.
    width : float
        Mean width of the intervals, in percent of the EER.
    """
    covered, width = 0, 0.0
    for i in range(simulations):
        generator = torch.Generator().manual_seed(100003 * seed + i)
        found = one_comparison(design, seeds, spread, generator)
        covered += found["low"] <= 0 <= found["high"]
        width += found["high"] - found["low"]
    return covered / simulations, width / simulations


def one_system(n_speakers, spread, generator):
    """Simulate a test of one system.

    Arguments
    ---------
    n_speakers : int
        Number of test speakers.
    spread : float
        Standard deviation between speakers of their targets' scores. The
        noise of a score is 1. Each speaker of a nontarget moves its score by
        half as much.
    generator : torch.Generator
        Of all that is drawn.

    Returns
    -------
    low, high : float
        The interval of the EER.
    truth : float
        The EER over all speakers and trials.
    """
    enrol, test, labels = listed_trials(n_speakers)
    own, near = spread * torch.randn(2, n_speakers, generator=generator)
    scores = torch.where(
        labels, SEPARATION + own[enrol], (near[enrol] + near[test]) / 2
    )
    scores += torch.randn(len(enrol), generator=generator)
    counts = bootstrap_counts(n_speakers, 2 * SAMPLES, generator)
    eer, _ = bootstrap_over_speakers(scores, labels, enrol, test, counts)
    low, high = percentile_interval(eer)
    # Where the two normal distributions have equal tails
    deviations = (1 + spread**2) ** 0.5 + (1 + spread**2 / 2) ** 0.5
    return float(low), float(high), float(norm.cdf(-SEPARATION / deviations))


def system_coverage(n_speakers, spread, simulations):
    """Share of a system's intervals that hold the truth, and their width.

    Arguments
    ---------
    n_speakers, spread
        See :func:`one_system`.
    simulations : int
        How many tests.

    Returns
    -------
    covered : float
        Share of the intervals that hold the truth; 0.95 is promised.
    width : float
        Mean width of the intervals, in percent of the EER.
    """
    covered, width = 0, 0.0
    for i in range(simulations):
        generator = torch.Generator().manual_seed(i)
        low, high, truth = one_system(n_speakers, spread, generator)
        covered += low <= truth <= high
        width += 100 * (high - low) / truth
    return covered / simulations, width / simulations


def system(simulations=1000):
    """Simulate tests of one system, print and write."""
    began = time.monotonic()
    rows = []
    for n_speakers, spread in SYSTEMS:
        covered, width = system_coverage(n_speakers, spread, simulations)
        rows.append(
            f"| {n_speakers} | {spread} | {100 * covered:.1f} | {width:.0f} |"
        )
        print(rows[-1], flush=True)
    error = 100 * (0.95 * 0.05 / simulations) ** 0.5
    publish(
        "bench_intervals_system",
        [
            "## How often 95 % intervals of one system hold the truth",
            "",
            f"{sentence(about())} One thread, {simulations:,} simulations "
            f"of each row (standard error {error:.1f} points), {TARGETS} "
            f"target trials of a speaker, {2 * SAMPLES} draws, in "
            f"{(time.monotonic() - began) / 60:.0f} minutes. "
            f"`python benchmarks/bench_intervals.py system {simulations}`",
            "",
            "| test speakers | spread of speakers (noise: 1) | intervals that "
            "hold the truth, % | mean width, % of the EER |",
            "|---|---|---|---|",
            *rows,
        ],
    )


def comparison(simulations=2000):
    """Simulate comparisons, print and write."""
    began = time.monotonic()
    rows = []
    for design, seeds, name, spread in SETTINGS:
        covered, width = coverage(design, seeds, spread, simulations)
        rows.append(
            f"| {design} | {seeds} | {name} | {100 * covered:.1f} | "
            f"{width:.0f} |"
        )
        print(rows[-1], flush=True)
    error = 100 * (0.95 * 0.05 / simulations) ** 0.5
    publish(
        "bench_intervals",
        [
            "## How often 95 % intervals hold the truth",
            "",
            f"{sentence(about())} One thread, {simulations:,} simulations "
            f"of each row (standard error {error:.1f} points), {FOLDS} folds, "
            f"in {(time.monotonic() - began) / 60:.0f} minutes. "
            f"`python benchmarks/bench_intervals.py comparison {simulations}`",
            "",
            "| test speakers | trainings of a fold | what varies most | "
            "intervals that hold the truth, % | mean width, % of the EER |",
            "|---|---|---|---|---|",
            *rows,
        ],
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    table, *simulations = sys.argv[1:]
    {"comparison": comparison, "system": system}[table](*map(int, simulations))
