"""What all figures share: colours, markers, line styles and saving.

The colours are Okabe and Ito's, which colour-blind readers tell apart.
matplotlib is imported when a figure is drawn, not before.

Authors: IML-KD contributors
"""

import os
from pathlib import Path

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


def save_png(figure, path):
    """Write a figure whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=DPI)
    os.replace(temporary, path)


def new_figure(width, height):
    """An empty matplotlib figure in inches, or how to get matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "the figures need matplotlib, which is not installed: pip install "
            "'imlkd_brain[explain]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path, formats=("png", "pdf"), dpi=200):
    """Write a figure in each format, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        As the ``plot_`` functions return it.
    path : pathlib.Path
        Without a suffix.
    formats : sequence of str
        File name suffixes.
    dpi : int
        Resolution of the raster formats.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The layout is the same for every format: found once.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix in formats:
        unfinished = path.with_name(f".{path.name}.{suffix}")
        figure.savefig(unfinished, format=suffix, dpi=dpi)
        unfinished.replace(path.with_name(f"{path.name}.{suffix}"))
