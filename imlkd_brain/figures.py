"""Colours, markers, line styles and saving of all figures.

The colours are Okabe and Ito's, which colour-blind readers tell apart.
matplotlib is imported when a figure is drawn, not before.

Authors: IML-KD contributors
"""

from pathlib import Path

from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of

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
    """Check that matplotlib is installed, before the work and not after it.

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
            "the figures need matplotlib, which is not installed; run `pip "
            "install matplotlib`, or go without them with `--plots False` "
            "where the YAML has that key."
        ) from None


def new_figure(width, height):
    """Return an empty matplotlib figure.

    Arguments
    ---------
    width, height : float
        In inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UserError
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path, formats=("png", "pdf"), dpi=200):
    """Write a figure in each format, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        As the ``plot_`` functions return it.
    path : str or pathlib.Path
        Without a suffix.
    formats : sequence of str
        File name suffixes.
    dpi : int
        Resolution of the raster formats.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if len(formats) > 1:
        # All formats have the same layout, so it is found once.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for suffix in formats:
        with in_place_of(f"{path}.{suffix}") as temporary:
            figure.savefig(temporary, format=suffix, dpi=dpi)


def save_png(figure, path):
    """Write a figure as PNG to a path that ends in ``.png``."""
    save_figure(figure, Path(path).with_suffix(""), ("png",), DPI)


def join_pictures(paths, path):
    """Put pictures side by side in one PNG, pixel for pixel.

    Arguments
    ---------
    paths : sequence of (str or pathlib.Path)
        PNGs, the left one first. Lower ones get white below.
    path : str or pathlib.Path
        The PNG to write, whole or not at all.
    """
    require_matplotlib()
    import numpy as np
    from matplotlib.image import imread, imsave

    pictures = [imread(one)[..., :3] for one in paths]
    height = max(len(picture) for picture in pictures)
    padded = [
        np.pad(
            picture,
            ((0, height - len(picture)), (0, 0), (0, 0)),
            constant_values=1.0,
        )
        for picture in pictures
    ]
    with in_place_of(path) as temporary:
        imsave(temporary, np.concatenate(padded, axis=1), format="png")
