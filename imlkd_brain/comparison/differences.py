"""Tables of differences between methods, with intervals.

Methods are compared within runs, because folds and seeds change EERs more
than methods do. :mod:`imlkd_brain.metrics.intervals` has the statistics.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.metrics.intervals import (
    holm,
    relative_difference,
    speaker_covariance,
    units_of,
)

MEAN = "mean"  # of the EERs of the durations, beside POOLED


@dataclass(frozen=True)
class SpeakerCovariance:
    """How test speakers that folds share move the methods' mean EERs.

    Arguments
    ---------
    pair : str
        The pair of models.
    duration : str
        ``mean`` or ``pooled``.
    methods : list of str
        Names of the M methods.
    covariance : list of list of float
        Of their mean EERs, (M, M), in squared percent.
    degrees : int
        Degrees of freedom.
    """

    pair: str
    duration: str
    methods: list
    covariance: list
    degrees: int

    def of(self, *methods):
        """Return the covariance of some methods, (M, M)."""
        places = [self.methods.index(method) for method in methods]
        return np.array(self.covariance)[np.ix_(places, places)]


def summarise(rows):
    """Mean and standard deviation over runs of each method and duration.

    Arguments
    ---------
    rows : pandas.DataFrame
        See :func:`collect_runs`.

    Returns
    -------
    summary : pandas.DataFrame
        Indexed by pair, group, method; columns (figure, duration, statistic)
        with figure ``eer`` or ``min_dcf``, and a duration ``mean`` that is the
        mean over the durations of each run, ``pooled`` not among them.

    Example
    -------
    >>> rows = pd.DataFrame(
    ...     {"pair": "p", "fold": 0, "seed": [1, 2], "method": "m",
    ...      "duration": "full", "group": "all", "eer": [1.0, 3.0],
    ...      "min_dcf": [0.1, 0.3]}
    ... )
    >>> summarise(rows).loc[("p", "all", "m"), ("eer", "mean", "mean")].item()
    2.0
    """
    run = ["pair", "group", "method", "fold", "seed"]
    means = rows[rows["duration"] != POOLED]
    means = means.groupby(run, sort=False)[["eer", "min_dcf"]].mean()
    means = means.reset_index().assign(duration=MEAN)
    table = pd.concat([rows, means])
    table = table.groupby(["pair", "group", "method", "duration"], sort=False)
    table = table[["eer", "min_dcf"]].agg(["mean", "std"]).unstack("duration")
    return table.reorder_levels([0, 2, 1], axis=1)


def relative_differences(
    rows, pair, methods, baselines, duration=MEAN, covariance=None
):
    """Relative differences of methods' EERs to those of the baselines.

    Arguments
    ---------
    rows : pandas.DataFrame
        See :func:`collect_runs`.
    pair : str
        The pair of models.
    methods, baselines : sequence of str
        Each method is compared with each baseline, but not with itself.
    duration : str
        Name of a duration, ``pooled``, or ``mean`` for the mean of the
        durations' EERs in each run.
    covariance : SpeakerCovariance, optional
        From :func:`speaker_covariances`. If not given, intervals hold for
        these test speakers only, where folds share them.

    Returns
    -------
    differences : list of dict
        ``method``, ``baseline``, ``duration``, the values of
        :func:`imlkd_brain.metrics.intervals.relative_difference`, and
        ``p_holm``, corrected for the number of comparisons in the list.
    """
    chosen = (rows["pair"] == pair) & (rows["group"] == ALL)
    chosen &= (
        rows["duration"] != POOLED
        if duration == MEAN
        else rows["duration"] == duration
    )
    eers = rows[chosen].pivot_table(
        index=["fold", "seed"], columns="method", values="eer"
    )
    folds = eers.index.get_level_values("fold").tolist()
    differences = []
    for method in methods:
        for baseline in baselines:
            if method == baseline:
                continue
            shared = {}
            if covariance is not None:
                shared = {
                    "covariance": covariance.of(method, baseline),
                    "degrees": covariance.degrees,
                }
            found = relative_difference(
                eers[method], eers[baseline], folds, **shared
            )
            differences.append(
                {
                    "method": method,
                    "baseline": baseline,
                    "duration": duration,
                    **found,
                }
            )
    return correct_family(differences)


def speaker_covariances(draws):
    """Measure how test speakers that folds share move the methods' mean EERs.

    Arguments
    ---------
    draws : list of imlkd_brain.comparison.scores.Draws
        One for each pair.

    Returns
    -------
    covariances : list of SpeakerCovariance
        For each pair, of the mean of the durations and of the pooled EER. A
        pair with too few test speakers has none.
    """
    covariances = []
    for pair in draws:
        single = [d for d in pair.durations if d != POOLED]
        for name, averaged in ((MEAN, single), (POOLED, [POOLED])):
            places = [pair.durations.index(duration) for duration in averaged]
            eers = torch.stack([pair.eers[:, :, place] for place in places])
            found, degrees = speaker_covariance(
                eers.mean(0).numpy(), pair.folds, pair.speakers
            )
            if found is not None:
                covariances.append(
                    SpeakerCovariance(
                        pair=pair.pair,
                        duration=name,
                        methods=pair.methods,
                        covariance=found.tolist(),
                        degrees=degrees,
                    )
                )
    return covariances


def what_intervals_cover(folds, speakers_known):
    """Say in words what an interval of a report covers.

    Arguments
    ---------
    folds : list
        The fold of each run.
    speakers_known : bool
        Whether a bootstrap over the test speakers is part of it.

    Returns
    -------
    str
        The end of a sentence on 95 % intervals.

    Example
    -------
    >>> what_intervals_cover([0], False)
    'none, as there is one run'
    """
    if len(units_of(folds)) == 1:
        if speakers_known:
            return "over test speakers, not over trainings, as there is one run"
        return "none, as there is one run"
    units = "folds and their trainings"
    if len(set(folds)) == 1:
        units = "trainings of one fold"
    if speakers_known:
        return f"over {units} and over test speakers"
    return f"over {units}, and over test speakers where each fold has its own"


def correct_family(differences):
    """Add ``p_holm`` to the differences of one table.

    Both directions of a comparison are one comparison of the family.

    Arguments
    ---------
    differences : list of dict
        Keys ``method``, ``baseline`` and ``p_value``.

    Returns
    -------
    list of dict
        The same with ``p_holm``.
    """
    names = [tuple(sorted((d["method"], d["baseline"]))) for d in differences]
    corrected = holm(
        {name: d["p_value"] for name, d in zip(names, differences, strict=True)}
    )
    return [
        {**d, "p_holm": corrected[name]}
        for name, d in zip(names, differences, strict=True)
    ]
