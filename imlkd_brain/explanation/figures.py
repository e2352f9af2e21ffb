"""The figures of ``explain.py``: what is drawn, under which names.

Authors: IML-KD contributors
"""

from imlkd_brain.data.crops import duration_name
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.plots import (
    Strip,
    plot_curves,
    plot_intervals,
    plot_maps,
)
from imlkd_brain.explanation.scores import SHUFFLED, TEACHER
from imlkd_brain.figures import save_figure


def band_centres(model, n_bands):
    """Return the centre frequencies of the mel bands in Hz.

    Arguments
    ---------
    model : SpeakerModel
        The model that made the features.
    n_bands : int
        Features in a frame.

    Returns
    -------
    centres : torch.Tensor
        Shape (n_bands,).

    Raises
    ------
    UserError
        If the features are not those of a mel filterbank.
    """
    features = model.compute_features
    fbanks = getattr(features, "compute_fbanks", features)
    if not hasattr(fbanks, "f_central"):
        raise UserError(
            f"{model.source}: compute_features has no mel filterbank, so the "
            "figures have no frequency axis; use SpeechBrain's Fbank."
        )
    centres = fbanks.f_central.detach().cpu()
    if len(centres) != n_bands:
        raise UserError(
            f"{model.source}: {n_bands} features a frame, but {len(centres)} "
            "mel bands; maps need plain log-mel features."
        )
    return centres


def map_figures(explanation, utterance, methods, duration):
    """Draw the maps of one utterance: all durations, and all methods.

    Arguments
    ---------
    explanation : Explanation
        The maps of a task.
    utterance : str or None
        Key of the utterance. None: the one with the median score.
    methods : list of str
        Methods that are drawn at all durations.
    duration : float or str
        At which all methods are drawn.

    Yields
    ------
    name : str
        Of the file, without a suffix.
    figure : matplotlib.figure.Figure
    """
    task, maps = explanation.task, explanation.maps
    of_teacher = maps[TEACHER]
    first = next(iter(of_teacher.values()))
    keys = [item.key for item in task.utterances]
    if utterance is None:
        index = int(first.clean.argsort()[(len(keys) - 1) // 2])
    elif utterance in keys:
        index = keys.index(utterance)
    else:
        return
    band_hz = band_centres(
        explanation.subjects[TEACHER].model, first.features[0].shape[1]
    )
    score = {
        "verification": "score against an enrolment",
        "identification": "cosine of the true speaker",
    }[task.name]

    def strip(duration, chosen):
        kept = of_teacher[duration]
        return Strip(
            duration_name(duration),
            *kept.places[index],
            kept.features[index],
            chosen,
        )

    shown = [name for name in maps if name != SHUFFLED]
    longest = sorted(
        of_teacher,
        key=lambda duration: -len(of_teacher[duration].features[index]),
    )
    for method in methods:
        strips = [
            strip(
                duration,
                {
                    name: maps[name][duration].maps[method][index]
                    for name in shown
                },
            )
            for duration in longest
        ]
        title = f"{method.replace('_', ' ')} of the {score}, {keys[index]}"
        name = f"maps_{task.name}_{method}"
        yield f"{name}_durations", plot_maps(strips, band_hz, title)
        yield name, plot_maps(strips[:1], band_hz, title)
    for name in shown:
        chosen = {
            method.replace("_", " "): kept[index]
            for method, kept in maps[name][duration].maps.items()
        }
        title = f"maps of {name}: {score}, {keys[index]}"
        figure = plot_maps([strip(duration, chosen)], band_hz, title)
        yield f"methods_{task.name}_{name}", figure


def table_figures(tables, methods, fidelity_methods, top_share):
    """Draw curves, agreement and sanity checks.

    Arguments
    ---------
    tables : dict of str to list of dict
        Rows of each table.
    methods : list of str
        The methods of the curves, in order.
    fidelity_methods : list of str
        The methods whose agreement is drawn.
    top_share : float
        Share of the bins that the overlap compares.

    Yields
    ------
    name : str
        Of the file, without a suffix.
    figure : matplotlib.figure.Figure
    """
    yield from curve_figures(tables["curves"], methods)
    yield from fidelity_figures(tables["fidelity"], fidelity_methods, top_share)
    yield from sanity_figures(tables["sanity"])


def curve_figures(rows, methods):
    """Draw the curves of each model, duration, unit and baseline.

    Arguments
    ---------
    rows : list of dict
        Rows of curves.csv.
    methods : list of str
        The methods in order.

    Yields
    ------
    name : str
        Of the file, without a suffix.
    figure : matplotlib.figure.Figure
    """
    groups = {}
    for row in rows:
        key = [row[k] for k in ("model", "duration", "unit", "baseline")]
        groups.setdefault(tuple(key), []).append(row)
    for (model, duration, unit, kind), chosen in groups.items():
        name = f"curves_{model}_{duration_name(duration)}_{unit}_{kind}"
        title = (
            f"{model}, {duration_name(duration)}: deletion and insertion of "
            f"{unit}, empty input {kind}"
        )
        figure = plot_curves(chosen, methods, title.replace("_", " "))
        yield name, figure


def fidelity_figures(rows, methods, top_share):
    """Draw the agreement of each student with the teacher, per duration.

    Arguments
    ---------
    rows : list of dict
        Rows of fidelity.csv.
    methods : list of str
        The methods to draw.
    top_share : float
        Share of the bins that the overlap compares.

    Yields
    ------
    name : str
        Of the file, without a suffix.
    figure : matplotlib.figure.Figure
    """
    titles = {
        "rank_correlation": "rank correlation",
        "top_overlap": f"overlap of top {100 * top_share:g} %",
        "time_correlation": "rank correlation of time profiles",
    }
    chance = dict.fromkeys(titles.values(), 0.0)
    chance[titles["top_overlap"]] = top_share
    groups = {}
    for row in rows:
        if row["duration"] != "all" and row["method"] in methods:
            key = row["task"], row["method"]
            groups.setdefault(key, {}).setdefault(row["student"], []).append(
                row
            )
    for (task, method), of_student in groups.items():
        panels = {
            title: {
                student: tuple(
                    [row[f"{quantity}_{end}"] for row in own]
                    for end in ("mean", "low", "high")
                )
                for student, own in of_student.items()
            }
            for quantity, title in titles.items()
        }
        durations = [row["duration"] for row in next(iter(of_student.values()))]
        figure = plot_intervals(
            panels,
            [duration_name(duration) for duration in durations],
            f"{method.replace('_', ' ')} ({task}): students' maps against the "
            "teacher's; grey: unrelated maps",
            chance,
        )
        yield f"fidelity_{task}_{method}", figure


def sanity_figures(rows):
    """Draw the similarity to the intact network's maps, model by model.

    Arguments
    ---------
    rows : list of dict
        Rows of sanity.csv.

    Yields
    ------
    name : str
        Of the file, without a suffix.
    figure : matplotlib.figure.Figure
    """
    quantity = "rank correlation with the intact network's map"
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        steps = list(dict.fromkeys(row["shuffled_down_to"] for row in own))
        series = {
            method: tuple(
                [row[end] for row in own if row["method"] == method]
                for end in ("mean", "low", "high")
            )
            for method in dict.fromkeys(row["method"] for row in own)
        }
        figure = plot_intervals(
            {quantity: series},
            steps,
            f"sanity, {name}: parameters shuffled from the output (left) "
            "down to the layer named",
            {quantity: 0.0},
        )
        yield f"sanity_{name}", figure


def save_figures(figures, folder, formats):
    """Save named figures in each format; draw none without a format.

    Arguments
    ---------
    figures : iterable of (str, matplotlib.figure.Figure)
        As the functions above yield them.
    folder : Path
        Where to.
    formats : list of str
        File name suffixes.
    """
    if formats:
        for name, figure in figures:
            save_figure(figure, folder / name, formats)
