"""Tables of ``explain.py``: rows with confidence intervals over speakers.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.data.crops import duration_name
from imlkd_brain.explanation.agreement import (
    AGREEMENT,
    agreement,
    rank_correlation,
    ranked,
)
from imlkd_brain.explanation.perturbation import area_under_curve
from imlkd_brain.explanation.tasks import TEACHER, seeded
from imlkd_brain.files import without_nan, write_csv, write_json
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
    replicated_means,
)
from imlkd_brain.metrics.intervals import percentile_interval

TABLES = ("areas", "curves", "fidelity", "context", "completeness", "sanity")


class Speakers:
    """The speakers of a task and their bootstrap replicates.

    Every quantity of a task is measured on the same replicates, so that
    differences are paired. Where the speakers are not known the ends of all
    intervals are NaN.
    """

    def __init__(self, task, hparams):
        everyone = [*task.utterances, *task.enrolments]
        names = sorted({utterance.speaker for utterance in everyone})
        index = {name: i for i, name in enumerate(names)}
        self.names = names
        self.of_utterance = torch.tensor(
            [index[u.speaker] for u in task.utterances]
        )
        self.of_enrolment = torch.tensor(
            [index[u.speaker] for u in task.enrolments], dtype=torch.long
        )
        self.counts = bootstrap_counts(
            len(names),
            hparams["n_bootstrap"],
            seeded(hparams["seed"], "bootstrap", task.name),
        )
        self.confidence = hparams["confidence"]
        self.known = not task.doubt and len(names) > 1
        if task.trials:
            trials = torch.tensor(task.trials)
            self.labels = trials[:, 2].bool()
            self.enrol = self.of_enrolment[trials[:, 0]]
            self.test = self.of_utterance[trials[:, 1]]

    def mean(self, values):
        """Mean (...) over utterances (N, ...) and its replicates (R, ...)."""
        return replicated_means(values, self.of_utterance, self.counts)

    def eer(self, scores):
        """EER (L,) of trial scores (K, L) and its replicates (R, L)."""
        once = torch.ones_like(self.counts[:1])
        counts = torch.cat((once, self.counts))
        rates = torch.stack(
            [
                bootstrap_over_speakers(
                    level, self.labels, self.enrol, self.test, counts
                )[0]
                for level in scores.unbind(1)
            ],
            dim=1,
        )
        return rates[0], rates[1:]

    def interval(self, replicates):
        """Ends of the confidence interval of replicates (R, ...)."""
        if not self.known:
            replicates = torch.full_like(replicates, torch.nan)
        return percentile_interval(replicates, self.confidence)

    def row(self, mean, replicates, prefix=""):
        """A mean and its interval as entries of a table's row."""
        low, high = self.interval(replicates)
        return {
            f"{prefix}mean": float(mean),
            f"{prefix}low": float(low),
            f"{prefix}high": float(high),
        }


def curve_tables(task, duration, name, curves_of, hparams, speakers):
    """Curves and their areas, of all methods of one model.

    Returns
    -------
    areas, points : list of dict
        Rows of areas.csv and of curves.csv.
    panels : dict
        From (unit, baseline) to what ``plot_curves`` takes.
    """
    levels = torch.linspace(0, 1, hparams["n_levels"]).double()
    areas, points, panels, drawn = [], [], {}, {}
    # The random control first: the others are compared with it.
    for method in sorted(curves_of, key=lambda method: method != "random"):
        for condition, values in curves_of[method].items():
            unit, direction, kind, metric = condition.split("/")
            if metric == "trials":
                metric = "eer"
                mean, replicates = speakers.eer(values)
            else:
                mean, replicates = speakers.mean(values)
            low, high = speakers.interval(replicates)
            where = {
                "task": task.name,
                "duration": duration,
                "model": name,
                "method": method,
                "unit": unit,
                "direction": direction,
                "baseline": kind,
                "metric": metric,
            }
            area = area_under_curve(mean, levels)
            drawn[condition, method] = area_under_curve(replicates, levels)
            row = {**where, **speakers.row(area, drawn[condition, method])}
            if (condition, "random") in drawn and method != "random":
                control = next(
                    r
                    for r in areas
                    if r["method"] == "random"
                    and all(
                        r[k] == where[k]
                        for k in ("unit", "direction", "baseline", "metric")
                    )
                )
                row.update(
                    speakers.row(
                        area - control["mean"],
                        drawn[condition, method] - drawn[condition, "random"],
                        "less_random_",
                    )
                )
            areas.append(row)
            points += [
                {**where, "level": level, "mean": m, "low": lo, "high": hi}
                for level, m, lo, hi in zip(
                    levels.tolist(),
                    mean.tolist(),
                    low.tolist(),
                    high.tolist(),
                    strict=True,
                )
            ]
            place = panels.setdefault((unit, kind), {})
            place = place.setdefault(direction, {}).setdefault(metric, {})
            place[method] = (levels, mean, low, high)
    return areas, points, panels


def fidelity_table(task, maps, hparams, speakers):
    """How like the teacher's a student's maps are, per duration and method."""
    students = [name for name in maps if name != TEACHER]
    rows = []
    for method in hparams["methods"]:
        values = {}
        for duration in hparams["durations"]:
            ranks = {
                name: [
                    ranked(attribution, hparams["top_share"])
                    for attribution in maps[name][duration]["maps"][method]
                ]
                for name in maps
            }
            for student in students:
                pairs = zip(ranks[student], ranks[TEACHER], strict=True)
                values[student, duration] = torch.stack(
                    [agreement(one, other) for one, other in pairs]
                )
        for student in students:
            values[student, "all"] = torch.stack(
                [values[student, d] for d in hparams["durations"]]
            ).mean(0)
        drawn = {key: speakers.mean(value) for key, value in values.items()}
        for (student, duration), (mean, replicates) in drawn.items():
            row = {
                "task": task.name,
                "method": method,
                "student": student,
                "duration": duration,
            }
            reference = drawn.get((hparams["reference_student"], duration))
            for i, quantity in enumerate(AGREEMENT):
                prefix = f"{quantity}_"
                row.update(speakers.row(mean[i], replicates[:, i], prefix))
                if reference and student != hparams["reference_student"]:
                    row.update(
                        speakers.row(
                            mean[i] - reference[0][i],
                            replicates[:, i] - reference[1][:, i],
                            f"{prefix}less_reference_",
                        )
                    )
            rows.append(row)
    return rows


def context_table(task, maps, hparams, speakers):
    """How far a model's map of a crop is its full-length map of that crop."""
    rows = []
    if "full" not in hparams["durations"]:
        return rows
    for name, of_duration in maps.items():
        whole = of_duration["full"]
        for duration in hparams["durations"]:
            if duration == "full":
                continue
            part = of_duration[duration]
            for method in hparams["methods"]:
                values = []
                for i, short in enumerate(part["maps"][method]):
                    long = whole["maps"][method][i]
                    start, stop = whole["places"][i]
                    rate = (len(long) - 1) / (stop - start)
                    first = round(part["places"][i][0] * rate)
                    same = long[first : first + len(short)]
                    n_frames = min(len(same), len(short))
                    values.append(
                        rank_correlation(
                            short[None, :n_frames], same[None, :n_frames]
                        )[0]
                    )
                mean, replicates = speakers.mean(torch.stack(values))
                rows.append(
                    {
                        "task": task.name,
                        "model": name,
                        "method": method,
                        "duration": duration,
                        **speakers.row(mean, replicates),
                    }
                )
    return rows


def completeness_table(task, maps, speakers):
    """The completeness gap of Integrated Gradients, per model and duration."""
    rows = []
    for name, of_duration in maps.items():
        for duration, kept in of_duration.items():
            if kept["gap"].isnan().any():
                continue
            difference = (kept["clean"] - kept["empty"]).double()
            gap = kept["gap"].double()
            rows.append(
                {
                    "task": task.name,
                    "model": name,
                    "duration": duration,
                    "score": float(kept["clean"].mean()),
                    "score_of_baseline": float(kept["empty"].mean()),
                    "mean_absolute_gap": float(gap.abs().mean()),
                    "largest_absolute_gap": float(gap.abs().max()),
                    "relative_gap": float(
                        gap.abs().sum() / difference.abs().sum()
                    ),
                }
            )
    return rows


def sanity_table(task, name, similarity, speakers):
    """Rank correlation with the intact network's maps, step by step."""
    rows = []
    for key, values in similarity.items():
        method, step = key.split("/")
        chosen = speakers.of_utterance[: len(values)]
        mean, replicates = replicated_means(values, chosen, speakers.counts)
        if len(chosen.unique()) < 2:
            # One speaker drawn again and again spreads over nothing.
            replicates = torch.full_like(replicates, torch.nan)
        rows.append(
            {
                "task": task.name,
                "model": name,
                "method": method,
                "shuffled_down_to": step,
                **speakers.row(mean, replicates),
            }
        )
    return rows


def summary(results, hparams):
    """The two tables that are printed at the end."""
    method = next(iter(hparams["methods"]))
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
    lines += ["", "Area under the teacher's curves over bins (baseline zero)"]
    lines.append(
        f"{'method':22s}{'metric':11s}{'deletion':>10s}{'insertion':>10s}"
    )
    areas = {
        (r["method"], r["metric"], r["direction"]): r["mean"]
        for r in results["areas"]
        if r["model"] == TEACHER
        and r["unit"] == hparams["units"][0]
        and r["baseline"] == "zero"
        and r["duration"] == results["areas"][0]["duration"]
    }
    for metric in ("posterior", "top1", "score", "eer"):
        for name in hparams["methods"]:
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
    """results.json and one CSV a table."""
    for table in TABLES:
        write_csv(folder / f"{table}.csv", results[table])
    # The points of the curves are in curves.csv only.
    kept = {key: value for key, value in results.items() if key != "curves"}
    write_json(folder / "results.json", without_nan(kept), allow_nan=False)
