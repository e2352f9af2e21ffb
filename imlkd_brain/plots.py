"""Figures of a verification run and of a comparison.

Colour says which model, line style which duration; the colours are Okabe and
Ito's, which colour-blind readers tell apart, and every distinction is also
one of line style, hatching or position. matplotlib is imported on use.

Authors: IML-KD contributors
"""

import math
import os
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from imlkd_brain.errors import UserError

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINE_STYLES = ("-", "--", "-.", ":")
DET_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60)  # %
DPI = 150


def require_matplotlib():
    """Raise before hours of work what would otherwise be raised after them.

    Raises
    ------
    UserError
        If matplotlib is not installed.

    Example
    -------
    >>> require_matplotlib()
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError(
            "plots need matplotlib, which is not installed; run `pip install "
            "matplotlib`, or go without them with --plots False."
        ) from None


def det_plot(path, curves, title):
    """Draw detection error trade-off curves on normal deviate axes.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    curves : dict
        For each (model, duration) the rates ``(p_fa, p_miss)`` of
        :func:`imlkd_brain.metrics.det_points`.
    title : str
        The list's name.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    models, durations = _names(curves)
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    # From a tenth of the lowest EER; rates below one error are not measured.
    finest = min(
        max(float(p_fa[p_fa > 0].min()), float(p_miss[p_miss > 0].min()))
        for p_fa, p_miss in curves.values()
    )
    lowest_eer = min(
        float(torch.maximum(p_fa, p_miss).min())
        for p_fa, p_miss in curves.values()
    )
    start = min(5, 100 * max(finest, lowest_eer / 10))
    lowest = max([tick for tick in DET_TICKS if tick <= start] or DET_TICKS[:1])
    ticks = [tick for tick in DET_TICKS if tick >= lowest]
    for (model, duration), (p_fa, p_miss) in curves.items():
        axes.plot(
            _deviate(p_fa),
            _deviate(p_miss),
            color=COLOURS[models.index(model) % len(COLOURS)],
            linestyle=LINE_STYLES[durations.index(duration) % 4],
            linewidth=1.6,
        )
    normal = NormalDist()
    ends = [normal.inv_cdf(ticks[0] / 100), normal.inv_cdf(ticks[-1] / 100)]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    places = [normal.inv_cdf(tick / 100) for tick in ticks]
    labels = [f"{tick:g}" for tick in ticks]
    axes.set_xticks(places, labels)
    axes.set_yticks(places, labels)
    axes.set_xlim(ends)
    axes.set_ylim(ends)
    axes.set_aspect("equal")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_xlabel("False acceptance rate (%)")
    axes.set_ylabel("Miss rate (%)")
    axes.set_title(f"Trial list: {title}")
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linewidth=3)
        for i in range(len(models))
    ]
    figure.legend(
        handles, models, title="Model", loc="outside right upper", frameon=False
    )
    handles = [
        Line2D([], [], color="0.2", linestyle=LINE_STYLES[i % 4])
        for i in range(len(durations))
    ]
    handles.append(Line2D([], [], color="0.6", linewidth=0.8))
    figure.legend(
        handles,
        [*durations, "equal rates"],
        title="Test speech",
        loc="outside right lower",
        frameon=False,
        handlelength=3,
    )
    _save(figure, path)


def score_histogram(path, panels, title):
    """Draw target and nontarget scores, a panel for each model and duration.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    panels : dict
        For each (model, duration) a triple (target scores, nontarget scores,
        EER threshold).
    title : str
        The list's name.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    models, durations = _names(panels)
    figure = Figure(
        figsize=(1.2 + 2.3 * max(2, len(durations)), 1.5 + 1.7 * len(models)),
        layout="constrained",
    )
    grid = figure.subplots(
        len(models), len(durations), sharex=True, sharey="row", squeeze=False
    )
    every = [scores for panel in panels.values() for scores in panel[:2]]
    # A few far scores would squeeze all others into a few bins.
    low = min(np.quantile(scores.numpy(), 0.002) for scores in every)
    high = max(np.quantile(scores.numpy(), 0.998) for scores in every)
    # All scores equal is a panel of one bin, not an error.
    bins = np.linspace(low, max(high, low + 1e-6), 61)
    for (model, duration), (targets, nontargets, threshold) in panels.items():
        axes = grid[models.index(model)][durations.index(duration)]
        axes.hist(
            np.clip(nontargets.numpy(), bins[0], bins[-1]),
            bins,
            density=True,
            histtype="stepfilled",
            color=COLOURS[1],
            alpha=0.35,
        )
        axes.hist(
            np.clip(targets.numpy(), bins[0], bins[-1]),
            bins,
            density=True,
            histtype="step",
            color=COLOURS[0],
            linewidth=1.6,
        )
        axes.axvline(threshold, color="0.2", linestyle=":", linewidth=1.2)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        if models.index(model) == 0:
            axes.set_title(duration)
        if models.index(model) == len(models) - 1:
            axes.set_xlabel("Score")
        if durations.index(duration) == 0:
            axes.set_ylabel(model)
    figure.suptitle(f"Trial list: {title}")
    figure.legend(
        [
            Line2D([], [], color=COLOURS[0], linewidth=1.6),
            Patch(color=COLOURS[1], alpha=0.35),
            Line2D([], [], color="0.2", linestyle=":"),
        ],
        ["target trials", "nontarget trials", "threshold at the EER"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    _save(figure, path)


def training_curves(path, curves):
    """Draw dev EER against updates and against time, a line a method.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    curves : pandas.DataFrame
        Columns method, epoch, updates, minutes and eer (percent); runs of one
        method are averaged at equal epochs, which folds of different sizes
        reach after different numbers of updates.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    groups = curves.groupby("method", sort=False)
    for number, (method, rows) in enumerate(groups):
        mean = rows.groupby("epoch")[["updates", "minutes", "eer"]].mean()
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINE_STYLES[number // len(COLOURS) % 4],
            "marker": ".",
        }
        axes[0].plot(mean["updates"], mean["eer"], label=method, **style)
        axes[1].plot(mean["minutes"], mean["eer"], **style)
    for panel, name in zip(
        axes, ("Updates", "Minutes of training"), strict=True
    ):
        # A method with more epochs than the others would squeeze them.
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.set_xlabel(name)
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dev EER (%), mean of durations")
    figure.legend(loc="outside right center", frameon=False)
    _save(figure, path)


def method_dots(path, rows, methods):
    """Draw each method's EER at each duration: a mark a run, a bar the mean.

    A run has the same mark everywhere: its fold decides more than the method.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    rows : pandas.DataFrame
        Columns method, fold, seed, duration and eer (percent), one row a run.
    methods : list of str
        In the order to draw, from the top.
    """

    durations = list(dict.fromkeys(rows["duration"]))
    figure, panels = _panels(len(durations), methods, sharex=False)
    runs = list(rows.groupby(["fold", "seed"], sort=False).groups)
    for panel, duration in zip(panels, durations, strict=True):
        for place, method in enumerate(methods):
            chosen = (rows["method"] == method) & (rows["duration"] == duration)
            values = rows[chosen].set_index(["fold", "seed"])["eer"]
            for number, run in enumerate(runs):
                # One below the other, so that equal EERs do not hide a run
                aside = 0.5 * ((number + 0.5) / len(runs) - 0.5)
                panel.plot(
                    values[run],
                    place + aside,
                    MARKERS[number % len(MARKERS)],
                    color=COLOURS[number % len(COLOURS)],
                    ms=4,
                    label=f"fold {run[0]}, seed {run[1]}",
                )
            panel.plot(
                values.mean(),
                place,
                "|",
                color="0.1",
                ms=15,
                mew=1.5,
                zorder=1.8,
            )
        panel.set_title(duration, fontsize="medium")
        panel.set_xlabel("EER (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles[: len(runs)],
        labels[: len(runs)],
        loc="outside lower center",
        ncols=min(len(durations), 3),
        frameon=False,
    )
    _save(figure, path)


def difference_intervals(path, differences, methods, baselines, title):
    """Draw relative differences with their intervals, a panel a baseline.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    differences : list of dict
        Keys method, baseline, relative, low and high (percent; negative is
        better; None where there is no interval), of one duration.
    methods : list of str
        In the order to draw, from the top.
    baselines : list of str
        In the order to draw, from the left.
    title : str
        What is compared.
    """

    # One baseline's own row would be empty.
    methods = [m for m in methods if [m] != list(baselines)]
    figure, panels = _panels(len(baselines), methods, sharex=True)
    for panel, baseline in zip(panels, baselines, strict=True):
        for d in differences:
            if d["baseline"] != baseline:
                continue
            place = methods.index(d["method"])
            if d["low"] is not None:
                panel.plot((d["low"], d["high"]), (place, place), color="0.5")
            panel.plot(d["relative"], place, "o", color=COLOURS[0], ms=5)
        panel.axvline(0, color="0.1", lw=0.8)
        panel.set_title(f"to {baseline}", fontsize="medium")
        panel.set_xlabel("%, negative is better")
    figure.suptitle(title, fontsize="medium")
    _save(figure, path)


def _panels(number, methods, sharex):
    """A figure and its panels, up to three in a row, with methods as rows."""
    from matplotlib.figure import Figure

    columns = min(number, 3)
    lines = math.ceil(number / columns)
    figure = Figure(
        figsize=(1.8 + 2.4 * columns, 0.6 + lines * (0.8 + 0.3 * len(methods))),
        layout="constrained",
    )
    grid = figure.subplots(
        lines, columns, sharex=sharex, sharey=True, squeeze=False
    ).ravel()
    for unused in grid[number:]:
        unused.remove()
    for panel in grid[:number]:
        # The panel that would carry a shared axis' numbers may be removed.
        panel.tick_params(labelbottom=True)
        panel.grid(axis="x", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    grid[0].set_yticks(range(len(methods)), methods)
    grid[0].set_ylim(len(methods) - 0.5, -0.5)
    return figure, grid[:number]


def _names(conditions):
    """Models and durations of (model, duration) keys, in order."""
    models = list(dict.fromkeys(model for model, _ in conditions))
    durations = list(dict.fromkeys(duration for _, duration in conditions))
    return models, durations


def _deviate(rates):
    """Normal deviates of rates; 0 and 1 go far outside the axes."""
    from scipy.special import ndtri

    return ndtri(rates.clamp(1e-9, 1 - 1e-9).cpu().numpy())


def _save(figure, path):
    """Write a figure whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=DPI)
    os.replace(temporary, path)
