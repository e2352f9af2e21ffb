"""Unit tests of ``imlkd_brain.metrics.likelihood_ratios``."""

import math

import numpy as np
import pytest
import torch
from helpers.scores import SCORES, operating_points, tensors
from hypothesis import given, settings

from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.metrics.likelihood_ratios import cllr, min_cllr, rocch_eer


@given(scores=SCORES)
@settings(max_examples=80, deadline=None)
def test_rocch_eer_is_the_lowest_mixture_of_operating_points(scores):
    """The hull is all mixtures of two points: try every pair of them."""
    points = [(p_miss, p_fa) for _, p_miss, p_fa in operating_points(scores)]
    crossings = []
    for miss_a, fa_a in points:
        for miss_b, fa_b in points:
            gap_a, gap_b = fa_a - miss_a, miss_b - fa_b
            if gap_a >= 0 and gap_b >= 0:
                share = gap_a / (gap_a + gap_b) if gap_a + gap_b else 0.0
                crossings.append(miss_a + share * (miss_b - miss_a))
    # Products of rationals with denominators up to 12, in float64.
    assert rocch_eer(*tensors(scores)) == pytest.approx(
        min(crossings), abs=1e-12
    )


@given(scores=SCORES)
@settings(max_examples=60, deadline=None)
def test_min_cllr_by_the_min_max_formula(scores):
    """Isotonic regression is max over starts of min over ends of means."""
    positive, negative = scores
    values = sorted({*positive, *negative})
    targets = np.array([positive.count(v) for v in values], dtype=float)
    others = np.array([negative.count(v) for v in values], dtype=float)
    cost = 0.0
    for i in range(len(values)):
        share = max(
            min(
                targets[a : b + 1].sum()
                / (targets[a : b + 1] + others[a : b + 1]).sum()
                for b in range(i, len(values))
            )
            for a in range(i + 1)
        )
        if targets[i]:
            odds = share / (1 - share) if share < 1 else math.inf
            ratio = odds * len(negative) / len(positive)
            cost += targets[i] / len(positive) * math.log2(1 + 1 / ratio)
        if others[i]:
            odds = share / (1 - share)
            ratio = odds * len(negative) / len(positive)
            cost += others[i] / len(negative) * math.log2(1 + ratio)
    # Sums of at most 24 logarithms in float64.
    assert min_cllr(*tensors(scores)) == pytest.approx(cost / 2, abs=1e-9)


def test_cllr_in_closed_form():
    """One trial of each kind, and the useless system."""
    expected = (math.log2(1 + math.exp(-1)) + math.log2(1 + math.exp(2))) / 2
    # float64 throughout: a few roundings.
    assert cllr(torch.tensor([1.0]), torch.tensor([2.0])) == pytest.approx(
        expected, rel=1e-14
    )
    assert cllr(torch.zeros(4), torch.zeros(3)) == 1.0


@given(scores=SCORES)
@settings(max_examples=40, deadline=None)
def test_order_is_all_that_counts(scores):
    """An increasing map of the scores changes no threshold-free measure."""
    positive, negative = tensors(scores, torch.float64)
    # By way of the ranks, so that no two scores fall together in rounding.
    _, ranks = torch.unique(
        torch.cat([positive, negative]), return_inverse=True
    )
    mapped = torch.exp(ranks.double()).split([len(positive), len(negative)])
    for measure in (rocch_eer, min_cllr):
        # The same counts enter the same operations.
        assert measure(positive, negative) == measure(*mapped)
    assert EER(positive, negative)[0] == EER(*mapped)[0]
    # No map of the scores can beat the best map.
    assert min_cllr(positive, negative) <= cllr(positive, negative) + 1e-12
