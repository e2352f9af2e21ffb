"""Intervals: of one system's figures, and of two methods' differences over runs.

:func:`percentile_interval` gives the interval of a bootstrap's replicates. The
rest compares methods over runs.

Everything that compares methods over runs uses this one method: the report of
``compare.py`` (:mod:`imlkd_brain.comparison`) and the pairing of several
reports (:mod:`imlkd_brain.comparison.pairing`).

What is estimated is the logarithm of the ratio of the two methods' mean EERs.
Its variance has two parts:

- *Folds and trainings.* Folds count equally, each with the mean of its runs.
  The variance of a mean of n folds is their sample variance over n, with
  n - 1 degrees of freedom. Where every fold has test speakers of its own, it
  holds the sampling of speakers as well.
- *Shared test speakers.* Where folds have the same test speakers, the choice
  of speakers moves all folds alike, so the spread of the folds does not show
  it. This part is the mean covariance of two folds over a bootstrap of their
  speakers. It is zero for folds without common speakers. Its degrees of
  freedom are the number of speakers less one.

The interval is the one of Student's t with Satterthwaite's degrees of freedom
for the sum of the two parts, and the p-value comes from the same statistic.
``benchmarks/bench_intervals.py`` measures how often intervals hold the truth.

Authors: IML-KD contributors
"""

import math

import numpy as np
import torch
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95


def percentile_interval(replicates, confidence=CONFIDENCE):
    """Percentile interval of bootstrap replicates of one figure.

    In simulation, 95 % intervals of the EER from a bootstrap over 10 to 40 test
    speakers hold the true EER in 92 to 97 % of the tests, fewest where speakers
    differ as much as trials do (``benchmarks/README.md``).

    Arguments
    ---------
    replicates : torch.Tensor
        Shape (R, ...), a figure in each replicate. NaN is left out.
    confidence : float
        Share of the replicates that the interval holds.

    Returns
    -------
    low, high : torch.Tensor
        Shape (...); NaN where all replicates are NaN.

    Example
    -------
    >>> low, high = percentile_interval(torch.arange(101.0), confidence=0.5)
    >>> low.item(), high.item()
    (25.0, 75.0)
    """
    tail = (1 - confidence) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=replicates.dtype)
    low, high = torch.nanquantile(replicates, ends.to(replicates.device), dim=0)
    return low, high


def units_of(folds):
    """Group the runs that are averaged before methods are compared.

    Runs of a fold share its training speakers, so a fold is one unit. If
    there is only one fold, each of its runs is a unit.

    Arguments
    ---------
    folds : sequence
        The fold of each run, (N,).

    Returns
    -------
    list of list of int
        The runs of each unit.

    Example
    -------
    >>> units_of([0, 1, 0])
    [[0, 2], [1]]
    >>> units_of([3, 3])
    [[0], [1]]
    """
    folds = list(folds)
    names = list(dict.fromkeys(folds))
    if len(names) == 1:
        return [[run] for run in range(len(folds))]
    return [[i for i, f in enumerate(folds) if f == name] for name in names]


def speaker_covariance(replicates, folds, speakers):
    """Covariance of methods' mean EERs due to shared test speakers.

    Arguments
    ---------
    replicates : numpy.ndarray
        EERs on resampled speakers, (N runs, M methods, R draws). Runs that
        share test speakers have the same draws.
    folds : sequence
        The fold of each run, (N,).
    speakers : sequence of frozenset
        The test speakers of each run, (N,); the runs of a fold have the same.

    Returns
    -------
    covariance : numpy.ndarray or None
        Mean covariance of two different folds, (M, M), in squared units of
        the EER; of one run it is that of the run itself. None where speakers
        are too few to tell.
    degrees : int
        Its degrees of freedom.

    Example
    -------
    >>> draws = np.array([[[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0]]])
    >>> who = [frozenset("abc")] * 2
    >>> speaker_covariance(draws, [0, 1], who)[0].round(6).tolist()
    [[3.0]]
    >>> speaker_covariance(draws, [0, 1], [who[0], frozenset("de")])[0].tolist()
    [[0.0]]
    """
    units = units_of(folds)
    # A draw without target or nontarget trials has no EER.
    values = replicates[..., ~np.isnan(replicates).any((0, 1))]
    degrees = min(len(who) for who in speakers) - 1
    if values.shape[-1] < 2 or degrees < 1:
        return None, 0
    # Drawing with replacement has (S - 1) / S of the speakers' variance.
    correction = (degrees + 1) / degrees
    means = np.stack([values[unit].mean(0) for unit in units])
    n_methods = means.shape[1]

    def covariance(rows):
        return np.cov(rows).reshape(n_methods, n_methods)

    if len(units) == 1:
        return correction * covariance(means[0]), degrees
    total = np.zeros((n_methods, n_methods))
    groups = sharing([frozenset(speakers[unit[0]]) for unit in units])
    for group in sorted(set(groups)):
        members = means[[g == group for g in groups]]
        total += covariance(members.sum(0))
        total -= sum(covariance(member) for member in members)
    pairs = len(units) * (len(units) - 1)
    return correction * total / pairs, degrees


def sharing(speakers):
    """Group sets of speakers that share some, directly or through others.

    Arguments
    ---------
    speakers : sequence of frozenset
        Sets, (N,).

    Returns
    -------
    list of int
        The group of each, named after its first member, (N,).

    Example
    -------
    >>> sharing([frozenset("ab"), frozenset("c"), frozenset("bd")])
    [0, 1, 0]
    """
    groups = list(range(len(speakers)))
    for i, mine in enumerate(speakers):
        for j in range(i):
            if mine & speakers[j] and groups[i] != groups[j]:
                both = groups[i], groups[j]
                groups = [min(both) if g in both else g for g in groups]
    return groups


def relative_difference(ours, theirs, folds, covariance=None, degrees=0):
    """Relative difference of two methods' mean EER over runs.

    Arguments
    ---------
    ours, theirs : sequence of float
        EERs of the same runs, (N,).
    folds : sequence
        The fold of each run, (N,); folds count equally.
    covariance : numpy.ndarray, optional
        Of the two methods, (2, 2), from :func:`speaker_covariance`. Without
        it test speakers that folds share are taken as given.
    degrees : int
        Its degrees of freedom.

    Returns
    -------
    dict
        ``relative`` (negative is better than ``theirs``), ``low`` and ``high``
        of the 95 % interval, in percent, and the two-sided ``p_value``; these
        three are None where nothing says how far another run would be off.
        ``lower`` is the number of runs in which ``ours`` is below ``theirs``.

    Example
    -------
    >>> result = relative_difference([9.0, 8.0], [10.0, 10.0], [0, 1])
    >>> round(result["relative"], 6), result["lower"]
    (-15.0, 2)
    """
    both = np.array([ours, theirs], dtype=float)
    units = np.stack([both[:, unit].mean(1) for unit in units_of(folds)], 1)
    mean = units.mean(1)
    result = {
        "relative": _relative(mean[0], mean[1]),
        "low": None,
        "high": None,
        "p_value": None,
        "lower": int((both[0] < both[1]).sum()),
    }
    if not mean.all():
        return result  # zero has no logarithm
    # Variances and their degrees of freedom.
    parts = []
    n_units = units.shape[1]
    if n_units > 1:
        deviations = units[0] / mean[0] - units[1] / mean[1]
        parts.append((deviations.var(ddof=1) / n_units, n_units - 1))
    if covariance is not None:
        gradient = np.array([1.0, -1.0]) / mean
        # It is below zero only by chance.
        parts.append((max(0.0, gradient @ covariance @ gradient), degrees))
    if not parts:
        return result
    variance = sum(part for part, _ in parts)
    centre = math.log(mean[0] / mean[1])
    # All runs differ alike: what remains is rounding.
    if variance < 1e-24:
        half, p_value = 0.0, float(abs(centre) < 1e-12)
    else:
        freedom = variance**2 / sum(part**2 / df for part, df in parts)
        error = math.sqrt(variance)
        half = error * stdtrit(freedom, (1 + CONFIDENCE) / 2)
        p_value = 2 * stdtr(freedom, -abs(centre) / error)
    return {
        **result,
        "low": float(100 * math.expm1(centre - half)),
        "high": float(100 * math.expm1(centre + half)),
        "p_value": float(p_value),
    }


def _relative(ours, theirs):
    """Difference to ``theirs`` in percent; None where it is to nothing."""
    return float(100 * (ours / theirs - 1)) if theirs else None


def holm(p_values):
    """Holm's correction for the number of comparisons looked at.

    Arguments
    ---------
    p_values : dict
        The p-value of each comparison of a family; None is left out of it.

    Returns
    -------
    dict
        The corrected p-values. If every one below 0.05 is called a
        difference, the chance of at least one false call is at most 5 %.

    Example
    -------
    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    {'a': 0.03, 'b': 0.06, 'c': 0.06, 'd': None}
    """
    ordered = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected, highest = {}, 0.0
    for rank, (p, name) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - rank) * p))
        corrected[name] = highest
    return {name: corrected.get(name) for name in p_values}
