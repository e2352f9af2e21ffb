"""Unit tests of ``imlkd_brain.comparison.figures``."""

import pytest

from imlkd_brain.comparison.figures import difference_intervals


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
    monkeypatch.setattr(
        "imlkd_brain.verification.figures.save_png",
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
