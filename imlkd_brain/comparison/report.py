"""The report of a comparison: its tables, CSVs and figures on disk.

Authors: IML-KD contributors
"""

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from imlkd_brain.comparison.differences import (
    MEAN,
    SpeakerCovariance,
    relative_differences,
    speaker_covariances,
    summarise,
    what_intervals_cover,
)
from imlkd_brain.comparison.figures import (
    difference_intervals,
    method_dots,
    training_curves,
)
from imlkd_brain.comparison.tables import (
    difference_table,
    group_table,
    read_json_of_report,
    read_table,
    summary_table,
)
from imlkd_brain.comparison.trainings import TEACHER
from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.files import write_json, write_whole
from imlkd_brain.models.folder import STATS_FILE, load_speaker_model
from imlkd_brain.models.size import model_size

RUNS, CURVES, RESULTS, TABLE = (
    "runs.csv",
    "curves.csv",
    "results.json",
    "table.md",
)


@dataclass(frozen=True)
class About:
    """What a report says of itself, at the head of ``results.json``.

    Arguments
    ---------
    date, machine, command : str
        When, where and how it was made.
    runs : list of dict
        ``fold`` and ``seed`` of each run.
    baselines : list of str
        Methods that the others are compared with.
    sizes : dict
        From :func:`model_sizes`.
    corpus : str
        Of the test trials, for the titles of figures.
    """

    date: str
    machine: str
    command: str
    runs: list
    baselines: list
    sizes: dict
    corpus: str


def read_curves(runs, methods):
    """Read the dev EER of every training, epoch by epoch.

    Arguments
    ---------
    runs : list of imlkd_brain.comparison.plan.Run
        Their students are trained.
    methods : list of str
        Names of the students.

    Returns
    -------
    curves : pandas.DataFrame
        Columns pair, fold, seed, method, epoch, updates, minutes, eer
        (percent, mean of the validation durations).

    Raises
    ------
    UserError
        If a training has no statistics.
    """
    tables = []
    for run in runs:
        for method in methods:
            folder = run.folder / method
            path = folder / STATS_FILE
            if not path.is_file():
                raise UserError(
                    f"{path}: missing; delete {folder} and run again."
                )
            stats = read_table(
                path, ("epoch", "updates", "train seconds", "valid EER")
            )
            tables.append(
                pd.DataFrame(
                    {
                        **run.columns,
                        "method": method,
                        "epoch": stats["epoch"],
                        "updates": stats["updates"],
                        "minutes": stats["train seconds"].cumsum() / 60,
                        "eer": stats["valid EER"],
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def model_sizes(runs, methods):
    """Count parameters and MACs of each model of each pair.

    Arguments
    ---------
    runs : list of imlkd_brain.comparison.plan.Run
        The models of a pair's first run are counted.
    methods : list of str
        Names of the models.

    Returns
    -------
    dict
        ``{pair: {method: {"parameters": int, "macs": int}}}``, MACs for 3 s.
    """
    first = {}
    for run in runs:
        first.setdefault(run.pair, run)
    return {
        pair: {
            name: dict(
                zip(
                    ("parameters", "macs"),
                    model_size(load_speaker_model(run.source(name))),
                    strict=True,
                )
            )
            for name in methods
        }
        for pair, run in first.items()
    }


def write_report(folder, about, rows, draws, curves, plots=False):
    """Write what a comparison found: tables, CSVs, JSON and figures.

    Arguments
    ---------
    folder : str or Path
        The report folder.
    about : About
        The head of the results.
    rows, draws
        See :func:`imlkd_brain.comparison.scores.collect_runs`.
    curves : pandas.DataFrame
        See :func:`read_curves`.
    plots : bool
        Whether to draw figures.

    Returns
    -------
    text : str
        The tables, in Markdown, as written to ``table.md``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / RUNS, index=False, float_format="%.6g")
    curves.to_csv(folder / CURVES, index=False, float_format="%.6g")
    summary = summarise(rows)
    results = {
        **asdict(about),
        "summary": [
            {
                "pair": pair,
                "group": group,
                "method": method,
                "figure": figure,
                "duration": duration,
                "mean": values["mean"],
                # JSON has no NaN: one run has no spread.
                "std": None if math.isnan(values["std"]) else values["std"],
            }
            for (pair, group, method), row in summary.iterrows()
            for (figure, duration), values in row.groupby(level=[0, 1])
            for values in [values.droplevel([0, 1]).to_dict()]
        ],
        "speakers": [asdict(c) for c in speaker_covariances(draws)],
    }
    return _write_differences(
        folder, rows, curves, results, folder if plots else None
    )


def rewrite_report(folder, figures=None, corpus=None):
    """Write a report's differences, tables and figures anew.

    Arguments
    ---------
    folder : str or Path
        A report folder, with ``runs.csv``, ``curves.csv`` and
        ``results.json``.
    figures : str or Path, optional
        Where to draw its figures; none are drawn if not given.

    Returns
    -------
    text : str
        The tables, in Markdown, as written to ``table.md``.

    Raises
    ------
    UserError
        If one of the files is missing.
    """
    folder = Path(folder)
    for name in (RUNS, CURVES, RESULTS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: no such file; a report folder of compare.py "
                "is expected."
            )
    results = read_json_of_report(folder / RESULTS)
    if "baselines" not in results:
        # Older reports do not list them. The differences of a method name all
        # baselines but itself.
        named = {}
        for d in results["differences"]:
            others = named.setdefault(d["method"], [])
            others += [d["baseline"]] * (d["baseline"] not in others)
        results["baselines"] = max(reversed(named.values()), key=len)
    if corpus:
        results["corpus"] = corpus
    return _write_differences(
        folder,
        read_table(folder / RUNS, ("pair", "method", "duration", "eer")),
        read_table(folder / CURVES, ("method", "epoch", "eer")),
        results,
        figures,
    )


def read_covariances(results):
    """Read the speakers' covariances of a report.

    Arguments
    ---------
    results : dict
        The content of ``results.json``. Older ones have no covariances.

    Returns
    -------
    list of SpeakerCovariance
    """
    return [SpeakerCovariance(**kept) for kept in results.get("speakers", [])]


def _write_differences(folder, rows, curves, results, figures=None):
    """Write differences, tables and figures of results; return the tables."""
    baselines = results["baselines"]
    covariances = {(c.pair, c.duration): c for c in read_covariances(results)}
    folds = [run["fold"] for run in results["runs"]]
    summary = _summary_of(results)
    differences, parts = [], []
    pairs = list(dict.fromkeys(rows["pair"]))
    for pair in pairs:
        own = rows[rows["pair"] == pair]
        methods = list(dict.fromkeys(own["method"]))
        durations = list(dict.fromkeys(own["duration"]))
        columns = [*(d for d in durations if d != POOLED), MEAN, POOLED]
        sizes = {m: results["sizes"][pair][m] for m in methods}
        parts.append(summary_table(summary, pair, columns, sizes))
        of_pair = []
        for duration in (MEAN, POOLED):
            covariance = covariances.get((pair, duration))
            found = relative_differences(
                rows,
                pair,
                [method for method in methods if method != TEACHER],
                baselines,
                duration,
                covariance,
            )
            covered = what_intervals_cover(folds, covariance is not None)
            parts.append(difference_table(found, baselines, covered))
            of_pair += [
                {"pair": pair, **difference, "interval": covered}
                for difference in found
            ]
        differences += of_pair
        parts.append(group_table(summary, pair, methods))
        if figures is not None:
            end = f"_{pair}" if len(pairs) > 1 else ""
            place = Path(figures)
            place.mkdir(parents=True, exist_ok=True)
            training_curves(
                place / f"curves{end}.png", curves[curves["pair"] == pair]
            )
            method_dots(
                place / f"methods{end}.png", own[own["group"] == ALL], methods
            )
            _draw_differences(
                place / f"differences{end}.png",
                of_pair,
                methods,
                baselines,
                what_is_compared(results["runs"], results.get("corpus")),
            )
    text = "\n\n".join(parts) + "\n"
    results = {**results, "differences": differences}
    write_json(folder / RESULTS, results, indent=1)
    write_whole(folder / TABLE, text)
    return text


def _summary_of(results):
    """Read the summary of a report, as :func:`summarise` gave it.

    It is not computed from ``runs.csv``, which has six digits of each EER.
    """
    summary = pd.DataFrame(results["summary"])
    summary = summary.set_index(
        ["pair", "group", "method", "figure", "duration"]
    )[["mean", "std"]].astype(float)
    summary = summary.unstack(["figure", "duration"])
    return summary.reorder_levels([1, 2, 0], axis=1).sort_index(axis=1)


def what_is_compared(runs, corpus=None):
    """Say for a title what the error rates are of.

    Arguments
    ---------
    runs : list of dict
        With ``seed``.
    corpus : str, optional
        Of the test trials. Reports from before 2026-11-26 do not name it.

    Returns
    -------
    str

    Example
    -------
    >>> what_is_compared([{"seed": 3}, {"seed": 1}], "uqm")
    'Relative difference of the pooled EER on uqm, 2 runs (seeds 1 to 3)'
    """
    seeds = sorted(run["seed"] for run in runs)
    which = f"seeds {seeds[0]} to {seeds[-1]}"
    if seeds[0] == seeds[-1]:
        which = f"seed {seeds[0]}"
    place = f" on {corpus}" if corpus else ""
    number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"Relative difference of the pooled EER{place}, {number} ({which})"


def _draw_differences(path, differences, methods, baselines, title):
    """Draw the differences of the pooled EER of one pair."""
    pooled = [d for d in differences if d["duration"] == POOLED]
    if not pooled:
        return
    words = f"95 % intervals {pooled[0]['interval']}"
    if pooled[0]["p_value"] is None:
        words = "no intervals, as there is one run"
    difference_intervals(
        path,
        pooled,
        [method for method in methods if method != TEACHER],
        baselines,
        f"{title}\n{words}",
    )


def main(arguments=None):
    """Parse the command line and write reports anew."""
    parser = argparse.ArgumentParser(
        prog="python -m imlkd_brain.comparison.report",
        description="Write results.json and table.md of finished reports of "
        "compare.py anew from their runs.csv, curves.csv and results.json.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument(
        "--figures",
        metavar="FOLDER",
        help="draw the figures, too, in a folder of each report's name here",
    )
    parser.add_argument(
        "--corpus",
        metavar="NAME",
        help="what the test speakers are called in titles, where a report does "
        "not say it",
    )
    given = parser.parse_args(arguments)
    if given.figures:
        require_matplotlib()
    for folder in given.folders:
        figures = given.figures and Path(given.figures, Path(folder).name)
        rewrite_report(folder, figures, given.corpus)
        print(folder)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
