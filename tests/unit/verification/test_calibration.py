"""Unit tests of ``imlkd_brain.verification.calibration``."""

import pytest
import torch

from imlkd_brain.verification.calibration import (
    calibration_features,
    train_calibration,
)


def test_calibration_finds_the_log_likelihood_ratio():
    """Gaussian scores of variance 1 and means +-1 have the ratio 2 * score."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(3)
    labels = torch.rand(60000, generator=generator) < 0.2
    scores = torch.randn(60000, generator=generator) + 2.0 * labels - 1.0
    seconds = torch.full((60000,), 3.0)
    features = calibration_features(scores, seconds, seconds)
    weights, offset = train_calibration(features, labels)
    grid = torch.linspace(-2, 2, 5)
    ratio = calibration_features(grid, seconds[:5], seconds[:5])
    # 12,000 targets: the slope's standard error is about 0.02.
    torch.testing.assert_close(
        ratio @ weights + offset, 2.0 * grid.double(), atol=0.15, rtol=0
    )


def test_calibration_trusts_short_speech_less():
    """Where 1 s says half as much as 4 s, its scores count for less."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(4)
    labels = torch.rand(20000, generator=generator) < 0.5
    short = torch.rand(20000, generator=generator) < 0.5
    separation = torch.where(short, 0.5, 2.0) * (2.0 * labels - 1.0)
    scores = torch.randn(20000, generator=generator) + separation
    test_seconds = torch.where(short, 1.0, 4.0)
    enrol_seconds = torch.full((20000,), 6.0)
    weights, offset = train_calibration(
        calibration_features(scores, enrol_seconds, test_seconds), labels
    )
    ratios = calibration_features(
        torch.ones(2), torch.full((2,), 6.0), torch.tensor([1.0, 4.0])
    )
    one_second, four_seconds = (ratios @ weights + offset).tolist()
    # True ratios: 2 * separation * score, 1 and 4.
    assert one_second == pytest.approx(1.0, abs=0.3)
    assert four_seconds == pytest.approx(4.0, abs=0.6)
