"""The metrics against their definitions, by brute force, and SpeechBrain's."""

import math
import time

import numpy as np
import pytest
import torch
from bench_verification import bootstrap_of_whole_lists, speaker_trials
from hypothesis import given, settings
from hypothesis import strategies as st

from imlkd_brain.metrics import (
    EER,
    _SortedTrials,
    actual_dcf,
    bootstrap_counts,
    bootstrap_over_speakers,
    cllr,
    confidence_interval,
    det_points,
    error_rates,
    min_cllr,
    minDCF,
    normalised_min_dcf,
    rocch_eer,
    summary,
)
from speechbrain.utils.metric_stats import EER as speechbrain_eer
from speechbrain.utils.metric_stats import minDCF as speechbrain_min_dcf

# Few values make ties, within a kind and across; the others make none.
TIED = st.integers(-3, 3).map(float)
FREE = st.floats(-5, 5, width=32)
SCORES = st.one_of(
    *(
        st.tuples(
            st.lists(values, min_size=1, max_size=12),
            st.lists(values, min_size=1, max_size=12),
        )
        for values in (TIED, FREE)
    )
)
# Every magnitude, up to where the sum of two scores overflows.
EXTREME = {
    torch.float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    torch.float64: st.floats(width=64, allow_nan=False, allow_infinity=False),
}


def tensors(scores, dtype=torch.float32):
    """Positive and negative scores as tensors."""
    return [torch.tensor(kind, dtype=dtype) for kind in scores]


def operating_points(scores):
    """(threshold, p_miss, p_fa) by counting, accept-everything included."""
    positive, negative = scores
    points = [(-math.inf, 0.0, 1.0)]
    for threshold in sorted({*positive, *negative}):
        missed = sum(score <= threshold for score in positive)
        accepted = sum(score > threshold for score in negative)
        points.append(
            (threshold, missed / len(positive), accepted / len(negative))
        )
    return points


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


def test_bootstrap_is_the_metric_on_the_drawn_speakers_trials():
    """A draw's figures are those of the trials, repeated as often as drawn."""
    generator = torch.Generator().manual_seed(3)
    speakers, trials = 6, 300
    enrol = torch.randint(speakers, (trials,), generator=generator)
    test = torch.randint(speakers, (trials,), generator=generator)
    test[:120] = enrol[:120]
    labels = enrol == test
    scores = torch.randn(trials, generator=generator) + labels.float()
    scores = scores.mul(4).round()  # with ties
    draws = bootstrap_over_speakers(
        scores, labels, enrol, test, p_target=0.1, samples=5, seed=7
    )
    drawn = torch.randint(
        speakers, (5, speakers), generator=torch.Generator().manual_seed(7)
    )
    for sample in range(5):
        times = torch.bincount(drawn[sample], minlength=speakers)
        repeats = torch.where(labels, times[enrol], times[enrol] * times[test])
        positive = scores.repeat_interleave(repeats * labels)
        negative = scores.repeat_interleave(repeats * ~labels)
        _, p_miss, p_fa = error_rates(positive, negative)
        best = torch.argmin((p_fa - p_miss).abs())
        # Cumulated float64 weights are whole numbers, so only the divisions
        # round.
        assert float(draws["eer"][sample]) == pytest.approx(
            float(p_fa[best] + p_miss[best]) / 2, abs=1e-12
        )
        expected = normalised_min_dcf(positive, negative, [0.1])[0.1][0]
        assert float(draws["min_dcf"][sample]) == pytest.approx(
            expected, abs=1e-12
        )


@pytest.mark.parametrize("step", [None, 0.25, 1.0])
def test_bootstrap_equals_the_one_that_sums_up_whole_lists(step):
    """To the last bit, ties and draws without one kind included."""
    generator = torch.Generator().manual_seed(4)

    def whole(low, high, size=(1,)):
        return torch.randint(low, high, size, generator=generator)

    undefined = 0
    for seed in range(40):
        speakers, trials = int(whole(2, 9)), int(whole(4, 400))
        enrol, test = whole(0, speakers, (2, trials))
        test[: trials // 3] = enrol[: trials // 3]
        labels = enrol == test
        scores = torch.randn(trials, generator=generator) + labels.float()
        if step is not None:
            scores = (scores / step).round() * step
        if not 0 < int(labels.sum()) < trials:
            continue
        options = {"p_target": (0.01, 0.1, 0.5)[seed % 3], "samples": 20}
        listed = (scores, labels, enrol, test)
        ours = bootstrap_over_speakers(*listed, seed=seed, **options)
        plain = bootstrap_of_whole_lists(*listed, seed=seed, **options)
        for name, values in plain.items():
            torch.testing.assert_close(
                ours[name], values, rtol=0, atol=0, equal_nan=True
            )
        undefined += int(ours["eer"].isnan().sum())
    assert undefined > 0


def test_counts_too_large_for_int32_are_summed_up_as_exactly():
    listed = speaker_trials(8, 2000)
    trials = _SortedTrials(*listed)
    counts = bootstrap_counts(8, 5, torch.Generator().manual_seed(0))
    few = trials.lowest(counts, 0.01, 1.0, 1.0)
    many = trials.lowest(2.0**15 * counts, 0.01, 1.0, 1.0)
    for plain, scaled in zip(few, many, strict=True):
        assert torch.equal(plain, scaled)


def test_draws_of_a_long_list_take_little_of_their_summing_up():
    """The benchmark says how little; this says that it has not been lost."""
    listed = speaker_trials(40, 200000)

    def seconds_of_a_draw(function, samples):
        began = time.process_time()
        function(*listed, samples=samples)
        return (time.process_time() - began) / samples

    # Both sort the list once, which these few draws do not make up for.
    ours = min(
        seconds_of_a_draw(bootstrap_over_speakers, 200) for _ in range(3)
    )
    assert seconds_of_a_draw(bootstrap_of_whole_lists, 40) > 4 * ours


def test_bootstrap_over_speakers_sees_what_resampling_trials_does_not():
    """Trials of a speaker are alike: the interval must not shrink with them."""
    widths = []
    for repeats in (1, 30):
        generator = torch.Generator().manual_seed(5)
        speakers = 20
        enrol = torch.arange(speakers).repeat_interleave(4)
        test = torch.cat([enrol[:40], enrol.roll(7)[40:]])
        test = torch.where(torch.arange(80) % 2 == 0, enrol, test.roll(9))
        labels = enrol == test
        scores = torch.randn(80, generator=generator) + labels.float()
        draws = bootstrap_over_speakers(
            scores.repeat(repeats),
            labels.repeat(repeats),
            enrol.repeat(repeats),
            test.repeat(repeats),
            samples=400,
        )
        low, high = confidence_interval(draws["eer"])
        widths.append(high - low)
    # Repeating every trial adds no information; the same draws, so equal.
    assert widths[1] == pytest.approx(widths[0], abs=1e-12)
    assert widths[0] > 0.05


def test_bootstrap_draws_without_one_kind_are_left_out():
    """With two speakers half of the draws have no nontarget trial."""
    draws = bootstrap_over_speakers(
        torch.tensor([1.0, 2.0, 0.0]),
        torch.tensor([True, True, False]),
        torch.tensor([0, 1, 0]),
        torch.tensor([0, 1, 1]),
        samples=64,
    )
    undefined = draws["eer"].isnan()
    assert 0 < int(undefined.sum()) < 64
    assert confidence_interval(draws["eer"]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="more speakers"):
        confidence_interval(draws["eer"][undefined])


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


def test_summary_names_the_figures():
    """The summary holds what the single functions return."""
    generator = torch.Generator().manual_seed(2)
    positive = torch.randn(80, generator=generator) + 1
    negative = torch.randn(90, generator=generator)
    figures = summary(positive, negative, [0.01, 0.05])
    assert (figures["eer"], figures["eer_threshold"]) == EER(positive, negative)
    assert figures["rocch_eer"] == rocch_eer(positive, negative)
    assert figures["min_cllr"] == min_cllr(positive, negative)
    # float32 rates in SpeechBrain's minDCF against float64 ones.
    assert figures["min_dcf_0.05"] == pytest.approx(
        figures["min_dcf_speechbrain_0.05"] / 0.05, rel=1e-6
    )
