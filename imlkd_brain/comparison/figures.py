"""Figures of a comparison: training curves, error rates, differences.

Marker, line style or position repeat every distinction that a colour makes.

Authors: IML-KD contributors
"""

import math
import textwrap

from imlkd_brain.figures import (
    COLOURS,
    LINE_STYLES,
    MARKERS,
    new_figure,
    save_png,
)

LETTERS = 13  # of a title, in an inch


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
    from matplotlib.ticker import StrMethodFormatter

    figure = new_figure(9, 3.8)
    axes = figure.subplots(1, 2, sharey=True)
    groups = curves.groupby("method", sort=False)
    for number, (method, rows) in enumerate(groups):
        mean = rows.groupby("epoch")[["updates", "minutes", "eer"]].mean()
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 5,
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
    # Long enough for a whole period of the line style
    figure.legend(loc="outside right center", frameon=False, handlelength=3.5)
    save_png(figure, path)


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
    save_png(figure, path)


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
        rows = {
            methods.index(d["method"]): d
            for d in differences
            if d["baseline"] == baseline
        }
        _draw_intervals(panel, rows, f"to {baseline}")
    _write_title(figure, title)
    save_png(figure, path)


def paired_intervals(path, differences, methods, baselines, title):
    """Draw relative differences with their intervals, a panel a method.

    Arguments
    ---------
    path, differences, title
        See :func:`difference_intervals`.
    methods : list of str
        The panels, from the left.
    baselines : list of str
        The rows, from the top: what the methods are compared with.
    """
    figure, panels = _panels(len(methods), baselines, sharex=True)
    for panel, method in zip(panels, methods, strict=True):
        rows = {
            baselines.index(d["baseline"]): d
            for d in differences
            if d["method"] == method and d["baseline"] in baselines
        }
        _draw_intervals(panel, rows, method)
    panels[0].set_ylabel("compared with")
    _write_title(figure, title)
    save_png(figure, path)


def _write_title(figure, title):
    """Write a title in lines that the figure has room for."""
    width = int(LETTERS * figure.get_figwidth())
    lines = [textwrap.fill(line, width) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize="medium")


def _draw_intervals(panel, rows, title):
    """Draw differences by their row, and the line of no difference."""
    for place, d in rows.items():
        if d["low"] is not None:
            panel.plot((d["low"], d["high"]), (place, place), color="0.5")
        panel.plot(d["relative"], place, "o", color=COLOURS[0], ms=5)
    panel.axvline(0, color="0.1", lw=0.8)
    panel.set_title(title, fontsize="medium")
    panel.set_xlabel("%, negative is better")


def _panels(number, methods, sharex):
    """A figure and its panels, up to three in a row, with methods as rows."""

    columns = min(number, 3)
    lines = math.ceil(number / columns)
    figure = new_figure(
        1.8 + 2.4 * columns, 0.6 + lines * (0.8 + 0.3 * len(methods))
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
