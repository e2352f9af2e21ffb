"""Unit tests of ``imlkd_brain.explanation.perturbation``."""

import pytest
import torch
from helpers.patch import METHODS, patch_score

from imlkd_brain.distillation.attribution import enrolment_score
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import Batch, saliency_map
from imlkd_brain.explanation.perturbation import (
    BASELINES,
    UNITS,
    empty_input,
    identification_curves,
    importance_ranks,
    perturbation_outputs,
    perturbed_inputs,
)

N_FRAMES, N_BANDS = 60, 16


@pytest.fixture
def feats():
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(5, N_FRAMES, N_BANDS, generator=generator)
    # Positive, so that every bin of the patch speaks for the speaker, and
    # small enough for tanh to keep a gradient.
    return 0.02 + 0.03 * values


@pytest.fixture
def target():
    return torch.zeros(5, dtype=torch.long)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("insertion", [False, True])
def test_the_ends_of_a_curve_are_the_clean_and_the_empty_input(
    feats, unit, kind, insertion
):
    ranks = importance_ranks(torch.randn_like(feats), unit)
    baseline = empty_input(feats, kind, blur_sigma=4.0)
    ends = (baseline, feats) if insertion else (feats, baseline)
    outputs = perturbation_outputs(
        lambda x: x.flatten(1),
        *ends,
        ranks,
        torch.linspace(0, 1, 21),
        batch_frames=500,
    )
    first, last = outputs[:, 0], outputs[:, -1]
    clean, empty = (last, first) if insertion else (first, last)
    assert torch.equal(clean, feats.flatten(1))
    assert torch.equal(empty, baseline.flatten(1))


def test_each_level_takes_exactly_its_share_most_important_first(feats):
    attribution = torch.randn_like(feats)
    levels = torch.linspace(0, 1, 21)
    outputs = perturbation_outputs(
        lambda x: x.flatten(1),
        feats,
        torch.zeros_like(feats),
        importance_ranks(attribution),
        levels,
    )
    gone = outputs == 0  # the features themselves are positive
    n_bins = N_FRAMES * N_BANDS
    assert (
        gone.sum(2).tolist()
        == [[round(i * n_bins / 20) for i in range(21)]] * 5
    )
    values = attribution.flatten(1)
    for item in range(5):
        for level in range(1, 20):
            lost = values[item][gone[item, level]]
            kept = values[item][~gone[item, level]]
            assert lost.min() >= kept.max()


def test_frames_go_whole(feats):
    ranks = importance_ranks(torch.randn_like(feats), "frames")
    assert ranks.shape == (5, N_FRAMES, 1)
    half = perturbed_inputs(
        feats, torch.zeros_like(feats), ranks, torch.full((5,), 30)
    )
    empty = (half == 0).sum(2)
    assert set(empty.flatten().tolist()) == {0, N_BANDS}
    assert ((empty == N_BANDS).sum(1) == 30).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_true_map_beats_the_random_control(feats, target, method, unit):
    levels = torch.linspace(0, 1, 21)
    areas = {}
    for name in (method, "random"):
        generator = torch.Generator().manual_seed(0)
        batch = Batch(patch_score, feats, target, generator=generator)
        attribution, _ = saliency_map(name, batch, METHODS.get(name))
        ranks = importance_ranks(attribution, unit)
        for insertion in (False, True):
            ends = [feats, torch.zeros_like(feats)]
            if insertion:
                ends.reverse()
            scores = perturbation_outputs(patch_score, *ends, ranks, levels)
            curve = scores[..., 0] / patch_score(feats)[:, :1]
            areas[name, insertion] = torch.trapezoid(curve, levels)
    # The patch is in a sixth of the frames: the score is gone, or there, at
    # 1/6, so the area is within 1/6 of 0 or 1. At random it goes as the share
    # does: 0.5 but for the curvature of tanh and for which frames are drawn.
    assert (areas[method, False] < 1 / 6).all()
    assert (areas[method, True] > 5 / 6).all()
    for insertion in (False, True):
        assert areas["random", insertion].mean() == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("method", [*METHODS, "grad_cam"])
def test_a_batch_equals_one_at_a_time(ecapa, method):
    feats = torch.randn(3, N_FRAMES, N_BANDS)
    feats = feats - feats.mean(1, keepdim=True)
    enrolments = torch.randn(2, 12)
    score = enrolment_score(lambda x: ecapa(x).squeeze(1), enrolments)
    target = torch.tensor([0, 1, 0])
    options = METHODS.get(method, {"layer": "mfa"})
    levels = torch.linspace(0, 1, 5)

    def run(items):
        batch = Batch(score, feats[items], target[items], ecapa)
        attribution, _ = saliency_map(method, batch, options)
        ranks = importance_ranks(
            attribution, generator=torch.Generator().manual_seed(5)
        )
        outputs = perturbation_outputs(
            score,
            empty_input(feats[items], "blur", 3.0),
            feats[items],
            ranks,
            levels,
        )
        return attribution, outputs

    together = run([0, 1, 2])
    for item in range(3):
        alone = run([item])
        scale = together[0][item].abs().max()
        # float32 sums in another order: relative 1e-4.
        assert torch.allclose(
            together[0][item], alone[0][0], atol=1e-4 * float(scale)
        )
        # A swap of two nearly equal bins moves the score by less than this.
        assert torch.allclose(together[1][item], alone[1][0], atol=1e-3)


def test_the_memory_limit_changes_nothing(ecapa):
    feats = torch.randn(3, N_FRAMES, N_BANDS)
    ranks = importance_ranks(torch.randn_like(feats))

    def run(batch_frames):
        return perturbation_outputs(
            lambda x: ecapa(x).squeeze(1),
            feats,
            torch.zeros_like(feats),
            ranks,
            torch.linspace(0, 1, 5),
            batch_frames=batch_frames,
        )

    # float32 rounding of another batch shape.
    assert torch.allclose(run(1), run(10**6), atol=1e-4)


def test_ties_are_ranked_at_random_but_reproducibly():
    flat = torch.zeros(1, 50, 20)

    def ranks(seed):
        return importance_ranks(
            flat, generator=torch.Generator().manual_seed(seed)
        )

    assert torch.equal(ranks(1), ranks(1))
    # The first fifth of the ranks is not the first fifth of the bands.
    columns = (ranks(1) < 200).nonzero()[:, 2]
    assert 7 < columns.float().mean() < 12
    assert ranks(1).flatten().sort().values.tolist() == list(range(1000))


def test_the_band_mean_of_normalised_features_is_zero(feats):
    normalised = feats - feats.mean(1, keepdim=True)
    assert torch.allclose(
        empty_input(normalised, "band_mean"),
        empty_input(normalised, "zero"),
        atol=1e-7,
    )


def test_blur_smooths_and_keeps_what_is_constant(feats):
    constant = torch.full_like(feats, 3.0)
    assert torch.allclose(empty_input(constant, "blur"), constant, atol=1e-5)
    blurred = empty_input(feats, "blur", blur_sigma=3.0)
    assert blurred.std() < 0.3 * feats.std()


def test_unknown_units_and_baselines_are_one_sentence(feats):
    with pytest.raises(UserError, match="`grey` is none of zero"):
        empty_input(feats, "grey")
    with pytest.raises(UserError, match="`words` is none of bins"):
        importance_ranks(feats, "words")


def test_identification_curves_against_their_definition():
    cosines = torch.tensor([[[0.9, 0.1, 0.2], [0.1, 0.3, 0.2]]])
    curves = identification_curves(
        cosines, torch.tensor([0]), scale=30.0, top=(1, 2)
    )
    logits = 30 * cosines[0]
    expected = logits[:, 0].exp() / logits.exp().sum(1)
    assert torch.allclose(curves["posterior"][0], expected)
    assert curves["top1"].tolist() == [[1.0, 0.0]]
    assert curves["top2"].tolist() == [[1.0, 0.0]]


def test_a_tie_with_another_speaker_is_a_miss():
    curves = identification_curves(
        torch.full((1, 1, 4), 0.5), torch.tensor([2]), top=(1, 3, 4)
    )
    assert curves["top3"].tolist() == [[0.0]]
    assert curves["top4"].tolist() == [[1.0]]
