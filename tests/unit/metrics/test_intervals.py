"""Intervals of differences over runs: by hand, and in simulation."""

import numpy as np
import pytest
import torch
from bench_intervals import SPEAKERS, TRAININGS, coverage, system_coverage
from scipy.stats import t

from imlkd_brain.metrics.bootstrap import bootstrap_counts, replicated_means
from imlkd_brain.metrics.intervals import (
    percentile_interval,
    relative_difference,
    speaker_covariance,
)

NUMBERS = ("relative", "low", "high", "p_value")


def numbers(result):
    return {key: result[key] for key in NUMBERS}


def test_the_interval_is_student_s_on_the_logarithm_of_the_ratio():
    ours, theirs = np.array([18.0, 29.0, 9.5]), np.array([20.0, 30.0, 10.0])
    d = relative_difference(ours, theirs, [0, 1, 2])
    deviations = ours / ours.mean() - theirs / theirs.mean()
    error = deviations.std(ddof=1) / 3**0.5
    centre = np.log(56.5 / 60)
    half = t.ppf(0.975, 2) * error
    assert d["relative"] == pytest.approx(100 * (56.5 / 60 - 1))
    assert d["low"] == pytest.approx(100 * (np.exp(centre - half) - 1))
    assert d["high"] == pytest.approx(100 * (np.exp(centre + half) - 1))
    assert d["p_value"] == pytest.approx(2 * t.cdf(centre / error, 2))
    assert d["lower"] == 3
    # The other way round is the other way round.
    back = relative_difference(theirs, ours, [0, 1, 2])
    assert 1 + back["low"] / 100 == pytest.approx(1 / (1 + d["high"] / 100))
    assert back["p_value"] == pytest.approx(d["p_value"])


def test_a_second_seed_that_repeats_the_first_is_no_news():
    ours, theirs = [18.0, 29.0, 9.5], [20.0, 30.0, 10.0]
    once = relative_difference(ours, theirs, [0, 1, 2])
    twice = relative_difference(ours * 2, theirs * 2, [0, 1, 2] * 2)
    assert numbers(twice) == pytest.approx(numbers(once))
    # Of one fold the trainings are what varies.
    one_fold = relative_difference(ours, theirs, [4, 4, 4])
    assert numbers(one_fold) == pytest.approx(numbers(once))


def test_shared_speakers_add_their_variance_and_degrees_of_freedom():
    ours, theirs = np.array([18.0, 20.0, 19.0]), np.array([20.0, 20.0, 20.0])
    covariance = np.array([[2.0, 1.5], [1.5, 2.0]])
    d = relative_difference(ours, theirs, [0, 1, 2], covariance, 19)
    # Of ours / 19 - theirs / 20.
    runs = np.array([18.0, 20.0, 19.0]).var(ddof=1) / 19**2 / 3
    shared = 2 / 19**2 + 2 / 20**2 - 2 * 1.5 / (19 * 20)
    freedom = (runs + shared) ** 2 / (runs**2 / 2 + shared**2 / 19)
    half = t.ppf(0.975, freedom) * (runs + shared) ** 0.5
    assert d["low"] == pytest.approx(100 * (0.95 * np.exp(-half) - 1))
    # One run: the speakers alone; without a bootstrap, nothing.
    alone = relative_difference([19.0], [20.0], [0], covariance, 19)
    half = t.ppf(0.975, 19) * shared**0.5
    assert alone["low"] == pytest.approx(100 * (0.95 * np.exp(-half) - 1))
    none = relative_difference([19.0], [20.0], [0])
    assert none["relative"] == pytest.approx(-5)
    assert none["low"] is none["high"] is none["p_value"] is None


def test_only_what_folds_share_is_their_covariance():
    """Common to all runs, own of a run, and of a fold's two runs."""
    generator = np.random.default_rng(0)
    common = generator.normal(size=(1, 2, 4000))
    of_fold = generator.normal(size=(3, 2, 4000)).repeat(2, 0)
    of_run = generator.normal(size=(6, 2, 4000))
    folds = [0, 0, 1, 1, 2, 2]
    draws = 10 + common + of_fold + 3 * of_run
    draws[4, 1, 7] = np.nan  # a draw without an EER is left out
    same = [frozenset(range(10))] * 6
    found, degrees = speaker_covariance(draws, folds, same)
    assert degrees == 9
    assert found == pytest.approx(10 / 9 * np.eye(2), abs=0.15)
    # Of folds 0 and 1 only: one pair of three.
    part = [*same[:4], *[frozenset(range(20, 30))] * 2]
    found, _ = speaker_covariance(draws, folds, part)
    assert found == pytest.approx(10 / 27 * np.eye(2), abs=0.1)
    # Too few speakers to tell
    assert speaker_covariance(draws, folds, [frozenset("a")] * 6)[0] is None


def test_the_interval_is_as_wide_as_the_speakers_spread():
    generator = torch.Generator().manual_seed(5)
    per_speaker = torch.randn(400, generator=generator)
    # Ten utterances a speaker, all alike: worth one, not ten.
    values = per_speaker.repeat_interleave(10)
    speaker = torch.arange(400).repeat_interleave(10)
    counts = bootstrap_counts(400, 2000, generator)
    _, replicates = replicated_means(values, speaker, counts)
    low, high = percentile_interval(replicates)
    expected = 2 * 1.96 * per_speaker.std() / 400**0.5
    # 2,000 replicates place a 2.5 % quantile within about 5 %.
    assert float(high - low) == pytest.approx(float(expected), rel=0.1)


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("spread", [TRAININGS, SPEAKERS])
def test_intervals_hold_the_truth_where_folds_have_their_own_speakers(
    seeds, spread
):
    # 150 intervals: a standard error of 1.8 points.
    covered, _ = coverage("own", seeds, spread, 150)
    assert 0.90 <= covered <= 0.99


@pytest.mark.parametrize("spread", [TRAININGS, SPEAKERS])
def test_intervals_hold_the_truth_where_folds_share_speakers(spread):
    # A few, as each has its bootstraps; benchmarks/bench_intervals.py has the
    # full size. Of 25 intervals 23.75 are expected, 20 or fewer once in 140.
    covered, _ = coverage("shared", 1, spread, 25)
    assert covered > 20 / 25


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_percentile_intervals_of_one_system_hold_the_truth(spread):
    # Of 40 intervals 38 are expected, 33 or fewer once in 300.
    covered, _ = system_coverage(10, spread, 40)
    assert covered > 33 / 40
