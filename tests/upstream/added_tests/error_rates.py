"""Tests that a patch appends to one of SpeechBrain's test files."""

import torch


def _rates_at(threshold, positive_scores, negative_scores):
    p_miss = (positive_scores <= threshold).float().mean().item()
    p_fa = (negative_scores > threshold).float().mean().item()
    return p_miss, p_fa


def test_EER_and_minDCF_agree_with_counting_at_every_threshold(device):
    from speechbrain.utils.metric_stats import EER, minDCF

    torch.manual_seed(0)
    for n_positive, n_negative in [(1, 1), (5, 9), (40, 60)]:
        for decimals in (1, 4):  # many ties, few ties
            positive = torch.randn(n_positive, device=device) + 1
            negative = torch.randn(n_negative, device=device)
            positive = (positive * 10**decimals).round() / 10**decimals
            negative = (negative * 10**decimals).round() / 10**decimals
            scores = torch.cat([positive, negative]).unique()
            thresholds = torch.cat([scores, (scores[:-1] + scores[1:]) / 2])
            rates = [_rates_at(t, positive, negative) for t in thresholds]

            eer, threshold = EER(positive, negative)
            p_miss, p_fa = _rates_at(threshold, positive, negative)
            assert abs(eer - (p_miss + p_fa) / 2) < 1e-6
            smallest = min(abs(miss - fa) for miss, fa in rates)
            assert abs(abs(p_miss - p_fa) - smallest) < 1e-6

            min_dcf, threshold = minDCF(positive, negative, p_target=0.1)
            p_miss, p_fa = _rates_at(threshold, positive, negative)
            assert abs(min_dcf - (0.1 * p_miss + 0.9 * p_fa)) < 1e-6
            lowest = min(0.1 * miss + 0.9 * fa for miss, fa in rates)
            assert abs(min_dcf - lowest) < 1e-6


def test_EER_and_minDCF_of_many_trials(device):
    # 300,000 trials: their matrix of trials by thresholds would need 180 GB
    from speechbrain.utils.metric_stats import EER, minDCF

    positive = torch.arange(100_000, device=device) / 100_000 + 0.5
    negative = torch.arange(200_000, device=device) / 200_000
    eer, threshold = EER(positive, negative)
    assert abs(eer - 0.25) < 1e-4
    assert abs(threshold - 0.75) < 1e-4
    min_dcf, _ = minDCF(positive, negative, p_target=0.5)
    assert abs(min_dcf - 0.25) < 1e-4


def test_EER_and_minDCF_refuse_scores_that_are_not_finite(device):
    import pytest

    from speechbrain.utils.metric_stats import EER, minDCF

    broken = torch.tensor([0.1, float("nan")], device=device)
    whole = torch.tensor([0.2, 0.3], device=device)
    for function in (EER, minDCF):
        with pytest.raises(ValueError, match="negative_scores.*index 1"):
            function(whole, broken)
