"""Tables of a comparison in Markdown, and the table of a search on dev trials.

Authors: IML-KD contributors
"""

import io
import json
import math

import pandas as pd

from imlkd_brain.comparison.differences import MEAN
from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.errors import UserError


def read_table(path, columns):
    """Read a CSV of a run or of a report.

    Arguments
    ---------
    path : str or Path
        The CSV.
    columns : sequence of str
        What it must have.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    UserError
        If it is missing or damaged, or lacks a column.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        if not text.endswith("\n"):
            raise ValueError("it ends within a line")
        table = pd.read_csv(io.StringIO(text))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; run the command that makes it again."
        ) from None
    except (OSError, ValueError) as error:
        # pandas' own errors are ValueErrors.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: cannot be read as a CSV ({reason}); restore it, or "
            "remove it and run the command that makes it again."
        ) from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(
            f"{path}: column {missing[0]!r} is missing; a CSV as train_kd.py "
            "or compare.py writes it is expected."
        )
    return table


def read_json_of_report(path):
    """Read the ``results.json`` of a report.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        if not isinstance(content, dict):
            raise ValueError("a mapping is expected")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore it, or run compare.py "
            "again."
        ) from error
    return content


def summary_table(summary, pair, durations, sizes):
    """EER and minDCF of each method and duration, in Markdown.

    Arguments
    ---------
    summary : pandas.DataFrame
        From :func:`imlkd_brain.comparison.differences.summarise`.
    pair : str
        The pair of models.
    durations : list of str
        Names of the columns.
    sizes : dict
        Method to its ``parameters`` and ``macs``, in the order of the rows.

    Returns
    -------
    str
    """
    lines = [
        f"**{pair}**: EER in %, mean ± standard deviation over runs "
        "(mean: of the durations; pooled: all of them under one threshold; "
        "minDCF: normalised, prior 0.01, mean of the durations)",
        "",
        "| method | parameters | MACs (3 s) | "
        + " | ".join(durations)
        + " | minDCF |",
        "|---|---|---|" + "---|" * (len(durations) + 1),
    ]
    for method, size in sizes.items():
        row = summary.loc[(pair, ALL, method)]
        cells = [
            _mean_and_spread(row["eer", d, "mean"], row["eer", d, "std"])
            for d in durations
        ]
        lines.append(
            f"| {method} | {size['parameters'] / 1e6:.3f} M "
            f"| {size['macs'] / 1e6:.1f} M | "
            + " | ".join(cells)
            + f" | {row['min_dcf', MEAN, 'mean']:.3f} |"
        )
    return "\n".join(lines)


def _mean_and_spread(mean, std):
    """``mean ± std``; the mean alone where one run has no spread.

    Example
    -------
    >>> _mean_and_spread(12.345, 1.0), _mean_and_spread(12.345, float("nan"))
    ('12.35 ± 1.00', '12.35')
    """
    return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.2f}"


def difference_table(differences, baselines, covered):
    """Relative differences to each baseline, in Markdown.

    Arguments
    ---------
    differences : list of dict
        From :func:`imlkd_brain.comparison.differences.relative_differences`.
    baselines : list of str
        Names of the columns.
    covered : str
        What the intervals cover, see
        :func:`imlkd_brain.comparison.differences.what_intervals_cover`.

    Returns
    -------
    str
    """
    which = {MEAN: "the mean of the durations' EERs", POOLED: "the pooled EER"}
    duration = differences[0]["duration"] if differences else POOLED
    found = {(d["method"], d["baseline"]): d for d in differences}
    compared = {frozenset(names) for names in found}
    lines = [
        f"Relative difference of {which[duration]} in % (95 % interval, p, p "
        f"with Holm's correction for {len(compared)} comparisons), intervals: "
        f"{covered}; negative is better",
        "",
        "| method | " + " | ".join(f"to {b}" for b in baselines) + " |",
        "|---|" + "---|" * len(baselines),
    ]
    for method in dict.fromkeys(d["method"] for d in differences):
        cells = [as_text(found.get((method, b))) for b in baselines]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_text(difference):
    """Write a cell of a table: a difference, its interval and both p-values.

    Arguments
    ---------
    difference : dict or None
        From :func:`imlkd_brain.comparison.differences.correct_family`. None
        stands for a method against itself.

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


def group_table(summary, pair, methods):
    """EER of each method and pack, mean over durations and runs, in Markdown.

    Arguments
    ---------
    summary : pandas.DataFrame
        From :func:`imlkd_brain.comparison.differences.summarise`.
    pair : str
        The pair of models.
    methods : list of str
        Names of the rows.

    Returns
    -------
    str
    """
    groups = [
        group
        for group in summary.loc[pair].index.get_level_values(0).unique()
        if group != ALL
    ]
    lines = [
        "EER in % by pack, mean over durations and over the runs that test it",
        "",
        "| method | " + " | ".join(groups) + " |",
        "|---|" + "---|" * len(groups),
    ]
    for method in methods:
        cells = [
            f"{summary.loc[(pair, group, method)]['eer', MEAN, 'mean']:.2f}"
            for group in groups
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dev_table(curves):
    """Dev EER of each method at its last epoch, mean over runs, best first.

    The lowest of all epochs is another column. With a dozen dev speakers it
    often comes from an early epoch by chance.

    Arguments
    ---------
    curves : pandas.DataFrame
        See :func:`imlkd_brain.comparison.report.read_curves`.

    Returns
    -------
    table : pandas.DataFrame
        Columns pair, method, eer, std, lowest, minutes.
    """
    run = ["pair", "method", "fold", "seed"]
    ended = curves.groupby(run, sort=False).agg(
        eer=("eer", "last"), lowest=("eer", "min"), minutes=("minutes", "max")
    )
    table = ended.groupby(["pair", "method"], sort=False).agg(
        eer=("eer", "mean"),
        std=("eer", "std"),
        lowest=("lowest", "mean"),
        minutes=("minutes", "mean"),
    )
    return table.sort_values(["pair", "eer"]).reset_index()
