"""Unit tests of ``imlkd_brain.verification.figures``."""

import pytest
import torch

from imlkd_brain.metrics.error_rates import EER, det_points
from imlkd_brain.verification.figures import det_plot, score_histogram


@pytest.mark.parametrize("scores", ["spread", "separated", "equal"])
def test_plots_are_drawn_for_any_scores(tmp_path, scores):
    """Perfect and useless systems have a plot too."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    targets, nontargets = torch.randn(50) + 1, torch.randn(50)
    if scores == "separated":
        targets = targets + 100
    if scores == "equal":
        targets, nontargets = torch.zeros(9), torch.zeros(9)
    keys = [("model a", d) for d in ("full", "1s")]
    threshold = EER(targets, nontargets)[1]
    det_plot(
        tmp_path / "det.png",
        dict.fromkeys(keys, det_points(targets, nontargets)),
        "list",
    )
    score_histogram(
        tmp_path / "histogram.png",
        dict.fromkeys(keys, (targets, nontargets, threshold)),
        "list",
    )
    for name in ("det.png", "histogram.png"):
        image = matplotlib_image.imread(tmp_path / name)
        assert image.shape[0] > 300 and image.shape[1] > 600
        assert image[..., :3].std() > 0.02  # not blank
