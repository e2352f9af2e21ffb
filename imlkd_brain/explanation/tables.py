"""Tables of ``explain.py``: rows with confidence intervals over speakers.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.distillation.front_end import at_frames
from imlkd_brain.explanation.agreement import (
    AGREEMENT,
    RankedMap,
    agreement,
    rank_correlation,
)
from imlkd_brain.explanation.scores import TEACHER
from imlkd_brain.explanation.tasks import seeded
from imlkd_brain.metrics.bootstrap import (
    bootstrap_counts,
    bootstrap_over_speakers,
    replicated_means,
)
from imlkd_brain.metrics.intervals import percentile_interval

TABLES = ("areas", "curves", "fidelity", "context", "completeness", "sanity")


class Speakers:
    """The speakers of a task and their bootstrap replicates.

    Every quantity of a task is measured on the same replicates, so differences
    are paired. Where the speakers are not known, the ends of all intervals are
    NaN.

    Arguments
    ---------
    task : Task
        Utterances, enrolments and trials.
    n_bootstrap : int
        Number of replicates R.
    confidence : float
        Share of the replicates inside an interval.
    seed : int
        Of the replicates.
    """

    def __init__(self, task, n_bootstrap, confidence, seed):
        everyone = [*task.utterances, *task.enrolments]
        names = sorted({utterance.speaker for utterance in everyone})
        index = {name: i for i, name in enumerate(names)}
        self.of_utterance = torch.tensor(
            [index[u.speaker] for u in task.utterances]
        )
        generator = seeded(seed, "bootstrap", task.name)
        self.counts = bootstrap_counts(len(names), n_bootstrap, generator)
        self.confidence = confidence
        self.known = not task.doubt and len(names) > 1
        if task.trials:
            of_enrolment = torch.tensor(
                [index[u.speaker] for u in task.enrolments]
            )
            trials = torch.tensor(task.trials)
            self.labels = trials[:, 2].bool()
            self.enrol = of_enrolment[trials[:, 0]]
            self.test = self.of_utterance[trials[:, 1]]

    def mean(self, values):
        """Mean (...) over the utterances (N, ...), and replicates (R, ...).

        The values may be those of the first utterances only.
        """
        chosen = self.of_utterance[: len(values)]
        return replicated_means(values, chosen, self.counts)

    def eer(self, scores):
        """EER (L,) of the trials' scores (K, L), and replicates (R, L)."""
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


def tabulate(explanation, speakers, top_share, reference):
    """Make the rows of all tables from what was computed for a task.

    Arguments
    ---------
    explanation : Explanation
        Maps, curves and sanity checks.
    speakers : Speakers
        Of the task.
    top_share : float
        Share of the bins that the overlap compares.
    reference : str or None
        The student from which the others' differences are reported.

    Returns
    -------
    tables : dict of str to list of dict
        Rows of each of :data:`TABLES`.
    """
    task, maps = explanation.task, explanation.maps
    tables = {table: [] for table in TABLES}
    for duration, curves in explanation.curves.items():
        for name, curves_of in curves.items():
            where = {"task": task.name, "duration": duration, "model": name}
            areas, points = curve_tables(where, curves_of, speakers)
            tables["areas"] += areas
            tables["curves"] += points
    tables["fidelity"] = fidelity_table(
        task, maps, top_share, reference, speakers
    )
    tables["context"] = context_table(task, maps, speakers)
    tables["completeness"] = completeness_table(task, maps)
    for name, similarities in explanation.similarities.items():
        tables["sanity"] += sanity_table(task, name, similarities, speakers)
    return tables


def curve_tables(where, curves_of, speakers):
    """Tabulate the curves of one model and their areas.

    The area of a curve with values in [0, 1] is its mean over the levels, by
    the trapezoid rule.

    Arguments
    ---------
    where : dict
        Entries of every row: ``task``, ``duration`` and ``model``.
    curves_of : dict of str to list of Curve
        By method.
    speakers : Speakers
        Of the task.

    Returns
    -------
    areas, points : list of dict
        Rows of areas.csv and curves.csv.
    """
    areas, points, control = [], [], {}
    # The random control first: the others are compared with it.
    for method in sorted(curves_of, key=lambda method: method != "random"):
        for curve in curves_of[method]:
            average = speakers.eer if curve.metric == "eer" else speakers.mean
            mean, replicates = average(curve.values)
            low, high = speakers.interval(replicates)
            levels = torch.linspace(0, 1, len(mean)).double()
            area = torch.trapezoid(mean, levels)
            drawn = torch.trapezoid(replicates, levels)
            condition = curve.condition
            key = tuple(condition.values())
            row = {**where, "method": method, **condition}
            if method == "random":
                control[key] = area, drawn
            less = control.get(key) if method != "random" else None
            areas.append({**row, **speakers.row(area, drawn)})
            if less:
                areas[-1].update(
                    speakers.row(
                        area - less[0], drawn - less[1], "less_random_"
                    )
                )
            points += [
                {**row, "level": level, "mean": m, "low": lo, "high": hi}
                for level, m, lo, hi in zip(
                    levels.tolist(),
                    mean.tolist(),
                    low.tolist(),
                    high.tolist(),
                    strict=True,
                )
            ]
    return areas, points


def fidelity_table(task, maps, top_share, reference, speakers):
    """Tabulate how well the students' maps agree with the teacher's.

    Arguments
    ---------
    task : Task
        The utterances.
    maps : dict
        ``maps[name][duration]`` is a :class:`MapSet`.
    top_share : float
        Share of the bins that the overlap compares.
    reference : str or None
        The student from which the others' differences are reported.
    speakers : Speakers
        Of the task.

    Returns
    -------
    rows : list of dict
        A row for each method, student and duration, and for all durations.
    """
    students = [name for name in maps if name != TEACHER]
    durations = list(maps[TEACHER])
    rows = []
    for method in maps[TEACHER][durations[0]].maps:
        values = {}
        for duration in durations:
            teacher = maps[TEACHER][duration]
            ranked = {}  # the teacher's maps, once for all students alike
            for student in students:
                own = maps[student][duration]
                frames = own.frame_rate, *map(len, own.maps[method])
                if frames not in ranked:
                    ranked[frames] = [
                        RankedMap.of(attribution, top_share)
                        for attribution in teacher_maps(own, teacher, method)
                    ]
                pairs = zip(own.maps[method], ranked[frames], strict=True)
                values[student, duration] = torch.stack(
                    [
                        agreement(RankedMap.of(one, top_share), other)
                        for one, other in pairs
                    ]
                )
        for student in students:
            values[student, "all"] = torch.stack(
                [values[student, duration] for duration in durations]
            ).mean(0)
        drawn = {key: speakers.mean(value) for key, value in values.items()}
        for (student, duration), (mean, replicates) in drawn.items():
            row = {
                "task": task.name,
                "method": method,
                "student": student,
                "duration": duration,
            }
            less = drawn.get((reference, duration))
            for i, quantity in enumerate(AGREEMENT):
                prefix = f"{quantity}_"
                row.update(speakers.row(mean[i], replicates[:, i], prefix))
                if less and student != reference:
                    row.update(
                        speakers.row(
                            mean[i] - less[0][i],
                            replicates[:, i] - less[1][:, i],
                            f"{prefix}less_reference_",
                        )
                    )
            rows.append(row)
    return rows


def teacher_maps(student, teacher, method):
    """Return the maps of a teacher in the frames of its student.

    A teacher with another window has other frames of the same signal. Its
    maps are interpolated in time at the student's frames, and mel bands are
    compared one by one.

    Arguments
    ---------
    student, teacher : MapSet
        Maps of the same crops.
    method : str
        The saliency method.

    Returns
    -------
    list of torch.Tensor
        The teacher's map of each utterance, (T, F).
    """
    pairs = zip(student.maps[method], teacher.maps[method], strict=True)
    rates = teacher.frame_rate, student.frame_rate
    return [
        other
        if len(one) == len(other)
        else at_frames(other.T, len(one), *rates).T
        for one, other in pairs
    ]


def context_table(task, maps, speakers):
    """Tabulate how well maps of crops agree with maps of whole utterances.

    Arguments
    ---------
    task : Task
        The utterances.
    maps : dict
        ``maps[name][duration]`` is a :class:`MapSet`.
    speakers : Speakers
        Of the task.

    Returns
    -------
    rows : list of dict
        A row for each model, crop and method; none without full length.
    """
    rows = []
    for name, of_duration in maps.items():
        whole = of_duration.get("full")
        for duration, part in of_duration.items():
            if whole is None or part is whole:
                continue
            for method in part.maps:
                values = torch.stack(
                    [
                        same_frames(whole, part, method, i)
                        for i in range(len(part.places))
                    ]
                )
                rows.append(
                    {
                        "task": task.name,
                        "model": name,
                        "method": method,
                        "duration": duration,
                        **speakers.row(*speakers.mean(values)),
                    }
                )
    return rows


def same_frames(whole, part, method, index):
    """Correlate the map of a crop with the same frames of the whole map."""
    long = whole.maps[method][index]
    short = part.maps[method][index]
    start, stop = whole.places[index]
    rate = (len(long) - 1) / (stop - start)
    first = round(part.places[index][0] * rate)
    same = long[first : first + len(short)]
    n_frames = min(len(same), len(short))
    return rank_correlation(short[None, :n_frames], same[None, :n_frames])[0]


def completeness_table(task, maps):
    """Tabulate the completeness gap of Integrated Gradients.

    Arguments
    ---------
    task : Task
        The utterances.
    maps : dict
        ``maps[name][duration]`` is a :class:`MapSet`.

    Returns
    -------
    rows : list of dict
        A row for each model and duration; none without Integrated Gradients.
    """
    rows = []
    for name, of_duration in maps.items():
        for duration, kept in of_duration.items():
            if kept.gap.isnan().any():
                continue
            difference = (kept.clean - kept.empty).double().abs()
            gap = kept.gap.double().abs()
            rows.append(
                {
                    "task": task.name,
                    "model": name,
                    "duration": duration,
                    "score": float(kept.clean.mean()),
                    "score_of_baseline": float(kept.empty.mean()),
                    "mean_absolute_gap": float(gap.mean()),
                    "largest_absolute_gap": float(gap.max()),
                    "relative_gap": float(gap.sum() / difference.sum()),
                }
            )
    return rows


def sanity_table(task, name, similarities, speakers):
    """Tabulate the rank correlation with the intact network's maps.

    Arguments
    ---------
    task : Task
        The utterances.
    name : str
        Of the model.
    similarities : list of Similarity
        The steps of each method.
    speakers : Speakers
        Of the task.

    Returns
    -------
    rows : list of dict
        A row for each method and step.
    """
    rows = []
    for similarity in similarities:
        mean, replicates = speakers.mean(similarity.values)
        chosen = speakers.of_utterance[: len(similarity.values)]
        if len(chosen.unique()) < 2:
            # Replicates of a single speaker are all the same.
            replicates = torch.full_like(replicates, torch.nan)
        rows.append(
            {
                "task": task.name,
                "model": name,
                "method": similarity.method,
                "shuffled_down_to": similarity.step,
                **speakers.row(mean, replicates),
            }
        )
    return rows
