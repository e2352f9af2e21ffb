"""Writes a verification run: results.json, table.txt and score files.

Authors: IML-KD contributors
"""

from pathlib import Path

from tabulate import tabulate

from imlkd_brain.data.trials import ALL
from imlkd_brain.files import replacing, write_json
from imlkd_brain.verification.measures import CONVENTIONS, MACS_SECONDS


def write_results(path, lists, models, sizes, rows, **about):
    """Write ``results.json``: every figure, with its convention.

    Arguments
    ---------
    path : str or Path
        Where to.
    lists : list of LocatedTrials
        The lists.
    models : dict
        Models by name.
    sizes : dict
        Parameters and MACs of each model.
    rows : list of dict
        Rows of :func:`imlkd_brain.verification.measures.measure`.
    **about
        More entries, such as the seed and the options; they come first.
    """
    write_json(
        path,
        {
            **about,
            "conventions": CONVENTIONS,
            "models": {
                name: {
                    "source": model.source,
                    "key": model.key,
                    "parameters": sizes[name][0],
                    "macs": sizes[name][1],
                }
                for name, model in models.items()
            },
            "lists": {
                located.trials.name: {
                    "path": located.trials.path,
                    "trials": len(located.pairs),
                    "utterances": len(located.trials.utterances),
                    "speakers": len(located.speakers),
                    "speakers_not_known": located.doubt or None,
                }
                for located in lists
            },
            "results": rows,
        },
    )


def format_tables(rows, sizes, p_target, warnings=None):
    """Format results as text: for each list a table, and one of its groups.

    Arguments
    ---------
    rows : list of dict
        Rows of :func:`imlkd_brain.verification.measures.measure`.
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
    parts, warnings = [], warnings or {}
    for name in dict.fromkeys(row["list"] for row in rows):
        inside = [row for row in rows if row["list"] == name]
        overall = [row for row in inside if row["group"] == ALL]
        parts += [
            f"{name}: {overall[0]['trials']} trials, "
            f"{overall[0]['targets']} of them target",
            _aligned([_cells(row, sizes, p_target) for row in overall]),
        ]
        if len(inside) > len(overall):
            parts += [
                "EER % within each group of speakers",
                _aligned(_group_cells(inside)),
            ]
        if warnings.get(name):
            parts.append(warnings[name])
    return "\n\n".join(parts) + "\n"


def _cells(row, sizes, p_target):
    """Cells of the figures over all trials, by the column's header."""
    parameters, macs = sizes[row["model"]]
    interval = "-"
    if "eer_low" in row:
        interval = f"{_percent(row['eer_low'])} to {_percent(row['eer_high'])}"
    cells = {
        "model": row["model"],
        "params": f"{parameters / 1e6:.2f} M",
        f"MACs ({MACS_SECONDS:g} s)": f"{macs / 1e9:.3f} G",
        "test speech": row["duration"],
        "EER %": _percent(row["eer"]),
        "95 % over speakers": interval,
        "threshold": f"{row['eer_threshold']:.3f}",
        f"minDCF ({p_target:g})": f"{row[f'min_dcf_{p_target:g}']:.3f}",
        "min Cllr": f"{row['min_cllr']:.3f}",
    }
    if "cllr" in row:
        actual = row[f"actual_dcf_{p_target:g}"]
        cells["Cllr"] = f"{row['cllr']:.3f}"
        cells[f"actDCF ({p_target:g})"] = f"{actual:.3f}"
    return cells


def _group_cells(rows):
    """Cells of the EERs within groups, a row for each model and duration."""
    lines = {}
    for row in rows:
        where = row["model"], row["duration"]
        cells = lines.setdefault(
            where, {"model": where[0], "test speech": where[1]}
        )
        if row["group"] != ALL:
            cells[row["group"]] = _percent(row["eer"])
    return list(lines.values())


def _percent(rate):
    """A rate in percent, two decimals."""
    return f"{100 * rate:.2f}"


def _aligned(rows):
    """A table of text cells in columns of one width."""
    return tabulate(
        rows, headers="keys", tablefmt="simple", disable_numparse=True
    )


def write_scores(output_folder, scored):
    """Write ``scores.txt`` and a file for each list, model and duration.

    ``scores.txt`` has one line a trial: list, enrolment, test, label and the
    score of every model at every duration, named in the first line.
    ``scores/<list>/<model>/<duration>.txt`` has SpeechBrain's lines ``enrol
    test label score``, and the log-likelihood ratio where there is one.

    Arguments
    ---------
    output_folder : str or Path
        Where to.
    scored : list of Scored
        The scores, each list by the same models at the same durations.
    """
    output_folder = Path(output_folder)
    of_list = {}
    for one in scored:
        of_list.setdefault(one.list_name, []).append(one)
    with replacing(output_folder / "scores.txt") as stream:
        columns = " ".join(
            f"{one_word(one.model)}@{duration}"
            for one in next(iter(of_list.values()))
            for duration in one.scores
        )
        stream.write(f"list enrol test label {columns}\n")
        for name, models in of_list.items():
            columns = [v for one in models for v in one.scores.values()]
            for line in _trial_lines(models[0].located.trials, columns):
                stream.write(f"{one_word(name)} {line}")
    for one in scored:
        folder = output_folder / "scores" / one_word(one.list_name)
        folder = folder / one_word(one.model)
        folder.mkdir(parents=True, exist_ok=True)
        for duration, values in one.scores.items():
            columns = [values]
            if one.ratios:
                columns.append(one.ratios[duration])
            with replacing(folder / f"{duration}.txt") as stream:
                stream.writelines(_trial_lines(one.located.trials, columns))


def _trial_lines(trials, columns):
    """Lines ``enrol test label score ...``, one a trial."""
    values = zip(*(column.tolist() for column in columns), strict=True)
    for enrol, test, label, cells in zip(
        trials.enrol, trials.test, trials.labels.tolist(), values, strict=True
    ):
        line = " ".join(f"{cell:.6f}" for cell in cells)
        yield f"{enrol} {test} {int(label)} {line}\n"


def one_word(name):
    """A name as one column and one path component."""
    return "_".join(name.replace("/", " ").split())
