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
    calibrate = train_calibration(features, labels)
    grid = torch.linspace(-2, 2, 5)
    ratio = calibration_features(grid, seconds[:5], seconds[:5])
    # 12,000 targets: the slope's standard error is about 0.02.
    torch.testing.assert_close(
        calibrate(ratio), 2.0 * grid.double(), atol=0.15, rtol=0
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
    calibrate = train_calibration(
        calibration_features(scores, enrol_seconds, test_seconds), labels
    )
    ratios = calibration_features(
        torch.ones(2), torch.full((2,), 6.0), torch.tensor([1.0, 4.0])
    )
    one_second, four_seconds = calibrate(ratios).tolist()
    # True ratios: 2 * separation * score, 1 and 4.
    assert one_second == pytest.approx(1.0, abs=0.3)
    assert four_seconds == pytest.approx(4.0, abs=0.6)


def test_a_feature_that_never_varied_gets_no_weight():
    """Dev trials of one duration say nothing about others."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(200) % 2 == 0
    scores = torch.randn(200, generator=generator) + 2 * labels
    seconds = torch.full((200,), 3.0)
    calibrate = train_calibration(
        calibration_features(scores, seconds, seconds), labels
    )
    ratios = [
        calibrate(calibration_features(scores, enrol, seconds))
        for enrol in (seconds, 10 * seconds)
    ]
    # A constant is standardised to a few 1e-16, not to zero.
    torch.testing.assert_close(*ratios, atol=1e-9, rtol=0)


def test_calibration_is_the_optimum_that_newton_s_method_finds():
    """Of the weighted, standardised and weakly penalised regression."""
    pytest.importorskip("sklearn")
    generator = torch.Generator().manual_seed(6)
    labels = torch.rand(300, generator=generator) < 0.2
    scores = 0.2 * torch.randn(300, generator=generator) + 0.4 * labels
    enrol, test = 1 + 5 * torch.rand(2, 300, generator=generator)
    features = calibration_features(scores, enrol, test)
    ratios = train_calibration(features, labels)(features)
    x = (features - features.mean(0)) / features.std(0, correction=0)
    x = torch.nn.functional.pad(x, (0, 1), value=1.0)
    weight = 1e4 * torch.where(
        labels, 150 / labels.sum(), 150 / (~labels).sum()
    )
    penalty = torch.diag(torch.tensor([1.0, 1, 1, 1, 0]).double())
    w = torch.zeros(5, dtype=torch.float64)
    for _ in range(15):
        p = torch.sigmoid(x @ w)
        gradient = x.T @ (weight * (p - labels.double())) + penalty @ w
        hessian = x.T @ ((weight * p * (1 - p))[:, None] * x) + penalty
        w -= torch.linalg.solve(hessian, gradient)
    # The solver stops early: its log-likelihood ratios, up to about 10 here,
    # are within a few hundredths of the optimum's.
    torch.testing.assert_close(ratios, x @ w, atol=0.05, rtol=0)
