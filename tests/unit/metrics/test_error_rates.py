"""Unit tests of ``imlkd_brain.metrics.error_rates``."""

import math

import numpy as np
import pytest
import torch
from helpers.scores import SCORES, operating_points, tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from imlkd_brain.metrics.error_rates import (
    EER,
    actual_dcf,
    det_points,
    error_rates,
    minDCF,
    normalised_min_dcf,
)
from imlkd_brain.metrics.likelihood_ratios import cllr, min_cllr, rocch_eer
from imlkd_brain.verification.measures import summary
from speechbrain.utils.metric_stats import EER as speechbrain_eer
from speechbrain.utils.metric_stats import minDCF as speechbrain_min_dcf

# Few values make ties, within a kind and across; the others make none.
TIED = st.integers(-3, 3).map(float)

# Every magnitude, up to where the sum of two scores overflows.
EXTREME = {
    torch.float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    torch.float64: st.floats(width=64, allow_nan=False, allow_infinity=False),
}


@given(scores=SCORES, p_target=st.sampled_from([0.01, 0.05, 0.5, 0.9]))
@settings(max_examples=150, deadline=None)
def test_same_as_speechbrain_bit_for_bit(scores, p_target):
    """Value and threshold are equal, not close, ties or not."""
    positive, negative = tensors(scores)
    assert EER(positive, negative) == speechbrain_eer(positive, negative)
    costs = {"c_miss": 1.0, "c_fa": 2.0, "p_target": p_target}
    assert minDCF(positive, negative, **costs) == speechbrain_min_dcf(
        positive, negative, **costs
    )


@pytest.mark.parametrize("dtype", EXTREME)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_same_as_speechbrain_at_any_magnitude(dtype, data):
    """Huge scores, whose midpoints overflow, and subnormal ones too."""
    scores = st.lists(EXTREME[dtype], min_size=1, max_size=6)
    positive, negative = tensors((data.draw(scores), data.draw(scores)), dtype)
    assert EER(positive, negative) == speechbrain_eer(positive, negative)
    assert minDCF(positive, negative) == speechbrain_min_dcf(positive, negative)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_same_as_speechbrain_in_half_precision(dtype):
    """Coarse types round most midpoints onto a score."""
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(40, generator=generator).add(1).to(dtype)
    negative = torch.randn(60, generator=generator).to(dtype)
    assert EER(positive, negative) == speechbrain_eer(positive, negative)
    assert minDCF(positive, negative) == speechbrain_min_dcf(positive, negative)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(
                not torch.cuda.is_available(), reason="no GPU here"
            ),
        ),
    ],
)
def test_same_as_speechbrain_on_many_rounded_scores(device):
    """Thousands of trials with ties, on the scores' device."""
    generator = torch.Generator().manual_seed(1)
    positive = torch.randn(700, generator=generator).add(1.5)
    negative = torch.randn(900, generator=generator)
    positive, negative = (
        scores.mul(50).round().div(50).to(device)
        for scores in (positive, negative)
    )
    assert EER(positive, negative) == speechbrain_eer(positive, negative)
    assert minDCF(positive, negative) == speechbrain_min_dcf(positive, negative)


def test_known_values():
    """Worked by hand."""
    positive = torch.tensor([1.0, 2.0, 3.0, 4.0])
    negative = torch.tensor([0.0, 0.5, 2.5, -1.0])
    # At 2.0: two targets of four missed, one nontarget of four accepted; at
    # 1.0: one missed, one accepted, the rates are equal.
    assert EER(positive, negative) == (0.25, 1.0)
    # At 2.5 nothing is accepted wrongly and two of four are missed; to accept
    # one nontarget of four costs 0.99 / 4, far more.
    min_dcf, threshold = minDCF(positive, negative, p_target=0.01)
    assert threshold == 2.5
    # float32 rates: relative error 2^-24, about 1e-7.
    assert min_dcf == pytest.approx(0.01 * 0.5, rel=1e-6)
    value, threshold = normalised_min_dcf(positive, negative, [0.01])[0.01]
    assert (value, threshold) == (pytest.approx(0.5), 2.5)


@given(scores=SCORES)
@settings(max_examples=80, deadline=None)
def test_error_rates_are_counts(scores):
    """Rates at every threshold, by counting each trial."""
    thresholds, p_miss, p_fa = error_rates(*tensors(scores))
    found = list(
        zip(thresholds.tolist(), p_miss.tolist(), p_fa.tolist(), strict=True)
    )
    assert found == operating_points(scores)


@given(scores=SCORES, threshold=TIED)
@settings(max_examples=80, deadline=None)
def test_detection_costs_by_counting(scores, threshold):
    """Normalised minimum at several priors, and the cost at a threshold."""
    priors = [0.001, 0.05, 0.5, 0.9]
    found = normalised_min_dcf(*tensors(scores), priors, c_miss=2.0, c_fa=3.0)
    for p_target in priors:
        unit = min(2.0 * p_target, 3.0 * (1 - p_target))
        costs = [
            (2.0 * p_target * p_miss + 3.0 * (1 - p_target) * p_fa) / unit
            for _, p_miss, p_fa in operating_points(scores)
        ]
        # Two orders of the same float64 operations.
        assert found[p_target][0] == pytest.approx(min(costs), rel=1e-12)
        assert found[p_target][0] <= 1 + 1e-12
    positive, negative = scores
    p_miss = np.mean([score <= threshold for score in positive])
    p_fa = np.mean([score > threshold for score in negative])
    assert actual_dcf(
        *tensors(scores), p_target=0.05, threshold=threshold
    ) == pytest.approx((0.05 * p_miss + 0.95 * p_fa) / 0.05, rel=1e-12)


def test_actual_dcf_of_log_likelihood_ratios_uses_bayes_threshold():
    """At prior 0.01 and equal costs the threshold is log(99)."""
    llr = torch.tensor([math.log(99) - 0.01, math.log(99) + 0.01])
    assert actual_dcf(llr, torch.tensor([-9.0]), p_target=0.01) == 0.5


@given(scores=SCORES)
@settings(max_examples=60, deadline=None)
def test_det_points_are_the_corners_of_the_curve(scores):
    """Walking the corners passes every operating point."""
    p_fa, p_miss = (axis.tolist() for axis in det_points(*tensors(scores)))
    corners = list(zip(p_miss, p_fa, strict=True))
    assert corners[0] == (0.0, 1.0) and corners[-1] == (1.0, 0.0)
    for _, miss, fa in operating_points(scores):
        assert (miss, fa) in corners or any(
            (a[0] == miss == b[0] and a[1] > fa > b[1])
            or (a[1] == fa == b[1] and a[0] < miss < b[0])
            for a, b in zip(corners, corners[1:], strict=False)
        )


@pytest.mark.parametrize(
    "measure",
    [EER, minDCF, error_rates, cllr, min_cllr, rocch_eer, det_points, summary],
)
def test_unusable_scores_are_named(measure):
    """Which side, how many, where the first is."""
    good = torch.tensor([0.5, 1.0])
    with pytest.raises(ValueError, match="positive_scores is empty"):
        measure(torch.tensor([]), good)
    with pytest.raises(ValueError, match="negative_scores is empty"):
        measure(good, torch.tensor([]))
    bad = torch.tensor([0.0, math.nan, math.inf])
    with pytest.raises(
        ValueError, match=r"negative_scores holds 2 .* first at index 1 \(nan"
    ):
        measure(good, bad)


@pytest.mark.parametrize("p_target", [0.0, 1.0, -0.1])
def test_priors_outside_0_1_are_refused(p_target):
    """They would divide by zero or mean nothing."""
    scores = torch.tensor([1.0]), torch.tensor([0.0])
    with pytest.raises(ValueError, match="p_target"):
        normalised_min_dcf(*scores, [p_target])
    with pytest.raises(ValueError, match="p_target"):
        actual_dcf(*scores, p_target=p_target)
