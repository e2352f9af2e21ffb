"""Plots of maps, curves and intervals.

Authors: IML-KD contributors
"""

import textwrap
from dataclasses import dataclass

import torch

from imlkd_brain.explanation.agreement import time_profile
from imlkd_brain.explanation.perturbation import gaussian_blur
from imlkd_brain.figures import COLOURS, LINE_STYLES, new_figure


@dataclass
class Strip:
    """What a figure shows of one utterance at one duration.

    Attributes
    ----------
    label : str
        The duration.
    start, stop : float
        Where the crop lies, in seconds of the utterance.
    log_mel : torch.Tensor
        Features (T, F).
    maps : dict of str to torch.Tensor
        A map (T, F) of each model, or of each method. A model with another
        window has its own number of frames.
    """

    label: str
    start: float
    stop: float
    log_mel: torch.Tensor
    maps: dict

    def seconds(self, n_frames):
        """Time of the middle of each frame of a map (T,)."""
        step = (self.stop - self.start) / n_frames
        return self.start + step * (torch.arange(n_frames) + 0.5)


def plot_maps(strips, band_hz, title, smoothing=1.5):
    """Draw one utterance: log-mel, maps over it, time profiles.

    All rows have the same time axis, so a second of the utterance is at the
    same place at every duration.

    Arguments
    ---------
    strips : list of Strip
        One for each duration, the longest first.
    band_hz : sequence of float
        Centre frequency of each of the F mel bands in Hz.
    title : str
        Above the figure.
    smoothing : float
        Standard deviation, in bins, of the smoothing of the maps. It is for
        the picture only.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row for the log-mel; then, for each duration, a row for each map and
        one for the time profiles. The colour is ``abs(a)`` over its mean in
        the crop, on one scale for the whole figure. Where it is low, the
        log-mel shows through.
    """
    names = list(strips[0].maps)
    weights = [
        {
            name: _map_weights(attribution, smoothing)
            for name, attribution in strip.maps.items()
        }
        for strip in strips
    ]
    every = torch.cat([w.flatten() for of in weights for w in of.values()])
    loudness = strips[0].log_mel.flatten()
    low, high = _quantile(loudness, 0.02), _quantile(loudness, 0.995)
    # Pale, so that the colours are not mixed up with the loudness.
    pale = {"cmap": "gray_r", "vmin": low, "vmax": low + 2.5 * (high - low)}
    # The 99th percentile: otherwise a few bins leave the rest in the dark.
    heat = {
        "cmap": _see_through("viridis"),
        "vmin": 0,
        "vmax": _quantile(every, 0.99),
    }
    n_rows = 1 + len(strips) * (len(names) + 1)
    height = 1.05 if len(strips) == 1 else 0.52
    figure = new_figure(7.2, height * n_rows + 0.9)
    axes = figure.subplots(n_rows, 1, sharex=True)
    _image(axes[0], strips[0], strips[0].log_mel, {**pale, "vmax": high})
    _label_row(axes[0], "log-mel", band_hz)
    for j, strip in enumerate(strips):
        first = 1 + j * (len(names) + 1)
        rows = axes[first : first + len(names) + 1]
        for row, name in zip(rows[:-1], names, strict=True):
            _image(row, strip, strip.log_mel, pale)
            picture = _image(row, strip, weights[j][name], heat)
            _label_row(row, name, band_hz)
        lines = _profiles(rows[-1], strip)
        if len(strips) > 1:
            rows[0].set_title(strip.label, fontsize=9, loc="left", pad=2)
    axes[0].set_xlim(strips[0].start, strips[0].stop)
    axes[-1].set_xlabel("time (s)", fontsize=8)
    bar = figure.colorbar(
        picture,
        ax=list(axes),
        pad=0.01,
        aspect=40,
        extend="max",
        extendfrac=0.02,
    )
    bar.ax.tick_params(labelsize=7)
    bar.set_label("|attribution| / its mean", fontsize=8)
    figure.legend(
        lines,
        names,
        loc="outside lower center",
        ncols=min(len(names), 6),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def _image(axis, strip, values, colours):
    """Show values (T, F) of a strip at their place in time."""
    extent = (strip.start, strip.stop, -0.5, values.shape[1] - 0.5)
    return axis.imshow(
        values.T, origin="lower", aspect="auto", extent=extent, **colours
    )


def _label_row(axis, name, band_hz):
    """Name a row of bins and label its frequencies."""
    axis.set_ylabel(
        textwrap.fill(name, 11) + "\n(Hz)",
        fontsize=8 if len(name) < 12 else 6.5,
    )
    axis.tick_params(labelsize=7)
    bands = torch.as_tensor(band_hz, dtype=torch.float)
    marks = [hz for hz in (250, 1000, 4000) if bands[0] <= hz <= bands[-1]]
    nearest = [int((bands - hz).abs().argmin()) for hz in marks]
    axis.set_yticks(nearest, [f"{hz:g}" for hz in marks])


def _profiles(axis, strip):
    """Draw the time profiles of a strip's maps; return the lines."""
    lines = []
    for i, attribution in enumerate(strip.maps.values()):
        lines += axis.plot(
            strip.seconds(len(attribution)),
            _smooth_line(time_profile(attribution), 3.0),
            color=COLOURS[i % len(COLOURS)],
            linestyle=LINE_STYLES[i % len(LINE_STYLES)],
            linewidth=1.1,
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("time\nprofile", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    return lines


def _quantile(values, share):
    """The value below which a share of the values (N,) lies."""
    return float(values.kthvalue(max(1, int(share * len(values)))).values)


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


METRICS = {
    "score": "(1 + score) / 2",
    "eer": "EER (%)",
    "posterior": "posterior",
    "top1": "top-1 share",
    "top5": "top-5 share",
}


def plot_curves(rows, methods, title):
    """Draw deletion and insertion of every method, the control included.

    Arguments
    ---------
    rows : list of dict
        Rows of curves.csv of one model, duration, unit and baseline.
    methods : list of str
        The methods in order.
    title : str
        Above the figure.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row for each direction, a column for each metric. The confidence
        interval of the first method and of ``random`` is shaded.
    """
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    figure = new_figure(7.2, 1.6 * len(directions) + 0.7)
    axes = figure.subplots(
        len(directions), len(metrics), squeeze=False, sharex=True, sharey="col"
    )
    for i, direction in enumerate(directions):
        share = "deleted" if direction == "deletion" else "inserted"
        for j, metric in enumerate(metrics):
            axis = axes[i, j]
            panel = [
                row
                for row in rows
                if (row["direction"], row["metric"]) == (direction, metric)
            ]
            _curves(axis, panel, methods, 100.0 if metric == "eer" else 1.0)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=6.5)
            if metric in ("posterior", "top1", "top5"):
                axis.set_ylim(-0.02, 1.02)
            if i == 0:
                axis.set_title(METRICS.get(metric, metric), fontsize=8)
            axis.set_xlabel(f"% {share}", fontsize=7)
        axes[i, 0].set_ylabel(direction, fontsize=9)
    _finish(figure, axes[0, 0], title, fontsize=7.5)
    return figure


def _curves(axis, rows, methods, scale):
    """Draw the curve of each method that the rows hold."""
    of_method = {}
    for row in rows:
        of_method.setdefault(row["method"], []).append(row)
    shown = [method for method in methods if method in of_method]
    for k, method in enumerate(shown):
        level, mean, low, high = torch.tensor(
            [
                [row[key] for key in ("level", "mean", "low", "high")]
                for row in of_method[method]
            ],
            dtype=torch.float64,
        ).T
        random = method == "random"
        color = "black" if random else COLOURS[k % 6]
        axis.plot(
            100 * level,
            scale * mean,
            color=color,
            linestyle=":" if random else LINE_STYLES[k % 3],
            linewidth=1.2,
            label=method.replace("_", " "),
        )
        if random or k == 0:
            axis.fill_between(
                100 * level,
                scale * low,
                scale * high,
                color=color,
                alpha=0.15,
                linewidth=0,
            )


def _finish(figure, axis, title, fontsize=8):
    """Add a title, and the legend of an axis below the figure."""
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=fontsize,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)


def plot_intervals(panels, x_labels, title, chance=None):
    """Draw means with their confidence intervals, series side by side.

    Arguments
    ---------
    panels : dict
        From the name of a quantity to a dict from the name of a series to
        ``(mean, low, high)``, each of shape (len(x_labels),).
    x_labels : list of str
        Labels of the horizontal axis.
    title : str
        Above the figure.
    chance : dict
        From the name of a quantity to its value for unrelated maps. It is
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
    _finish(figure, axes[0], title)
    return figure
