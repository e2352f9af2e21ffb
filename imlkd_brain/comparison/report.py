"""The report of a comparison: its tables, CSVs and figures on disk.

Authors: IML-KD contributors
"""

import argparse
import json
import math
from pathlib import Path

import pandas as pd

from imlkd_brain.comparison.differences import (
    MEAN,
    as_text,
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
from imlkd_brain.comparison.plan import TEACHER, run_folder
from imlkd_brain.data.crops import POOLED
from imlkd_brain.data.trials import ALL
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.files import write_json, write_whole
from imlkd_brain.models.folder import STATS_FILE, load_speaker_model
from imlkd_brain.models.speaker_model import model_size


def read_curves(output_folder, pairs, runs, methods):
    """Dev EER of every training, epoch by epoch.

    Returns
    -------
    curves : pandas.DataFrame
        Columns pair, fold, seed, method, epoch, updates, minutes, eer
        (percent, mean of the validation durations).

    Raises
    ------
    UserError
        If a training has left no statistics.
    """
    tables = []
    for pair in pairs:
        for run in runs:
            for method in methods:
                folder = run_folder(output_folder, pair, run) / method
                path = folder / STATS_FILE
                if not path.is_file():
                    raise UserError(
                        f"{path}: missing; delete {folder} and run again."
                    )
                stats = pd.read_csv(path)
                tables.append(
                    pd.DataFrame(
                        {
                            "pair": pair,
                            **run,
                            "method": method,
                            "epoch": stats["epoch"],
                            "updates": stats["updates"],
                            "minutes": stats["train seconds"].cumsum() / 60,
                            "eer": stats["valid EER"],
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True)


def write_report(hparams, rows, replicates, speakers, curves, about):
    """Write what a comparison found: tables, JSON and figures.

    Arguments
    ---------
    hparams : dict
        ``report_folder``, ``pairs``, ``methods``, ``runs``, ``baselines``,
        ``durations``, ``plots``, and ``output_folder`` for the models' sizes.
    rows, replicates, speakers
        See :func:`collect_runs`.
    curves : pandas.DataFrame
        See :func:`read_curves`.
    about : dict
        Date, machine and command, copied into the results.

    Returns
    -------
    text : str
        The tables, in Markdown, as written to ``table.md``.
    """
    folder = Path(hparams["report_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "runs.csv", index=False, float_format="%.6g")
    curves.to_csv(folder / "curves.csv", index=False, float_format="%.6g")
    summary = summarise(rows)
    methods = [TEACHER, *hparams["methods"]]
    folds = [run["fold"] for run in hparams["runs"]]
    results = {
        **about,
        "runs": hparams["runs"],
        "baselines": list(hparams["baselines"]),
        "sizes": _sizes(hparams, methods),
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
        "speakers": speaker_covariances(replicates, speakers, folds),
    }
    return _write_differences(folder, rows, curves, results, hparams["plots"])


def rewrite_report(folder, figures=None):
    """Write a report's differences, tables and figures anew.

    Arguments
    ---------
    folder : str or Path
        A report folder, with ``runs.csv``, ``curves.csv`` and
        ``results.json``.
    figures : str or Path, optional
        Where to draw its figures; if not given, there are none.

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
    for name in ("runs.csv", "curves.csv", "results.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: no such file; a report folder of compare.py "
                "is expected."
            )
    results = json.loads((folder / "results.json").read_text("utf-8"))
    if "baselines" not in results:
        # Older reports: a method's differences name all but itself.
        named = {}
        for d in results["differences"]:
            others = named.setdefault(d["method"], [])
            others += [d["baseline"]] * (d["baseline"] not in others)
        results["baselines"] = max(reversed(named.values()), key=len)
    return _write_differences(
        folder,
        pd.read_csv(folder / "runs.csv"),
        pd.read_csv(folder / "curves.csv"),
        results,
        figures is not None,
        figures,
    )


def _write_differences(folder, rows, curves, results, plot, figures=None):
    """Write differences, tables and figures of results; returns the tables."""
    baselines = results["baselines"]
    covariances = {
        (found["pair"], found["duration"]): found
        for found in results.get("speakers", [])
    }
    folds = [run["fold"] for run in results["runs"]]
    # As it was found: runs.csv has six digits of what it is the mean of.
    summary = pd.DataFrame(results["summary"])
    summary = summary.set_index(
        ["pair", "group", "method", "figure", "duration"]
    )[["mean", "std"]].astype(float)
    summary = summary.unstack(["figure", "duration"])
    summary = summary.reorder_levels([1, 2, 0], axis=1).sort_index(axis=1)
    differences = []
    parts = []
    pairs = list(dict.fromkeys(rows["pair"]))
    for pair in pairs:
        own = rows[rows["pair"] == pair]
        methods = list(dict.fromkeys(own["method"]))
        durations = list(dict.fromkeys(own["duration"]))
        columns = [*(d for d in durations if d != POOLED), MEAN, POOLED]
        sizes = results["sizes"][pair]
        parts.append(_table(summary, pair, methods, columns, sizes))
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
            parts.append(_difference_table(found, baselines, covered))
            differences += [
                {"pair": pair, **difference, "interval": covered}
                for difference in found
            ]
        parts.append(_group_table(summary, pair, methods))
        if plot:
            _draw(
                Path(figures or folder),
                f"_{pair}" if len(pairs) > 1 else "",
                methods,
                baselines,
                own,
                [d for d in differences if d["pair"] == pair],
                curves[curves["pair"] == pair],
            )
    text = "\n\n".join(parts) + "\n"
    results = {**results, "differences": differences}
    write_json(folder / "results.json", results, indent=1)
    write_whole(folder / "table.md", text)
    return text


def _draw(folder, end, methods, baselines, rows, differences, curves):
    """The figures of one pair; ``end`` is what their names end with."""
    folder.mkdir(parents=True, exist_ok=True)
    training_curves(folder / f"curves{end}.png", curves)
    overall = rows["group"] == ALL
    method_dots(folder / f"methods{end}.png", rows[overall], methods)
    pooled = [d for d in differences if d["duration"] == POOLED]
    if pooled:
        words = f"95 % intervals {pooled[0]['interval']}"
        if pooled[0]["p_value"] is None:
            words = "no intervals, as there is one run"
        difference_intervals(
            folder / f"differences{end}.png",
            pooled,
            [method for method in methods if method != TEACHER],
            baselines,
            f"Relative difference of the pooled EER\n{words}",
        )


def _sizes(hparams, methods):
    """Parameters and MACs of each method's model, from the first run."""
    sizes = {}
    for pair in hparams["pairs"]:
        folder = run_folder(hparams["output_folder"], pair, hparams["runs"][0])
        sizes[pair] = {
            name: dict(
                zip(
                    ("parameters", "macs"),
                    model_size(load_speaker_model(folder / name)),
                    strict=True,
                )
            )
            for name in methods
        }
    return sizes


def _table(summary, pair, methods, durations, sizes):
    """EER and minDCF of each method and duration, in Markdown."""
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
    for method in methods:
        row = summary.loc[(pair, ALL, method)]
        cells = [
            _mean_and_spread(row["eer", d, "mean"], row["eer", d, "std"])
            for d in durations
        ]
        size = sizes[method]
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


def _difference_table(differences, baselines, covered):
    """Relative differences to each baseline, in Markdown."""
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


def _group_table(summary, pair, methods):
    """EER of each method and pack, mean over durations and runs."""
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

    The lowest of all epochs is beside it: on a dozen dev speakers it is often
    that of an epoch far from done.

    Arguments
    ---------
    curves : pandas.DataFrame
        See :func:`read_curves`.

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
    given = parser.parse_args(arguments)
    if given.figures:
        require_matplotlib()
    for folder in given.folders:
        figures = given.figures and Path(given.figures, Path(folder).name)
        rewrite_report(folder, figures)
        print(folder)


if __name__ == "__main__":
    with one_sentence_errors():
        main()
