"""Figures of ``explain.py``: maps, curves and intervals.

Authors: IML-KD contributors
"""

import textwrap

import torch

from imlkd_brain.data.crops import duration_name
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.agreement import time_profile
from imlkd_brain.explanation.perturbation import gaussian_blur
from imlkd_brain.explanation.tasks import SHUFFLED, TEACHER
from imlkd_brain.figures import COLOURS, new_figure, save_figure


def plot_maps(columns, band_hz, title, smoothing=1.5):
    """One utterance: log-mel, the map of each model over it, time profiles.

    Arguments
    ---------
    columns : list of dict
        One per duration, with ``label``; ``start`` and ``stop`` in seconds of
        the utterance; ``log_mel`` (T, F); ``maps``, a dict from the name of a
        model (or of a method) to its map (T, F).
    band_hz : sequence of float
        Centre frequency of each of the F mel bands in Hz.
    title : str
        Above the figure.
    smoothing : float
        Standard deviation, in bins, of the smoothing of the maps in the
        picture; nothing but the picture is smoothed.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row for the log-mel, one for each map, one for the time profiles; a
        column for each duration, as wide as it is long. The colour is
        ``abs(a)`` over its mean in the utterance, on one scale for the whole
        figure; where it is low, the log-mel shows through.
    """
    names = list(columns[0]["maps"])
    weights = [
        {
            name: _map_weights(attribution, smoothing)
            for name, attribution in column["maps"].items()
        }
        for column in columns
    ]
    every = torch.cat([w.flatten() for c in weights for w in c.values()])
    # The 99th percentile: a few bins would else leave the rest in the dark.
    limit = float(every.kthvalue(max(1, int(0.99 * len(every)))).values)
    durations = [column["stop"] - column["start"] for column in columns]
    figure = new_figure(7.2, 1.05 * (len(names) + 2) + 0.6)
    axes = figure.subplots(
        len(names) + 2,
        len(columns),
        squeeze=False,
        sharex="col",
        sharey="row",
        gridspec_kw={"width_ratios": durations},
    )
    loudness = torch.cat([c["log_mel"].flatten() for c in columns])
    low, high = (
        float(loudness.kthvalue(max(1, int(q * len(loudness)))).values)
        for q in (0.02, 0.995)
    )
    heat = _see_through("viridis")
    for j, column in enumerate(columns):
        n_frames, n_bands = column["log_mel"].shape
        extent = (column["start"], column["stop"], -0.5, n_bands - 0.5)
        common = {"origin": "lower", "aspect": "auto", "extent": extent}
        grey = {"cmap": "gray_r", "vmin": low, **common}
        axes[0, j].imshow(column["log_mel"].T, vmax=high, **grey)
        axes[0, j].set_title(column["label"], fontsize=9)
        seconds = column["start"] + (
            column["stop"] - column["start"]
        ) / n_frames * (torch.arange(n_frames) + 0.5)
        for i, name in enumerate(names, start=1):
            # Pale, so that the colours are not mixed up with the loudness.
            pale = low + 2.5 * (high - low)
            axes[i, j].imshow(column["log_mel"].T, vmax=pale, **grey)
            picture = axes[i, j].imshow(
                weights[j][name].T, cmap=heat, vmin=0, vmax=limit, **common
            )
            profile = time_profile(column["maps"][name])
            axes[-1, j].plot(
                seconds,
                _smooth_line(profile, 3.0),
                color=COLOURS[(i - 1) % len(COLOURS)],
                linestyle=("-", "--", "-.", ":")[(i - 1) % 4],
                linewidth=1.1,
                label=name,
            )
        axes[-1, j].set_xlim(column["start"], column["stop"])
        axes[-1, j].set_ylim(bottom=0)
        axes[-1, j].set_xlabel("time (s)", fontsize=8)
        axes[-1, j].grid(alpha=0.3)
    for i, name in enumerate(["log-mel", *names]):
        axes[i, 0].set_ylabel(
            textwrap.fill(name, 11) + "\n(Hz)",
            fontsize=8 if len(name) < 12 else 6.5,
        )
        for axis in axes[i]:
            axis.tick_params(labelsize=7)
            _hertz_ticks(axis, band_hz)
    axes[-1, 0].set_ylabel("time\nprofile", fontsize=8)
    for axis in axes[-1]:
        axis.tick_params(labelsize=7)
    bar = figure.colorbar(
        picture, ax=axes[1:-1, :], pad=0.01, aspect=30, extend="max"
    )
    bar.ax.tick_params(labelsize=7)
    bar.set_label("|attribution| / its mean", fontsize=8)
    figure.legend(
        *axes[-1, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(names), 6),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def _see_through(name):
    """A colour map that is clear at its low end, also in its colour bar."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps[name](torch.linspace(0, 1, 256).numpy())
    colours[:, 3] = torch.linspace(0, 2, 256).clamp(max=0.95).numpy()
    return ListedColormap(colours)


def _map_weights(attribution, smoothing):
    """Smoothed ``abs(a)`` over its mean, shape (T, F), for a picture."""
    weight = attribution.abs()[None].float()
    if smoothing > 0:
        weight = gaussian_blur(weight, smoothing)
    return weight[0] / weight.mean().clamp(min=1e-30)


def _smooth_line(values, sigma):
    """Smooth a line (T,) for a picture."""
    return gaussian_blur(values[None, :, None].float(), sigma)[0, :, 0]


def _hertz_ticks(axis, band_hz):
    """Label the bands nearest to a few round frequencies."""
    bands = torch.as_tensor(band_hz, dtype=torch.float)
    marks = [250, 1000, 2000, 4000]
    marks = [hz for hz in marks if bands[0] <= hz <= bands[-1]]
    nearest = [int((bands - hz).abs().argmin()) for hz in marks]
    axis.set_yticks(nearest, [f"{hz:g}" for hz in marks])


def plot_curves(panels, title):
    """Deletion and insertion of every method, the random control included.

    Arguments
    ---------
    panels : dict
        From direction (``deletion``, ``insertion``) to a dict from metric to
        a dict from method to ``(levels, mean, low, high)``, each of shape
        (L,).
    title : str
        Above the figure.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row per direction, a column per metric; shaded is the confidence
        interval of the first method and of ``random``.
    """
    directions = list(panels)
    metrics = list(panels[directions[0]])
    figure = new_figure(7.2, 1.6 * len(directions) + 0.7)
    axes = figure.subplots(
        len(directions), len(metrics), squeeze=False, sharex=True, sharey="col"
    )
    words = {
        "posterior": "posterior",
        "top1": "top-1 share",
        "top5": "top-5 share",
        "score": "(1 + score) / 2",
        "eer": "EER (%)",
    }
    for i, direction in enumerate(directions):
        share = "gone" if direction == "deletion" else "there"
        for j, metric in enumerate(metrics):
            axis = axes[i, j]
            scale = 100.0 if metric == "eer" else 1.0
            methods = panels[direction][metric]
            for k, (method, curve) in enumerate(methods.items()):
                levels, mean, low, high = curve
                random = method == "random"
                color = "black" if random else COLOURS[k % 6]
                axis.plot(
                    100 * levels,
                    scale * mean,
                    color=color,
                    linestyle=":" if random else ("-", "--", "-.")[k % 3],
                    linewidth=1.2,
                    label=method.replace("_", " "),
                )
                if random or k == 0:
                    axis.fill_between(
                        100 * levels,
                        scale * low,
                        scale * high,
                        color=color,
                        alpha=0.15,
                        linewidth=0,
                    )
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=6.5)
            if metric in ("posterior", "top1", "top5"):
                axis.set_ylim(-0.02, 1.02)
            if i == 0:
                axis.set_title(words.get(metric, metric), fontsize=8)
            axis.set_xlabel(f"% {share}", fontsize=7)
        axes[i, 0].set_ylabel(direction, fontsize=9)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=7.5,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def plot_intervals(panels, x_labels, title, chance=None):
    """Means with their confidence intervals, series side by side.

    Arguments
    ---------
    panels : dict
        From the name of a quantity to a dict from the name of a series to
        ``(mean, low, high)``, each of shape (len(x_labels),).
    x_labels : list of str
        What the places on the horizontal axis are.
    title : str
        Above the figure.
    chance : dict
        From the name of a quantity to the value that unrelated maps have,
        drawn as a grey line.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A panel per quantity.
    """
    figure = new_figure(7.2, 2.9)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    places = torch.arange(len(x_labels), dtype=torch.float)
    for axis, (quantity, series) in zip(axes, panels.items(), strict=True):
        if chance and quantity in chance:
            axis.axhline(chance[quantity], color="grey", linewidth=0.8)
        for k, (name, (mean, low, high)) in enumerate(series.items()):
            shift = 0.6 * ((k + 0.5) / len(series) - 0.5)
            mean, low, high = (torch.as_tensor(v) for v in (mean, low, high))
            axis.errorbar(
                places + shift,
                mean,
                yerr=torch.stack((mean - low, high - mean)).clamp(min=0),
                color=COLOURS[k % len(COLOURS)],
                marker="osD^vPX"[k % 7],
                markersize=3.5,
                linewidth=0,
                elinewidth=1.0,
                label=name.replace("_", " "),
            )
        axis.set_xticks(places, x_labels, fontsize=7)
        if max(map(len, x_labels)) > 6:
            axis.tick_params(axis="x", rotation=60)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(quantity, fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def band_centres(model, n_bands):
    """Centre frequencies of the mel bands in Hz."""
    fbanks = getattr(model.compute_features, "compute_fbanks", None)
    if fbanks is None:
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


def draw_maps(task, maps, models, hparams, folder):
    """Figures of one utterance: all durations, and all methods."""
    of_teacher = maps[TEACHER][hparams["durations"][0]]
    keys = [utterance.key for utterance in task.utterances]
    if hparams["figure_utterance"] in keys:
        index = keys.index(hparams["figure_utterance"])
    elif hparams["figure_utterance"] is None:
        # Neither the best nor the worst case: the median score.
        index = int(of_teacher["clean"].argsort()[(len(keys) - 1) // 2])
    else:
        return
    n_bands = of_teacher["feats"][0].shape[1]
    band_hz = band_centres(models[TEACHER], n_bands)
    what = {
        "verification": "score against an enrolment",
        "identification": "cosine of the true speaker",
    }[task.name]

    def column(duration, chosen):
        kept = maps[TEACHER][duration]
        start, stop = kept["places"][index]
        return {
            "label": duration_name(duration),
            "start": start,
            "stop": stop,
            "log_mel": kept["feats"][index],
            "maps": chosen,
        }

    shown = [name for name in maps if name != SHUFFLED]
    for method in hparams["figure_methods"]:
        columns = [
            column(
                duration,
                {
                    name: maps[name][duration]["maps"][method][index]
                    for name in shown
                },
            )
            for duration in hparams["durations"]
        ]
        title = f"{method.replace('_', ' ')} of the {what}, {keys[index]}"
        save_figure(
            plot_maps(columns, band_hz, title),
            folder / f"maps_{task.name}_{method}_durations",
            hparams["figure_formats"],
        )
        save_figure(
            plot_maps(columns[:1], band_hz, title),
            folder / f"maps_{task.name}_{method}",
            hparams["figure_formats"],
        )
    duration = (hparams["curve_durations"] or hparams["durations"])[0]
    for name in shown:
        chosen = {
            method.replace("_", " "): kept[index]
            for method, kept in maps[name][duration]["maps"].items()
        }
        save_figure(
            plot_maps(
                [column(duration, chosen)],
                band_hz,
                f"maps of {name}: {what}, {keys[index]}",
            ),
            folder / f"methods_{task.name}_{name}",
            hparams["figure_formats"],
        )


def draw_curves(panels_of, hparams, folder):
    """Curves of a model, identification beside verification, per unit."""
    for (duration, name), by_task in panels_of.items():
        conditions = dict.fromkeys(c for panels in by_task for c in panels)
        for unit, kind in conditions:
            merged = {}
            for panels in by_task:
                for direction, metrics in panels.get((unit, kind), {}).items():
                    merged.setdefault(direction, {}).update(metrics)
            # The first has the shaded interval, beside `random`.
            order = list(hparams["methods"])
            for metrics in merged.values():
                for metric, methods in metrics.items():
                    metrics[metric] = {
                        m: methods[m] for m in order if m in methods
                    }
            save_figure(
                plot_curves(
                    merged,
                    f"{name}, {duration_name(duration)}: {unit} go (to {kind}) or "
                    f"come (into {kind})".replace("_", " "),
                ),
                folder
                / f"curves_{name}_{duration_name(duration)}_{unit}_{kind}",
                hparams["figure_formats"],
            )


def draw_fidelity(rows, hparams, folder):
    """Agreement of each student with the teacher, per duration."""
    titles = {
        "rank_correlation": "rank correlation",
        "top_overlap": f"overlap of top {100 * hparams['top_share']:g} %",
        "time_correlation": "rank correlation of time profiles",
    }
    durations = hparams["durations"]
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in hparams["figure_methods"]:
            chosen = {
                (row["student"], row["duration"]): row
                for row in rows
                if row["task"] == task and row["method"] == method
            }
            students = list(dict.fromkeys(student for student, _ in chosen))
            if not students:
                continue
            panels = {
                title: {
                    student: tuple(
                        [
                            chosen[student, d][f"{quantity}_{end}"]
                            for d in durations
                        ]
                        for end in ("mean", "low", "high")
                    )
                    for student in students
                }
                for quantity, title in titles.items()
            }
            chance = dict.fromkeys(titles.values(), 0.0)
            chance[titles["top_overlap"]] = hparams["top_share"]
            save_figure(
                plot_intervals(
                    panels,
                    [duration_name(d) for d in durations],
                    f"{method.replace('_', ' ')} ({task}): students' maps "
                    "against the teacher's; grey: unrelated maps",
                    chance,
                ),
                folder / f"fidelity_{task}_{method}",
                hparams["figure_formats"],
            )


def draw_sanity(rows, hparams, folder):
    """Similarity to the intact network's maps along the cascade."""
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
        save_figure(
            figure, folder / f"sanity_{name}", hparams["figure_formats"]
        )
