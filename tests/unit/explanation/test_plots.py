"""Unit tests of ``imlkd_brain.explanation.plots``."""

import sys

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.plots import Strip, plot_curves, plot_maps
from imlkd_brain.figures import save_figure


def strip(label, start, stop):
    """A strip of two maps, one of them empty and of three frames fewer."""
    n_frames = round(100 * (stop - start))
    maps = {
        "teacher": torch.randn(n_frames, 16),
        "student": torch.zeros(n_frames - 3, 16),
    }
    return Strip(label, start, stop, torch.randn(n_frames, 16), maps)


def test_figures_are_written_in_every_format_and_nothing_else(tmp_path):
    band_hz = torch.linspace(60, 7800, 16)
    figure = plot_maps([strip("full", 0.0, 1.5)], band_hz, "title")
    save_figure(figure, tmp_path / "new" / "maps.2s", dpi=50)
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["maps.2s.pdf", "maps.2s.png"]
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert "time (s)" in labels
    ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert ticks == ["250", "1000", "4000"]


def test_a_second_is_at_the_same_place_at_every_duration():
    strips = [strip("full", 0.0, 4.0), strip("1s", 1.5, 2.5)]
    figure = plot_maps(strips, torch.linspace(60, 7800, 16), "title")
    *rows, _colours = figure.axes
    # Log-mel; two maps and the profiles, twice.
    assert len(rows) == 1 + 2 * 3
    figure.draw_without_rendering()
    # 2 s is in the middle of every row, in the picture and on the axis.
    places = [row.transData.transform((2.0, 0.0))[0] for row in rows]
    assert places == pytest.approx([places[0]] * len(rows))
    pictures = [
        tuple(row.images[-1].get_extent()[:2]) for row in rows if row.images
    ]
    assert pictures == [(0.0, 4.0)] * 3 + [(1.5, 2.5)] * 2
    profile = rows[-1].lines[0].get_xdata()
    assert min(profile) == pytest.approx(1.505)
    assert max(profile) == pytest.approx(2.495)
    profile = rows[-1].lines[1].get_xdata()
    assert len(profile) == 97
    assert (min(profile) + max(profile)) / 2 == pytest.approx(2.0)


def curve_rows():
    """Straight curves of two methods, both directions and metrics."""
    return [
        {
            "direction": direction,
            "metric": metric,
            "method": method,
            "level": level,
            "mean": level,
            "low": level - 0.1,
            "high": level + 0.1,
        }
        for direction in ("deletion", "insertion")
        for metric in ("eer", "top1")
        for method in ("random", "occlusion")
        for level in (0.0, 0.5, 1.0)
    ]


def test_curves_put_every_method_beside_random():
    methods = ["occlusion", "gradient", "random"]
    figure = plot_curves(curve_rows(), methods, "title")
    assert len(figure.axes) == 4
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == [
            "occlusion",
            "random",
        ]
    # An error rate in [0, 1] is shown in per cent.
    assert max(figure.axes[0].lines[0].get_ydata()) == 100
    assert max(figure.axes[1].lines[0].get_ydata()) == 1


def test_without_matplotlib_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib"):
        plot_curves(curve_rows(), ["random"], "title")
