"""Measures a verification run; writes its score files and its tables.

Scores come as a dict with a key (list, model, duration) for each condition.

Authors: IML-KD contributors
"""

from pathlib import Path

import torch

from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL, trial_groups
from imlkd_brain.files import replacing
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
    "eer": "SpeechBrain's: accept above the threshold; thresholds are the "
    "scores and their midpoints; mean of the two rates where they are "
    "closest, the lowest such threshold.",
    "eer_low, eer_high, min_dcf_low, min_dcf_high": "95 % percentile "
    "interval of a bootstrap over speakers, not trials; min_dcf at the first "
    "prior.",
    "rocch_eer": "Equal error rate on the convex hull of the ROC.",
    "min_dcf_<p>": "Minimum detection cost at target prior p, costs 1 and 1, "
    "divided by the cost of the better system that does not listen, "
    "min(p, 1 - p).",
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
    f"{MACS_SECONDS:g} s, features and classifier left out.",
}


def measure(
    located,
    model,
    scores,
    ratios=None,
    p_targets=(0.01,),
    group_separator=None,
    bootstrap_samples=0,
    seed=0,
):
    """Every figure of a model on a list, for each duration and group.

    Arguments
    ---------
    located : LocatedTrials
        The list.
    model : str
        The model's name.
    scores : dict
        Scores (P,) at each duration.
    ratios : dict, optional
        Calibrated log-likelihood ratios (P,) at each duration.
    p_targets : sequence of float
        Priors of the minDCF; intervals are for the first.
    group_separator : str, optional
        Measure each group of speakers too, see
        :func:`imlkd_brain.data.trials.trial_groups`.
    bootstrap_samples : int
        Draws of speakers for the intervals; 0 for none.
    seed : int
        Seed of the draws.

    Returns
    -------
    list of dict
        A row for each duration and group, all durations pooled last; names
        of figures as in :data:`CONVENTIONS`. No intervals and no groups
        where the speakers of the list are not known.
    """
    groups = {ALL: torch.ones(len(located.pairs), dtype=torch.bool)}
    if group_separator is not None:
        groups.update(trial_groups(located, group_separator))
    conditions = {duration: [duration] for duration in scores}
    if len(scores) > 1:
        conditions[POOLED] = list(scores)
    rows = []
    for name, durations in conditions.items():
        values = torch.cat([scores[duration] for duration in durations])
        llr = None
        if ratios:
            llr = torch.cat([ratios[duration] for duration in durations])
        labels = located.trials.labels.repeat(len(durations))
        for group, inside in groups.items():
            chosen = inside.repeat(len(durations))
            rows.append(
                {
                    "model": model,
                    "list": located.trials.name,
                    "duration": name,
                    "group": group,
                    **_figures(values, llr, labels, chosen, p_targets),
                }
            )
            if group == ALL and bootstrap_samples and not located.doubt:
                rows[-1].update(
                    _intervals(
                        located,
                        values,
                        labels,
                        p_targets[0],
                        bootstrap_samples,
                        seed,
                    )
                )
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


def _intervals(located, values, labels, p_target, samples, seed):
    """Confidence intervals over speakers, where there are enough of them."""
    number = {name: index for index, name in enumerate(located.speakers)}
    enrol = torch.tensor([number[name] for name in located.enrol_speakers])
    test = torch.tensor([number[name] for name in located.test_speakers])
    repeats = len(values) // len(located.pairs)
    counts = bootstrap_counts(
        len(number), samples, torch.Generator().manual_seed(seed)
    )
    draws = bootstrap_over_speakers(
        values,
        labels,
        enrol[located.pairs[:, 0]].repeat(repeats),
        test[located.pairs[:, 1]].repeat(repeats),
        counts,
        p_target,
    )
    intervals = {}
    for figure, replicates in zip(("eer", "min_dcf"), draws, strict=True):
        if not replicates.isnan().all():
            low, high = percentile_interval(replicates)
            intervals[f"{figure}_low"] = float(low)
            intervals[f"{figure}_high"] = float(high)
    return intervals


def format_tables(rows, sizes, p_target, warnings=None):
    """Results as text: for each list a table, and one of its groups.

    Arguments
    ---------
    rows : list of dict
        Rows of :func:`measure`.
    sizes : dict
        Parameters and MACs of each model.
    p_target : float
        Prior of the minDCF to show.
    warnings : dict, optional
        A line to write below the table of a list, by the list's name.

    Returns
    -------
    str
        The tables.
    """
    lines, warnings = [], warnings or {}
    for name in dict.fromkeys(row["list"] for row in rows):
        inside = [row for row in rows if row["list"] == name]
        lines += [
            f"{name}: {inside[0]['trials']} trials, {inside[0]['targets']} of "
            "them target",
            "",
            *_align(_main_table(inside, sizes, p_target)),
        ]
        groups = list(dict.fromkeys(row["group"] for row in inside))[1:]
        if groups:
            lines += ["", "EER % within each group of speakers", ""]
            lines += _align(_group_table(inside, groups))
        if warnings.get(name):
            lines += ["", warnings[name]]
        lines.append("")
    return "\n".join(lines)


def _main_table(rows, sizes, p_target):
    """Header and cells of the figures over all trials."""
    table = [
        (
            "model",
            "params",
            f"MACs ({MACS_SECONDS:g} s)",
            "test speech",
            "EER %",
            "95 % over speakers",
            f"minDCF ({p_target:g})",
            "min Cllr",
        )
    ]
    for row in rows:
        if row["group"] != ALL:
            continue
        parameters, macs = sizes[row["model"]]
        interval = "-"
        if "eer_low" in row:
            interval = f"{_percent(row['eer_low'])} to "
            interval += _percent(row["eer_high"])
        table.append(
            (
                row["model"],
                f"{parameters / 1e6:.2f} M",
                f"{macs / 1e9:.3f} G",
                row["duration"],
                _percent(row["eer"]),
                interval,
                f"{row[f'min_dcf_{p_target:g}']:.3f}",
                f"{row['min_cllr']:.3f}",
            )
        )
        if "cllr" in row:
            table[0] = (*table[0][:8], "Cllr", f"actDCF ({p_target:g})")
            table[-1] += (
                f"{row['cllr']:.3f}",
                f"{row[f'actual_dcf_{p_target:g}']:.3f}",
            )
    return table


def _group_table(rows, groups):
    """Header and cells of the EERs within groups."""
    eers = {(r["model"], r["duration"], r["group"]): r["eer"] for r in rows}
    table = [("model", "test speech", *groups)]
    for model, duration in dict.fromkeys(key[:2] for key in eers):
        cells = [_percent(eers[model, duration, group]) for group in groups]
        table.append((model, duration, *cells))
    return table


def _percent(rate):
    """A rate in percent, two decimals."""
    return f"{100 * rate:.2f}"


def _align(table):
    """Lines of a table with columns of one width; the first is a header."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        for row in table
    ]
    rule = "  ".join("-" * width for width in widths)
    return [lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:])]


def write_scores(output_folder, lists, scores, ratios=None):
    """Write ``scores.txt`` and a file for each condition.

    ``scores.txt`` has one line a trial: list, enrolment, test, label and the
    score of every model at every duration, named in the first line.
    ``scores/<list>/<model>/<duration>.txt`` has SpeechBrain's lines ``enrol
    test label score``, and the log-likelihood ratio where there is one.

    Arguments
    ---------
    output_folder : str or Path
        Where they go.
    lists : list of LocatedTrials
        The lists.
    scores : dict
        Scores (P,) for each (list, model, duration).
    ratios : dict, optional
        Log-likelihood ratios for the same.
    """
    output_folder, ratios = Path(output_folder), ratios or {}
    conditions = list(dict.fromkeys(key[1:] for key in scores))
    with replacing(output_folder / "scores.txt") as stream:
        columns = " ".join(
            f"{_one_word(model)}@{duration}" for model, duration in conditions
        )
        stream.write(f"list enrol test label {columns}\n")
        for located in lists:
            name = located.trials.name
            columns = [scores[(name, *rest)] for rest in conditions]
            for line in _trial_lines(located.trials, columns):
                stream.write(f"{_one_word(name)} {line}")
    trials = {located.trials.name: located.trials for located in lists}
    for key, values in scores.items():
        name, model, duration = key
        folder = output_folder / "scores" / _one_word(name) / _one_word(model)
        folder.mkdir(parents=True, exist_ok=True)
        columns = [values] + ([ratios[key]] if key in ratios else [])
        with replacing(folder / f"{duration}.txt") as stream:
            stream.writelines(_trial_lines(trials[name], columns))


def _trial_lines(trials, columns):
    """Lines ``enrol test label score ...``, one a trial."""
    values = zip(*(column.tolist() for column in columns), strict=True)
    for enrol, test, label, cells in zip(
        trials.enrol, trials.test, trials.labels.tolist(), values, strict=True
    ):
        line = " ".join(f"{cell:.6f}" for cell in cells)
        yield f"{enrol} {test} {int(label)} {line}\n"


def _one_word(name):
    """A name as one column and one path component."""
    return "_".join(name.replace("/", " ").split())


def summary(positive_scores, negative_scores, p_targets=(0.01,)):
    """Every figure that needs scores only, by name.

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
