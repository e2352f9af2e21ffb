"""Unit tests of ``imlkd_brain.metrics.bootstrap``."""

import time

import pytest
import torch
from bench_verification import bootstrap_of_whole_lists, speaker_trials

from imlkd_brain.metrics.bootstrap import (
    _SortedTrials,
    bootstrap_counts,
    bootstrap_over_speakers,
    replicated_means,
)
from imlkd_brain.metrics.error_rates import error_rates, normalised_min_dcf
from imlkd_brain.metrics.intervals import percentile_interval


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
    counts = bootstrap_counts(speakers, 5, torch.Generator().manual_seed(7))
    eer, min_dcf = bootstrap_over_speakers(
        scores, labels, enrol, test, counts, p_target=0.1
    )
    drawn = torch.randint(
        speakers, (5, speakers), generator=torch.Generator().manual_seed(7)
    )
    for sample in range(5):
        times = torch.bincount(drawn[sample], minlength=speakers)
        assert counts[sample].tolist() == times.tolist()
        repeats = torch.where(labels, times[enrol], times[enrol] * times[test])
        positive = scores.repeat_interleave(repeats * labels)
        negative = scores.repeat_interleave(repeats * ~labels)
        _, p_miss, p_fa = error_rates(positive, negative)
        best = torch.argmin((p_fa - p_miss).abs())
        # Cumulated float64 weights are whole numbers, so only the divisions
        # round.
        assert float(eer[sample]) == pytest.approx(
            float(p_fa[best] + p_miss[best]) / 2, abs=1e-12
        )
        expected = normalised_min_dcf(positive, negative, [0.1])[0.1][0]
        assert float(min_dcf[sample]) == pytest.approx(expected, abs=1e-12)


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
        counts = bootstrap_counts(speakers, 20, generator)
        listed = (scores, labels, enrol, test, counts)
        p_target = (0.01, 0.1, 0.5)[seed % 3]
        ours = bootstrap_over_speakers(*listed, p_target)
        plain = bootstrap_of_whole_lists(*listed, p_target)
        torch.testing.assert_close(ours, plain, rtol=0, atol=0, equal_nan=True)
        undefined += int(ours[0].isnan().sum())
    assert undefined > 0


def test_counts_too_large_for_int32_are_summed_up_as_exactly():
    listed = speaker_trials(8, 2000)
    trials = _SortedTrials(*listed)
    counts = bootstrap_counts(8, 5, torch.Generator().manual_seed(0))
    few = trials.lowest(counts, 0.01)
    many = trials.lowest(2.0**15 * counts, 0.01)
    for plain, scaled in zip(few, many, strict=True):
        assert torch.equal(plain, scaled)


def test_draws_of_a_long_list_take_little_of_their_summing_up():
    """The benchmark says how little; this says that it has not been lost."""
    listed = speaker_trials(40, 200000)

    def seconds_of_a_draw(function, samples):
        counts = bootstrap_counts(40, samples)
        began = time.process_time()
        function(*listed, counts)
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
        eer, _ = bootstrap_over_speakers(
            scores.repeat(repeats),
            labels.repeat(repeats),
            enrol.repeat(repeats),
            test.repeat(repeats),
            bootstrap_counts(speakers, 400, torch.Generator().manual_seed(0)),
        )
        low, high = percentile_interval(eer)
        widths.append(float(high - low))
    # Repeating every trial adds no information; the same draws, so equal.
    assert widths[1] == pytest.approx(widths[0], abs=1e-12)
    assert widths[0] > 0.05


def test_bootstrap_draws_without_one_kind_are_left_out():
    """With two speakers half of the draws have no nontarget trial."""
    counts = bootstrap_counts(2, 64, torch.Generator().manual_seed(0))
    eer, _ = bootstrap_over_speakers(
        torch.tensor([1.0, 2.0, 0.0]),
        torch.tensor([True, True, False]),
        torch.tensor([0, 1, 0]),
        torch.tensor([0, 1, 1]),
        counts,
    )
    undefined = eer.isnan()
    assert undefined.tolist() == (counts != 1).all(1).tolist()
    assert 0 < int(undefined.sum()) < 64
    assert percentile_interval(eer) == (0.0, 0.0)
    low, high = percentile_interval(eer[undefined])
    assert low.isnan() and high.isnan()


@pytest.mark.parametrize("step", [None, 0.25, 1.0])
def test_every_speaker_once_gives_the_figures_of_the_list(step):
    """The nearest threshold, and of several the lowest, as the EER's rule."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        trials = int(torch.randint(4, 60, (1,), generator=generator))
        speaker = torch.arange(trials)
        labels = torch.rand(trials, generator=generator) < 0.4
        labels[0], labels[1] = True, False
        scores = torch.randn(trials, generator=generator) + labels
        if step is not None:
            scores = (scores / step).round() * step
        eer, min_dcf = bootstrap_over_speakers(
            scores, labels, speaker, speaker, torch.ones(1, trials), 0.1
        )
        targets, nontargets = scores[labels], scores[~labels]
        _, p_miss, p_fa = error_rates(targets, nontargets)
        # Rates are multiples of 1 / trials: rounding is far below that.
        gap = (p_fa - p_miss).abs().round(decimals=9)
        lowest = int((gap == gap.min()).nonzero()[0])
        assert float(eer) == pytest.approx(
            float(p_miss[lowest] + p_fa[lowest]) / 2, abs=1e-12
        )
        expected = normalised_min_dcf(targets, nontargets, [0.1])[0.1][0]
        assert float(min_dcf) == pytest.approx(expected, abs=1e-12)


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
