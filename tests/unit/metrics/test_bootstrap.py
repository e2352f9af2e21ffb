"""Unit tests of ``imlkd_brain.metrics.bootstrap``."""

import time

import pytest
import torch
from bench_verification import bootstrap_of_whole_lists, speaker_trials

from imlkd_brain.metrics.bootstrap import (
    _SortedTrials,
    bootstrap_counts,
    bootstrap_over_speakers,
    confidence_interval,
    interval,
    replicated_means,
    weighted_eer,
)
from imlkd_brain.metrics.error_rates import EER, error_rates, normalised_min_dcf


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


def test_weighted_eer_is_the_eer_of_the_list():
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(400, generator=generator) < 0.3
    scores = torch.randn(400, generator=generator) + 1.5 * labels
    scores = (20 * scores).round() / 20  # with ties
    ours = weighted_eer(scores, labels, torch.ones(1, 400))
    theirs, _ = EER(scores[labels], scores[~labels])
    # Both take the nearest threshold; which of two equally near ones differs
    # by at most one target or nontarget trial.
    assert float(ours) == pytest.approx(theirs, abs=1 / 100)


def test_a_weight_of_three_is_a_trial_listed_three_times():
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([True, False] * 30)
    scores = torch.randn(60, generator=generator) + labels
    weights = torch.randint(0, 4, (5, 60), generator=generator)
    ours = weighted_eer(scores, labels, weights)
    for row in range(5):
        index = torch.repeat_interleave(torch.arange(60), weights[row])
        listed = weighted_eer(
            scores[index], labels[index], torch.ones(1, len(index))
        )
        assert float(ours[row]) == pytest.approx(float(listed), abs=1e-12)


def test_weighted_eer_is_the_nearest_of_all_thresholds():
    generator = torch.Generator().manual_seed(3)
    for _ in range(200):
        labels = torch.rand(9, generator=generator) < 0.5
        labels[0], labels[1] = True, False
        scores = (4 * torch.randn(9, generator=generator)).round()
        gaps = {}
        for threshold in [*scores.tolist(), 99.0]:
            miss = (scores[labels] < threshold).double().mean()
            alarm = (scores[~labels] >= threshold).double().mean()
            gap = round(float((miss - alarm).abs()), 9)
            gaps.setdefault(gap, set()).add(float((miss + alarm) / 2))
        eer = weighted_eer(scores, labels, torch.ones(1, 9))
        # Where two thresholds are equally near, either will do.
        assert any(abs(float(eer) - v) < 1e-9 for v in gaps[min(gaps)])


def test_weighted_eer_without_targets_is_nan():
    labels = torch.tensor([True, False, False])
    eer = weighted_eer(
        torch.tensor([0.3, 0.2, 0.1]), labels, torch.tensor([[0.0, 1, 1]])
    )
    assert eer.isnan().all()


def test_bootstrap_means_equal_a_loop_over_drawn_speakers():
    generator = torch.Generator().manual_seed(4)
    speaker = torch.tensor([0, 0, 1, 2, 2, 2])
    values = torch.randn(6, 2, generator=generator)
    counts = bootstrap_counts(3, 20, generator)
    assert (counts.sum(1) == 3).all()
    mean, replicates = replicated_means(values, speaker, counts)
    assert torch.allclose(mean.float(), values.mean(0))
    for row in range(20):
        times = counts[row].long()[speaker]
        drawn = values.repeat_interleave(times, 0)
        assert torch.allclose(replicates[row].float(), drawn.mean(0))


def test_the_interval_is_as_wide_as_the_speakers_spread():
    generator = torch.Generator().manual_seed(5)
    per_speaker = torch.randn(400, generator=generator)
    # Ten utterances a speaker, all alike: worth one, not ten.
    values = per_speaker.repeat_interleave(10)
    speaker = torch.arange(400).repeat_interleave(10)
    counts = bootstrap_counts(400, 2000, generator)
    _, replicates = replicated_means(values, speaker, counts)
    low, high = interval(replicates, 0.95)
    expected = 2 * 1.96 * per_speaker.std() / 400**0.5
    # 2,000 replicates place a 2.5 % quantile within about 5 %.
    assert float(high - low) == pytest.approx(float(expected), rel=0.1)
