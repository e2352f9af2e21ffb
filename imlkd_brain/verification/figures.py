"""DET plots and score histograms of a verification run.

The colour says which model, the line style which duration. Line style,
hatching or position repeat every distinction that a colour makes.

Authors: IML-KD contributors
"""

from statistics import NormalDist

import numpy as np
import torch

from imlkd_brain.data.trials import ALL
from imlkd_brain.figures import COLOURS, LINE_STYLES, new_figure, save_png
from imlkd_brain.metrics.error_rates import det_points

DET_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60)  # %


def det_plot(path, curves, title):
    """Draw detection error trade-off curves on normal deviate axes.

    Arguments
    ---------
    path : str or Path
        The PNG to write.
    curves : dict
        For each (model, duration) the rates ``(p_fa, p_miss)`` of
        :func:`imlkd_brain.metrics.error_rates.det_points`.
    title : str
        The list's name.
    """
    from matplotlib.lines import Line2D

    models, durations = _names(curves)
    figure = new_figure(7.2, 5.2)
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
    save_png(figure, path)


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
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    models, durations = _names(panels)
    figure = new_figure(
        1.2 + 2.3 * max(2, len(durations)), 1.5 + 1.7 * len(models)
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
        axes.tick_params(labelbottom=True, labelsize="small")
        axes.spines[["top", "right"]].set_visible(False)
        if models.index(model) == 0:
            axes.set_title(duration)
        if models.index(model) == len(models) - 1:
            axes.set_xlabel("Score")
        if durations.index(duration) == 0:
            axes.set_ylabel(f"{model}\ndensity of trials")
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
    save_png(figure, path)


def _names(conditions):
    """Models and durations of (model, duration) keys, in order."""
    models = list(dict.fromkeys(model for model, _ in conditions))
    durations = list(dict.fromkeys(duration for _, duration in conditions))
    return models, durations


def _deviate(rates):
    """Normal deviates of rates; 0 and 1 go far outside the axes."""
    from scipy.special import ndtri

    return ndtri(rates.clamp(1e-9, 1 - 1e-9).cpu().numpy())


def draw_plots(output_folder, scored, rows):
    """Draw a DET plot and a score histogram for each list.

    Arguments
    ---------
    output_folder : Path
        Where to.
    scored : list of Scored
        The scores of all lists and models.
    rows : list of dict
        Rows of :func:`imlkd_brain.verification.measures.measure`.
    """
    thresholds = {
        (row["list"], row["model"], row["duration"]): row["eer_threshold"]
        for row in rows
        if row["group"] == ALL
    }
    for name in dict.fromkeys(one.list_name for one in scored):
        curves, panels = {}, {}
        for one in scored:
            if one.list_name != name:
                continue
            labels = one.located.trials.labels
            for duration, values in one.scores.items():
                targets, nontargets = values[labels], values[~labels]
                condition = one.model, duration
                curves[condition] = det_points(targets, nontargets)
                threshold = thresholds[(name, *condition)]
                panels[condition] = targets, nontargets, threshold
        word = name.replace("/", "_")
        det_plot(output_folder / f"det_{word}.png", curves, name)
        score_histogram(output_folder / f"histogram_{word}.png", panels, name)
