"""Measures the scores of a list: every figure, with intervals over speakers.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch

from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL, trial_groups
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
)
from imlkd_brain.metrics.error_rates import (
    EER,
    actual_dcf,
    minDCF,
    normalised_min_dcf,
)
from imlkd_brain.metrics.intervals import percentile_interval
from imlkd_brain.metrics.likelihood_ratios import cllr, min_cllr, rocch_eer

MACS_SECONDS = 3.0

CONVENTIONS = {
    "eer": "SpeechBrain's convention: a trial is accepted above the threshold; "
    "thresholds are the scores and their midpoints; the EER is the mean of the "
    "two error rates where they are closest, at the lowest such threshold.",
    "eer_low, eer_high, min_dcf_low, min_dcf_high": "95 % percentile "
    "interval of a bootstrap over speakers, not trials; min_dcf at the first "
    "prior.",
    "rocch_eer": "Equal error rate on the convex hull of the ROC.",
    "min_dcf_<p>": "Minimum detection cost at target prior p, costs 1 and 1, "
    "divided by min(p, 1 - p), the cost of the better system that ignores the "
    "speech.",
    "min_dcf_speechbrain_<p>": "The same without the division, as "
    "SpeechBrain's minDCF returns.",
    "min_cllr": "Cllr in bits after the best increasing map (pool adjacent "
    "violators on the same trials).",
    "cllr, actual_dcf_<p>": "Of log-likelihood ratios calibrated on the "
    "calibration list, at Bayes' threshold; normalised as min_dcf.",
    "duration": "Seconds of test speech, a random crop that depends on the "
    "seed and the utterance; shorter utterances are taken whole. 'pooled' "
    "puts the trials of all durations under one threshold.",
    "macs": "Multiply-accumulates of the embedding model on "
    f"{MACS_SECONDS:g} s, without features and classifier.",
}


@dataclass(frozen=True)
class Measures:
    """Which figures are measured.

    Arguments
    ---------
    p_targets : sequence of float
        Priors of the minDCF. Intervals are for the first.
    group_separator : str or None
        Measure each group of speakers too, see
        :func:`imlkd_brain.data.trials.trial_groups`.
    bootstrap_samples : int
        Draws of speakers for the intervals; 0 for no intervals.
    seed : int
        Seed of the draws.
    """

    p_targets: tuple = (0.01,)
    group_separator: str = None
    bootstrap_samples: int = 0
    seed: int = 0


def measure(scored, measures):
    """Measure a model's scores of a list, for each duration and group.

    Arguments
    ---------
    scored : Scored
        The scores.
    measures : Measures
        Which figures are measured.

    Returns
    -------
    list of dict
        A row for each duration and group. The last duration is all of them
        pooled. Names of figures are those of :data:`CONVENTIONS`. There are
        no intervals and no groups where the speakers of the list are not
        known.
    """
    located = scored.located
    groups = {ALL: torch.ones(len(located.pairs), dtype=torch.bool)}
    if measures.group_separator is not None:
        groups.update(trial_groups(located, measures.group_separator))
    conditions = {duration: [duration] for duration in scored.scores}
    if len(conditions) > 1:
        conditions[POOLED] = list(scored.scores)
    rows = []
    for name, durations in conditions.items():
        values = torch.cat([scored.scores[d] for d in durations])
        llr = None
        if scored.ratios:
            llr = torch.cat([scored.ratios[d] for d in durations])
        labels = located.trials.labels.repeat(len(durations))
        for group, inside in groups.items():
            chosen = inside.repeat(len(durations))
            row = {
                "model": scored.model,
                "list": scored.list_name,
                "duration": name,
                "group": group,
                **_figures(values, llr, labels, chosen, measures.p_targets),
            }
            if (
                group == ALL
                and measures.bootstrap_samples
                and not located.doubt
            ):
                row.update(_intervals(located, values, labels, measures))
            rows.append(row)
    return rows


def _figures(values, llr, labels, chosen, p_targets):
    """The figures of the chosen trials."""
    targets, nontargets = chosen & labels, chosen & ~labels
    figures = {
        "trials": int(chosen.sum()),
        "targets": int(targets.sum()),
        **summary(values[targets], values[nontargets], p_targets),
    }
    if llr is not None:
        figures["cllr"] = cllr(llr[targets], llr[nontargets])
        for p_target in p_targets:
            figures[f"actual_dcf_{p_target:g}"] = actual_dcf(
                llr[targets], llr[nontargets], p_target
            )
    return figures


def _intervals(located, values, labels, measures):
    """Confidence intervals over speakers, where there are enough of them."""
    number = {name: index for index, name in enumerate(located.speakers)}
    enrol = torch.tensor([number[name] for name in located.enrol_speakers])
    test = torch.tensor([number[name] for name in located.test_speakers])
    repeats = len(values) // len(located.pairs)
    counts = bootstrap_counts(
        len(number),
        measures.bootstrap_samples,
        torch.Generator().manual_seed(measures.seed),
    )
    replicates = bootstrap_over_speakers(
        values,
        labels,
        enrol[located.pairs[:, 0]].repeat(repeats),
        test[located.pairs[:, 1]].repeat(repeats),
        counts,
        measures.p_targets[0],
    )
    intervals = {}
    for figure, drawn in zip(("eer", "min_dcf"), replicates, strict=True):
        if not drawn.isnan().all():
            low, high = percentile_interval(drawn)
            intervals[f"{figure}_low"] = float(low)
            intervals[f"{figure}_high"] = float(high)
    return intervals


def summary(positive_scores, negative_scores, p_targets=(0.01,)):
    """Measure every figure that needs only scores.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.
    p_targets : sequence of float
        Priors of the minDCF, both costs 1.

    Returns
    -------
    dict
        ``eer``, ``eer_threshold``, ``rocch_eer``, ``min_cllr``, and for each
        prior ``min_dcf_<prior>`` (normalised) and
        ``min_dcf_speechbrain_<prior>`` (not normalised).

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> figures = summary(torch.tensor([1.0]), torch.tensor([0.0]))
    >>> figures["eer"], figures["min_dcf_0.01"]
    (0.0, 0.0)
    """
    eer, threshold = EER(positive_scores, negative_scores)
    figures = {
        "eer": eer,
        "eer_threshold": threshold,
        "rocch_eer": rocch_eer(positive_scores, negative_scores),
        "min_cllr": min_cllr(positive_scores, negative_scores),
    }
    normalised = normalised_min_dcf(positive_scores, negative_scores, p_targets)
    for p_target in p_targets:
        figures[f"min_dcf_{p_target:g}"] = normalised[p_target][0]
        figures[f"min_dcf_speechbrain_{p_target:g}"] = minDCF(
            positive_scores, negative_scores, p_target=p_target
        )[0]
    return figures
