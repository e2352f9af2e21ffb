"""Differences between methods, with bootstrap intervals.

There are few speakers, and seeds matter. So methods are only compared within
runs, and intervals come from resampling the runs and, within each run, its
test speakers.

Authors: IML-KD contributors
"""

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
        Which (teacher, student) pair.
    methods, baselines : sequence of str
        What is compared with what; a method is not compared with itself.
    duration : str
        Name of a duration, ``pooled``, or ``mean`` for the mean of the
        durations' EERs in each run.
    covariance : dict, optional
        From :func:`speaker_covariances`. Without it test speakers that folds
        share are taken as given.

    Returns
    -------
    differences : list of dict
        ``method``, ``baseline``, ``duration``, what
        :func:`imlkd_brain.metrics.intervals.relative_difference` says, and
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
                places = [
                    covariance["methods"].index(m) for m in (method, baseline)
                ]
                shared = {
                    "covariance": np.array(covariance["covariance"])[
                        np.ix_(places, places)
                    ],
                    "degrees": covariance["degrees"],
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


def speaker_covariances(replicates, speakers, folds):
    """What test speakers that folds share bring to the methods' mean EERs.

    Arguments
    ---------
    replicates, speakers
        See :func:`collect_runs`.
    folds : list
        The fold of each run.

    Returns
    -------
    covariances : list of dict
        For each pair, and for the mean of the durations and the pooled EER:
        ``pair``, ``duration``, ``methods``, ``covariance`` and ``degrees`` of
        :func:`imlkd_brain.metrics.intervals.speaker_covariance`. Left out where
        there are too few speakers to tell.
    """
    covariances = []
    for pair in dict.fromkeys(key[0] for key in replicates):
        methods, durations = (
            list(dict.fromkeys(key[i] for key in replicates if key[0] == pair))
            for i in (2, 3)
        )
        single = [d for d in durations if d != POOLED]
        for name, averaged in ((MEAN, single), (POOLED, [POOLED])):
            values = [
                [
                    torch.stack(
                        [replicates[pair, i, method, d] for d in averaged]
                    ).mean(0)
                    for method in methods
                ]
                for i in range(len(folds))
            ]
            values = torch.stack([torch.stack(run) for run in values]).numpy()
            found, degrees = speaker_covariance(values, folds, speakers)
            if found is not None:
                covariances.append(
                    {
                        "pair": pair,
                        "duration": name,
                        "methods": methods,
                        "covariance": found.tolist(),
                        "degrees": degrees,
                    }
                )
    return covariances


def what_intervals_cover(folds, speakers_known):
    """What an interval of a report allows for, in words.

    Arguments
    ---------
    folds : list
        The fold of each run.
    speakers_known : bool
        Whether there is a bootstrap over the test speakers.

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


def as_text(difference):
    """A cell of a table: the difference, its interval and both p-values.

    Arguments
    ---------
    difference : dict or None
        From :func:`correct_family`; None is a method against itself.

    Returns
    -------
    str
        The cell.

    Example
    -------
    >>> as_text({"relative": -15.0, "low": -20.0, "high": -9.5,
    ...          "p_value": 0.004, "p_holm": 0.012})
    '-15.0 (-20.0 to -9.5, p=0.004, Holm 0.012)'
    """
    if difference is None or difference["relative"] is None:
        return "-"
    text = f"{difference['relative']:+.1f}"
    if difference["p_value"] is None:
        return text
    return (
        f"{text} ({difference['low']:+.1f} to {difference['high']:+.1f}, "
        f"p={difference['p_value']:.3f}, Holm {difference['p_holm']:.3f})"
    )
