"""Unit tests of ``imlkd_brain.comparison.figures``."""

import pandas as pd
import pytest

from imlkd_brain.comparison.figures import (
    difference_intervals,
    paired_intervals,
    training_curves,
)


@pytest.mark.parametrize("n_baselines, panels", [(1, 1), (4, 4)])
def test_a_panel_a_baseline_and_no_row_for_a_lone_one(
    n_baselines, panels, monkeypatch
):
    """Four panels take two rows of three, and two places stay empty."""
    drawn = []
    monkeypatch.setattr(
        "imlkd_brain.comparison.figures.save_png",
        lambda figure, path: drawn.append(figure),
    )
    methods = ["a", "b", "c", "d"]
    differences = [
        {"method": m, "baseline": b, "relative": 1.0, "low": 0.0, "high": 2.0}
        for m in methods
        for b in methods[:n_baselines]
        if m != b
    ]
    difference_intervals(
        "x.png", differences, methods, methods[:n_baselines], "title"
    )
    axes = drawn[0].axes
    assert len(axes) == panels
    rows = [label.get_text() for label in axes[0].get_yticklabels()]
    assert rows == (["b", "c", "d"] if n_baselines == 1 else methods)
    # A mark and a line for each difference, and the line at zero
    assert [len(panel.lines) for panel in axes] == [7] * panels


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    monkeypatch.setattr(
        "imlkd_brain.comparison.figures.save_png",
        lambda figure, path: figures.append(figure),
    )
    return figures


def test_curves_are_told_apart_without_colour(drawn):
    """On a grey print, and by those who do not see colours."""
    methods = list("abcdefg")
    curves = pd.DataFrame(
        [
            {"method": m, "epoch": e, "updates": e, "minutes": e, "eer": 9.0}
            for m in methods
            for e in (1, 2)
        ]
    )
    training_curves("x.png", curves)
    (figure,) = drawn
    for panel in figure.axes:
        styles = [
            (line.get_marker(), line.get_linestyle()) for line in panel.lines
        ]
        assert len(set(styles)) == len({marker for marker, _ in styles}) == 7


def test_paired_runs_have_a_panel_a_method(drawn):
    differences = [
        {"method": m, "baseline": b, "relative": -1.0, "low": -2.0, "high": 0.5}
        for m in ("ours", "plus")
        for b in ("scratch", "teacher", "ours", "plus")
        if m != b
    ]
    rows = ["scratch", "teacher"]
    paired_intervals("x.png", differences, ["ours", "plus"], rows, "title")
    (figure,) = drawn
    assert [panel.get_title() for panel in figure.axes] == ["ours", "plus"]
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == rows
    # A mark and a line for each difference, and the line at zero
    assert [len(panel.lines) for panel in figure.axes] == [5, 5]
