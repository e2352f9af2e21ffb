"""Unit tests of ``imlkd_brain.explanation.agreement``."""

import pytest
import torch
from scipy.stats import spearmanr

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.agreement import (
    RankedMap,
    agreement,
    average_ranks,
    rank_correlation,
    time_profile,
    top_share,
)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties):
    one, other = torch.randn(2, 3, 12, 7).unbind()
    other = other + one
    if ties:
        one, other = (4 * one).round(), (4 * other).round()
    rho = rank_correlation(one, other)
    for item in range(3):
        expected = spearmanr(one[item].flatten(), other[item].flatten())
        assert float(rho[item]) == pytest.approx(expected.statistic, abs=1e-12)


def test_equal_values_share_their_mean_rank():
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    expected = [[3.5, 1.0, 3.5, 2.0], [2.5, 2.5, 2.5, 2.5]]
    assert average_ranks(values).tolist() == expected


def test_a_map_agrees_wholly_with_itself_and_only_with_its_shape():
    one = RankedMap.of(torch.rand(30, 8), 0.2)
    assert agreement(one, one).tolist() == pytest.approx([1, 1, 1])
    with pytest.raises(UserError, match=r"\(30, 8\) and \(30, 9\)"):
        agreement(one, RankedMap.of(torch.rand(30, 9), 0.2))


def test_a_constant_map_correlates_with_nothing():
    rho = rank_correlation(torch.ones(1, 9), torch.randn(1, 9))
    assert rho.item() == 0


def test_unrelated_maps_share_what_chance_gives_them():
    generator = torch.Generator().manual_seed(0)
    one, other = (
        top_share(torch.rand(8, 100, 80, generator=generator), 0.2)
        for _ in range(2)
    )
    assert (one.flatten(1).sum(1) == 1600).all()
    overlap = (one & other).sum() / one.sum()
    # Standard error of a share of 0.2 of 12,800 bins: 0.0035.
    assert float(overlap) == pytest.approx(0.2, abs=0.015)


def test_time_profile_has_mean_one_and_survives_an_empty_map():
    maps = torch.stack((torch.randn(30, 8), torch.zeros(30, 8)))
    profile = time_profile(maps)
    assert profile[0].mean().item() == pytest.approx(1.0, abs=1e-6)
    assert profile[1].abs().max() == 0
