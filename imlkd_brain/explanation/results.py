"""What ``explain.py`` prints and writes.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.data.crops import duration_name
from imlkd_brain.explanation.scores import TEACHER
from imlkd_brain.explanation.tables import TABLES
from imlkd_brain.files import without_nan, write_csv, write_json


def describe(tasks, models):
    """Describe tasks and models for results.json.

    Arguments
    ---------
    tasks : list of Task
        With the utterances that were chosen.
    models : dict of str to SpeakerModel
        The models by name.

    Returns
    -------
    description : dict
    """
    return {
        "models": {
            name: {
                "source": model.source,
                "key": model.key,
                "parameters": sum(
                    p.numel() for p in model.embedding_model.parameters()
                ),
            }
            for name, model in models.items()
        },
        "utterances": {
            task.name: [utterance.key for utterance in task.utterances]
            for task in tasks
        },
        "trials": {task.name: len(task.trials) for task in tasks},
        "speakers_not_known": {
            task.name: task.doubt for task in tasks if task.doubt
        },
    }


def summary(results):
    """Format the two tables that are printed at the end.

    Arguments
    ---------
    results : dict
        As :func:`write_results` takes it.

    Returns
    -------
    str
    """
    methods = results["options"]["methods"]
    method = next(iter(methods))
    lines = ["", f"Students' maps against the teacher's ({method})"]
    lines.append(
        f"{'task':15s}{'student':18s}{'duration':>9s}{'rank corr.':>24s}"
        f"{'top overlap':>12s}{'time corr.':>12s}"
    )
    for row in results["fidelity"]:
        if row["method"] == method:
            span = (
                f"{row['rank_correlation_mean']:.3f} "
                f"[{row['rank_correlation_low']:.3f}, "
                f"{row['rank_correlation_high']:.3f}]"
            )
            lines.append(
                f"{row['task']:15s}{row['student']:18s}"
                f"{duration_name(row['duration']):>9s}{span:>24s}"
                f"{row['top_overlap_mean']:12.3f}"
                f"{row['time_correlation_mean']:12.3f}"
            )
    if not results["areas"]:
        return "\n".join(lines)
    unit = results["options"]["units"][0]
    lines += [
        "",
        f"Area under the teacher's curves over {unit} (baseline zero)",
    ]
    lines.append(
        f"{'method':22s}{'metric':11s}{'deletion':>10s}{'insertion':>10s}"
    )
    areas = {
        (r["method"], r["metric"], r["direction"]): r["mean"]
        for r in results["areas"]
        if r["model"] == TEACHER
        and r["unit"] == unit
        and r["baseline"] == "zero"
        and r["duration"] == results["areas"][0]["duration"]
    }
    for metric in ("posterior", "top1", "score", "eer"):
        for name in methods:
            pair = [
                areas.get((name, metric, direction), torch.nan)
                for direction in ("deletion", "insertion")
            ]
            if (name, metric, "deletion") in areas:
                lines.append(
                    f"{name:22s}{metric:11s}{pair[0]:10.3f}{pair[1]:10.3f}"
                )
    return "\n".join(lines)


def write_results(results, folder):
    """Write results.json, and a CSV for each of :data:`TABLES`.

    Arguments
    ---------
    results : dict
        The rows of each table, and what else belongs into results.json.
    folder : Path
        Where to.
    """
    for table in TABLES:
        write_csv(folder / f"{table}.csv", results[table])
    # The points of the curves are in curves.csv only.
    kept = {key: value for key, value in results.items() if key != "curves"}
    write_json(folder / "results.json", without_nan(kept), allow_nan=False)
