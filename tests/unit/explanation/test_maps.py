"""Unit tests of ``imlkd_brain.explanation.maps``."""

import sys

import pytest
import torch
from helpers.patch import METHODS, patch_score

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import (
    enrolment_score,
    grad_cam_map,
    occlusion_map,
    random_map,
    saliency_map,
)
from imlkd_brain.explanation.perturbation import importance_ranks

N_FRAMES, N_BANDS = 60, 16
PATCH = (slice(None), slice(20, 30), slice(4, 8))
N_PATCH = 10 * 4


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


def patch_mask():
    mask = torch.zeros(1, N_FRAMES, N_BANDS, dtype=torch.bool)
    mask[PATCH] = True
    return mask


@pytest.mark.parametrize("method", METHODS)
def test_a_map_finds_the_patch_that_the_score_reads(method, feats, target):
    attribution, _ = saliency_map(
        method, patch_score, feats, target, options=METHODS[method]
    )
    ranks = importance_ranks(attribution)
    assert torch.equal(ranks < N_PATCH, patch_mask().expand_as(ranks))
    # The rest is not read at all.
    assert attribution[(~patch_mask()).expand_as(ranks)].abs().max() == 0


def test_a_map_follows_its_target_column(feats):
    other = torch.ones(5, dtype=torch.long)
    attribution, _ = saliency_map("gradient", patch_score, feats, other)
    assert attribution[PATCH].max() == 0
    assert attribution.max() > 0


def test_integrated_gradients_come_with_their_gap(feats, target):
    attribution, gap = saliency_map(
        "integrated_gradients",
        patch_score,
        feats,
        target,
        options={"n_steps": 64},
    )
    difference = patch_score(feats)[:, 0] - patch_score(0 * feats)[:, 0]
    # The midpoint rule's error falls with the square of 64 steps.
    assert gap.abs().max() < 1e-3
    assert torch.allclose(attribution.sum((1, 2)) - difference, gap, atol=1e-6)


def test_grad_cam_finds_the_frames_and_gives_all_bins_of_one_the_same():
    model = torch.nn.ModuleDict({"front": torch.nn.Conv1d(N_BANDS, 3, 1)})
    with torch.no_grad():
        model["front"].weight.fill_(1.0)
        model["front"].bias.zero_()
    feats = torch.zeros(2, N_FRAMES, N_BANDS)
    feats[:, 20:30] = 1.0

    def score(x):
        return model["front"](x.transpose(1, 2)).mean((1, 2))[:, None]

    attribution, _ = saliency_map(
        "grad_cam",
        score,
        feats,
        torch.zeros(2, dtype=torch.long),
        model=model,
        options={"layer": "front"},
    )
    assert attribution.shape == feats.shape
    assert (attribution[:, 20:30] > 0).all()
    assert attribution[:, :20].abs().max() == 0
    assert torch.equal(attribution[..., 0], attribution[..., -1])


@pytest.mark.parametrize("transposed", [False, True])
def test_grad_cam_of_a_two_dimensional_layer_keeps_time_on_its_axis(
    transposed,
):
    model = torch.nn.ModuleDict({"front": torch.nn.Conv2d(1, 2, 2, stride=2)})
    with torch.no_grad():
        model["front"].weight.fill_(1.0)
        model["front"].bias.zero_()
    feats = torch.zeros(1, N_FRAMES, N_BANDS)
    feats[PATCH] = 1.0

    def score(x):
        image = x.transpose(1, 2) if transposed else x
        return model["front"](image[:, None]).mean((1, 2, 3))[:, None]

    attribution = grad_cam_map(
        score, feats, torch.zeros(1, dtype=torch.long), model["front"]
    )
    # Interpolation smears by one cell of two bins.
    inside = torch.zeros_like(feats, dtype=torch.bool)
    inside[:, 18:32, 2:10] = True
    assert attribution[PATCH].min() > 0
    assert attribution[~inside].abs().max() == 0


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("asp_bn", "before the pooling"),
        ("no.such", "no layer `no.such`"),
        (None, "no layer"),
    ],
)
def test_a_layer_that_cannot_be_mapped_is_one_sentence(ecapa, layer, words):
    def score(x):
        return ecapa(x).squeeze(1)

    with pytest.raises(UserError, match=words):
        saliency_map(
            "grad_cam",
            score,
            torch.randn(1, N_FRAMES, N_BANDS),
            torch.zeros(1, dtype=torch.long),
            model=ecapa,
            options={"layer": layer},
        )


def test_a_channels_last_layer_is_one_sentence():
    model = torch.nn.ModuleDict({"front": torch.nn.Linear(N_BANDS, 4)})

    def score(x):
        return model["front"](x).mean(1)

    with pytest.raises(UserError, match="batch, channels, time"):
        grad_cam_map(
            score,
            torch.randn(1, N_FRAMES, N_BANDS),
            torch.zeros(1, dtype=torch.long),
            model["front"],
            "front",
        )


def test_unknown_methods_and_options_are_one_sentence(feats, target):
    with pytest.raises(UserError, match="`lime` is none of the maps"):
        saliency_map("lime", patch_score, feats, target)
    with pytest.raises(UserError, match="methods: occlusion: .*'windows'"):
        saliency_map(
            "occlusion", patch_score, feats, target, options={"windows": 3}
        )


def test_a_fault_of_the_score_is_not_taken_for_a_wrong_option(feats, target):
    def broken(x):
        raise TypeError("unexpected keyword argument in the network")

    with pytest.raises(TypeError, match="in the network"):
        saliency_map("gradient", broken, feats, target)


def test_without_captum_one_sentence_says_how_to_get_it(
    monkeypatch, feats, target
):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"imlkd_brain\[explain\]"):
        saliency_map("gradient", patch_score, feats, target)
    attribution, _ = saliency_map(
        "integrated_gradients", patch_score, feats, target
    )
    assert attribution.shape == feats.shape


def test_occlusion_is_the_fall_of_the_score(feats, target):
    attribution = occlusion_map(
        patch_score, feats, target, window=(10, 4), stride=(10, 4)
    )
    without = feats.clone()
    without[PATCH] = 0
    fall = (patch_score(feats) - patch_score(without))[:, 0]
    assert torch.allclose(attribution[:, 25, 6], fall, atol=1e-6)


def test_a_window_larger_than_the_utterance_takes_it_whole(feats, target):
    attribution = occlusion_map(
        patch_score, feats, target, window=(500, 500), stride=(500, 500)
    )
    fall = patch_score(feats)[:, 0]
    assert torch.allclose(attribution[:, 0, 0], fall, atol=1e-6)


def test_random_maps_depend_on_the_seed_alone(feats):
    def draw(seed):
        return random_map(feats, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_an_enrolment_score_is_the_cosine_and_spares_the_enrolment(feats):
    enrolments = torch.randn(3, N_BANDS, requires_grad=True)
    score = enrolment_score(lambda x: x.mean(1), enrolments)
    expected = torch.nn.functional.cosine_similarity(
        feats.mean(1)[:, None], enrolments[None], dim=-1
    )
    scores = score(feats.requires_grad_())
    assert torch.allclose(scores, expected, atol=1e-6)
    scores.sum().backward()
    assert enrolments.grad is None
