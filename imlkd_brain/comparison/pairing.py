"""Runs of several reports of ``compare.py``, paired, without their models.

Intervals and p-values are those of :mod:`imlkd_brain.metrics.intervals`, as in each
report, from the EERs of the runs alone: they are over folds and their trainings,
and over test speakers only where each fold has its own. What test speakers that
folds share add is not in them.

Example
-------
Two sets of seeds, and two rows of a third report under another name::

    python -m imlkd_brain.comparison.pairing docs/results/unseen docs/results/unseen_second \
        docs/results/eta4_unseen:_eta4 --methods iml_kd iml_kd_plus

Authors: IML-KD contributors
"""

import argparse
from pathlib import Path

import pandas as pd

from imlkd_brain.comparison.differences import as_text, correct_family
from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.metrics.intervals import relative_difference

COLUMNS = ["pair", "fold", "seed", "method", "duration", "group", "eer"]


def read_runs(folders):
    """Pooled EERs of the methods that all runs of the reports have.

    Arguments
    ---------
    folders : list of str
        Report folders of ``compare.py``; what follows a colon is added to the
        names of the folder's methods.

    Returns
    -------
    pandas.DataFrame
        EER in percent, a row a run (pair, fold, seed), a column a method.

    Raises
    ------
    UserError
        If a folder has no such report, or two have the same run of a method.
    """
    parts = []
    for given in folders:
        folder, _, suffix = given.partition(":")
        path = Path(folder, "runs.csv")
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; a report folder of compare.py is "
                "expected."
            )
        rows = pd.read_csv(path)
        missing = [name for name in COLUMNS if name not in rows]
        if missing:
            raise UserError(
                f"{path}: column {missing[0]!r} is missing; runs.csv as "
                "compare.py writes it is expected."
            )
        chosen = (rows["duration"] == POOLED) & (rows["group"] == ALL)
        rows = rows.loc[chosen, COLUMNS]
        parts.append(rows.assign(method=rows["method"] + suffix))
    rows = pd.concat(parts)
    keys = ["pair", "fold", "seed", "method"]
    twice = rows[rows.duplicated(keys)]
    if len(twice):
        pair, fold, seed, method = twice.iloc[0][keys]
        raise UserError(
            f"{method}, {pair}, fold {fold}, seed {seed}: in two of the "
            "reports; leave one out, or give it a name, FOLDER:SUFFIX."
        )
    # Methods in the order of the reports; pivot sorts them.
    table = rows.pivot(index=keys[:3], columns="method", values="eer")
    return table[list(dict.fromkeys(rows["method"]))].dropna(axis="columns")


def pairing_table(table, methods):
    """The table of a page: each method's EER, and some methods against it.

    Arguments
    ---------
    table : pandas.DataFrame
        As :func:`read_runs` returns it.
    methods : list of str
        Which are compared with all others.

    Returns
    -------
    str
        A table in Markdown.

    Raises
    ------
    UserError
        If a method is not among those of all runs.
    """
    for method in methods:
        if method not in table:
            raise UserError(
                f"--methods: {method!r} is not in every run of the reports; "
                f"{', '.join(table)} are."
            )
    folds = table.index.get_level_values("fold").tolist()
    differences = correct_family(
        [
            {
                "method": method,
                "baseline": name,
                **relative_difference(table[method], table[name], folds),
            }
            for name in table
            for method in methods
            if method != name
        ]
    )
    found = {(d["method"], d["baseline"]): d for d in differences}
    head = ["", "EER", *(f"{m} to it | lower" for m in methods)]
    lines = [
        f"| {' | '.join(head)} |",
        "|" + "---|" * (2 + 2 * len(methods)),
    ]
    for name, baseline in table.items():
        cells = [name, f"{baseline.mean():.2f} ± {baseline.std():.2f}"]
        for method in methods:
            d = found.get((method, name))
            cells += [as_text(d), "" if d is None else str(d["lower"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments=None):
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m imlkd_brain.comparison.pairing",
        description="Pair the runs of several reports of compare.py: pooled "
        "EER in %, relative differences in % with 95 % intervals over folds "
        "and trainings, p and p with Holm's correction for all comparisons of "
        "the table, and the number of runs in which a method is lower.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER[:SUFFIX]")
    parser.add_argument("--methods", nargs="+", required=True)
    given = parser.parse_args(arguments)
    table = read_runs(given.folders)
    print(f"{len(table)} runs")
    print(pairing_table(table, given.methods))


if __name__ == "__main__":
    with one_sentence_errors():
        main()
