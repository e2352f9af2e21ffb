"""Pairs the runs of several reports of ``compare.py``, without their models.

The statistics are those of :mod:`imlkd_brain.metrics.intervals`, as in each
report. Intervals are over folds and their trainings. They are also over the
test speakers that folds share if the reports have the speakers' covariances of
both methods. Reports from before 2026-11-26 do not have them.

Example
-------
Two sets of seeds, and two rows of a third report under another name::

    python -m imlkd_brain.comparison.pairing docs/results/unseen \
        docs/results/unseen_second docs/results/eta4_unseen:_eta4 \
        --methods iml_kd iml_kd_plus

Authors: IML-KD contributors
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from imlkd_brain.comparison.differences import (
    correct_family,
    what_intervals_cover,
)
from imlkd_brain.comparison.figures import paired_intervals
from imlkd_brain.comparison.report import (
    RESULTS,
    RUNS,
    read_covariances,
    what_is_compared,
)
from imlkd_brain.comparison.tables import (
    as_text,
    read_json_of_report,
    read_table,
)
from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.metrics.intervals import relative_difference

KEYS = ["pair", "fold", "seed"]
COLUMNS = [*KEYS, "method", "duration", "group", "eer"]


@dataclass(frozen=True)
class PairedReport:
    """The pooled EERs of a report, and the covariances of its speakers.

    Arguments
    ---------
    eers : pandas.DataFrame
        In percent, one row for each run (pair, fold, seed), one column for
        each method.
    covariances : dict
        Pair to its
        :class:`imlkd_brain.comparison.differences.SpeakerCovariance`, which
        has the methods' names in the report, without suffix.
    suffix : str
        What the columns add to the methods' names.
    """

    eers: pd.DataFrame
    covariances: dict
    suffix: str


def read_reports(folders):
    """Read the pooled EERs of several reports.

    Arguments
    ---------
    folders : list of str
        Report folders of ``compare.py``. What follows a colon is added to the
        names of the folder's methods.

    Returns
    -------
    list of PairedReport

    Raises
    ------
    UserError
        If a folder has no such report, or two have the same run of a method.
    """
    reports, seen = [], set()
    for given in folders:
        folder, _, suffix = given.partition(":")
        path = Path(folder, RUNS)
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; a report folder of compare.py is "
                "expected."
            )
        rows = read_table(path, COLUMNS)
        chosen = (rows["duration"] == POOLED) & (rows["group"] == ALL)
        rows = rows.loc[chosen, COLUMNS]
        rows["method"] += suffix
        for key in rows[[*KEYS, "method"]].itertuples(index=False):
            if key in seen:
                raise UserError(
                    f"{key.method}, {key.pair}, fold {key.fold}, seed "
                    f"{key.seed}: in two of the reports; leave one out, or "
                    "give it a name, FOLDER:SUFFIX."
                )
            seen.add(key)
        # Methods in the order of the report; pivot sorts them.
        eers = rows.pivot(index=KEYS, columns="method", values="eer")
        eers = eers[list(dict.fromkeys(rows["method"]))]
        kept = Path(folder, RESULTS)
        results = read_json_of_report(kept) if kept.is_file() else {}
        covariances = {
            c.pair: c for c in read_covariances(results) if c.duration == POOLED
        }
        reports.append(PairedReport(eers, covariances, suffix))
    return reports


def join_runs(reports):
    """Join the methods that all runs of the reports have.

    Arguments
    ---------
    reports : list of PairedReport
        From :func:`read_reports`.

    Returns
    -------
    pandas.DataFrame
        EER in percent, one row for each run (pair, fold, seed), one column
        for each method.
    """
    rows = pd.concat([report.eers.stack() for report in reports])
    table = rows.unstack("method").sort_index()
    methods = dict.fromkeys(name for report in reports for name in report.eers)
    return table[list(methods)].dropna(axis="columns")


def joint_covariance(reports, method, baseline):
    """Covariance that shared test speakers bring to two methods' mean EERs.

    It is the mean over the reports' runs: trainings with other seeds owe as
    much to the speakers. Reports of other speakers owe less, so the mean is
    too wide there rather than too narrow.

    Arguments
    ---------
    reports : list of PairedReport
        From :func:`read_reports`.
    method, baseline : str
        Names of two methods, with suffix.

    Returns
    -------
    dict
        ``covariance`` (2, 2) and ``degrees`` for
        :func:`imlkd_brain.metrics.intervals.relative_difference`. Empty if a
        report has one of the two methods alone, or no covariances.
    """
    found, n_runs = [], []
    for report in reports:
        here = [m for m in (method, baseline) if m in report.eers]
        if not here:
            continue
        names = [m.removesuffix(report.suffix) for m in here]
        for pair, eers in report.eers.groupby(level="pair"):
            covariance = report.covariances.get(pair)
            if len(here) < 2 or covariance is None:
                return {}
            found.append((covariance.of(*names), covariance.degrees))
            n_runs.append(len(eers))
    return {
        "covariance": np.average(
            [covariance for covariance, _ in found], axis=0, weights=n_runs
        ),
        "degrees": min(degrees for _, degrees in found),
    }


@dataclass(frozen=True)
class Paired:
    """The differences between methods over the runs of several reports.

    Arguments
    ---------
    eers : pandas.DataFrame
        From :func:`join_runs`.
    differences : list of dict
        ``method``, ``baseline`` and what
        :func:`imlkd_brain.metrics.intervals.relative_difference` returns,
        with Holm's p.
    covered : str
        What the intervals cover.
    without : set of tuple
        (method, baseline) whose intervals leave out the test speakers that
        folds share, where others have them.
    """

    eers: pd.DataFrame
    differences: list
    covered: str
    without: set


def pair_methods(reports, methods):
    """Compare methods with all others, run by run.

    Arguments
    ---------
    reports : list of PairedReport
        From :func:`read_reports`.
    methods : list of str
        Which are compared with all others.

    Returns
    -------
    Paired

    Raises
    ------
    UserError
        If a method is not among those of all runs.
    """
    table = join_runs(reports)
    for method in methods:
        if method not in table:
            raise UserError(
                f"--methods: {method!r} is not in every run of the reports; "
                f"{', '.join(table)} are."
            )
    folds = table.index.get_level_values("fold").tolist()
    differences, without = [], set()
    for name in table:
        for method in methods:
            if method == name:
                continue
            shared = joint_covariance(reports, method, name)
            if not shared:
                without.add((method, name))
            found = relative_difference(
                table[method], table[name], folds, **shared
            )
            differences.append({"method": method, "baseline": name, **found})
    mixed = 0 < len(without) < len(differences)
    return Paired(
        table,
        correct_family(differences),
        what_intervals_cover(folds, len(without) < len(differences))
        + "; * without test speakers that folds share" * mixed,
        without if mixed else set(),
    )


def pairing_table(paired, methods):
    """Tabulate each method's EER, and some methods against it.

    Arguments
    ---------
    paired : Paired
        From :func:`pair_methods`.
    methods : list of str
        Which were compared with all others.

    Returns
    -------
    str
        A sentence on the intervals, and a table in Markdown.
    """
    found = {(d["method"], d["baseline"]): d for d in paired.differences}
    head = ["", "EER", *(f"{m} to it | lower" for m in methods)]
    lines = [
        f"{len(paired.eers)} runs, intervals: {paired.covered}",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * (2 + 2 * len(methods)),
    ]
    for name, baseline in paired.eers.items():
        cells = [name, f"{baseline.mean():.2f} ± {baseline.std():.2f}"]
        for method in methods:
            d = found.get((method, name))
            mark = "*" * ((method, name) in paired.without)
            cells += [as_text(d) + mark, "" if d is None else str(d["lower"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_pairing(path, paired, methods, corpus):
    """Draw the differences, a panel a method.

    A model that a method is more than 100 % above, as a large teacher, would
    take the axis for itself. It is in the table only.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    paired : Paired
        From :func:`pair_methods`.
    methods : list of str
        Which were compared with all others.
    corpus : str or None
        Of the test trials, for the title.
    """
    runs = paired.eers.reset_index()[["seed"]].to_dict("records")
    far = {d["baseline"] for d in paired.differences if d["relative"] > 100}
    paired_intervals(
        path,
        paired.differences,
        methods,
        [name for name in paired.eers if name not in {*methods, *far}],
        f"{what_is_compared(runs, corpus)}\n95 % intervals {paired.covered}",
    )


def main(arguments=None):
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m imlkd_brain.comparison.pairing",
        description="Pair the runs of several reports of compare.py: pooled "
        "EER in %, relative differences in % with 95 % intervals, p and p "
        "with Holm's correction for all comparisons of the table, and the "
        "number of runs in which a method is lower.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER[:SUFFIX]")
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--figure", metavar="PNG", help="draw them, too")
    parser.add_argument("--corpus", metavar="NAME", help="for the figure")
    given = parser.parse_args(arguments)
    if given.figure:
        require_matplotlib()
    paired = pair_methods(read_reports(given.folders), given.methods)
    print(pairing_table(paired, given.methods))
    if given.figure:
        draw_pairing(given.figure, paired, given.methods, given.corpus)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
