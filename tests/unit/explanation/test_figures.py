"""Unit tests of ``imlkd_brain.explanation.figures``."""

import sys

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.figures import plot_curves, plot_maps
from imlkd_brain.figures import save_figure


def test_figures_are_written_in_every_format_and_nothing_else(tmp_path):
    column = {
        "label": "1 s",
        "start": 0.5,
        "stop": 1.5,
        "log_mel": torch.randn(100, 16),
        "maps": {
            "teacher": torch.randn(100, 16),
            "student": torch.zeros(100, 16),
        },
    }
    band_hz = torch.linspace(60, 7800, 16)
    figure = plot_maps([column, column], band_hz, "title")
    save_figure(figure, tmp_path / "new" / "maps.2s", dpi=50)
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["maps.2s.pdf", "maps.2s.png"]
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert "time (s)" in labels
    ticks = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert ticks == ["250", "1000", "2000", "4000"]


def test_curves_put_every_method_beside_random():
    levels = torch.linspace(0, 1, 3)
    curve = (levels, levels, levels - 0.1, levels + 0.1)
    methods = {"occlusion": curve, "random": curve}
    figure = plot_curves(
        {
            d: {"eer": methods, "top1": methods}
            for d in ("deletion", "insertion")
        },
        "title",
    )
    assert len(figure.axes) == 4
    assert all(len(axis.lines) == 2 for axis in figure.axes)
    # An error rate in [0, 1] is shown in per cent.
    assert max(figure.axes[0].lines[0].get_ydata()) == 100


def test_without_matplotlib_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib"):
        plot_curves({"deletion": {"eer": {}}}, "title")
