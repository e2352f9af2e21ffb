"""Unit tests of ``imlkd_brain.explanation.maps``."""

import sys
from dataclasses import replace

import pytest
import torch
from helpers.patch import METHODS, patch_score

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import (
    METHODS as TABLE,
)
from imlkd_brain.explanation.maps import (
    Batch,
    check_methods,
    grad_cam_map,
    gradient_map,
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
def batch(feats):
    """Five utterances, explained by the score that reads the patch."""
    return Batch(patch_score, feats, torch.zeros(5, dtype=torch.long))


def first_column(score, feats, **more):
    """A batch whose target is the first column of the score."""
    target = torch.zeros(len(feats), dtype=torch.long)
    return Batch(score, feats, target, **more)


def patch_mask():
    mask = torch.zeros(1, N_FRAMES, N_BANDS, dtype=torch.bool)
    mask[PATCH] = True
    return mask


@pytest.mark.parametrize("method", METHODS)
def test_a_map_finds_the_patch_that_the_score_reads(method, batch):
    attribution, _ = saliency_map(method, batch, METHODS[method])
    ranks = importance_ranks(attribution)
    assert torch.equal(ranks < N_PATCH, patch_mask().expand_as(ranks))
    # The rest is not read at all.
    assert attribution[(~patch_mask()).expand_as(ranks)].abs().max() == 0


def test_a_map_follows_its_target_column(batch):
    batch.target = torch.ones(5, dtype=torch.long)
    attribution, _ = saliency_map("gradient", batch)
    assert attribution[PATCH].max() == 0
    assert attribution.max() > 0


def test_integrated_gradients_come_with_their_gap(batch, feats):
    attribution, gap = saliency_map(
        "integrated_gradients", batch, {"n_steps": 64}
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

    batch = first_column(score, feats, model=model)
    attribution, _ = saliency_map("grad_cam", batch, {"layer": "front"})
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

    attribution, _ = grad_cam_map(
        first_column(score, feats, model=model), "front"
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

    feats = torch.randn(1, N_FRAMES, N_BANDS)
    batch = first_column(score, feats, model=ecapa)
    with pytest.raises(UserError, match=words):
        saliency_map("grad_cam", batch, {"layer": layer})


def test_a_channels_last_layer_is_one_sentence():
    model = torch.nn.ModuleDict({"front": torch.nn.Linear(N_BANDS, 4)})

    def score(x):
        return model["front"](x).mean(1)

    feats = torch.randn(1, N_FRAMES, N_BANDS)
    with pytest.raises(UserError, match="batch, channels, time"):
        grad_cam_map(first_column(score, feats, model=model), "front")


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({}, "give at least one of integrated_gradients"),
        ({"lime": {}}, "`lime` is none of the maps"),
        ({"gradient": {"windows": 3}}, "methods: gradient: .*'windows'"),
        ({"occlusion": {"window": [5, 2]}}, "methods: occlusion: .*'stride'"),
        ({"gradient": {}, "grad_cam": {"layer": "no"}}, "no layer `no`"),
        ({"grad_cam": {}}, "no layer `None`"),
    ],
)
def test_mistakes_in_methods_are_found_before_the_work(ecapa, methods, words):
    with pytest.raises(UserError, match=words):
        check_methods(methods, [ecapa])


def test_methods_without_mistakes_pass(ecapa):
    check_methods({**METHODS, "grad_cam": {"layer": "mfa"}}, [ecapa])


@pytest.mark.parametrize("window", [5, [5], [5, 2, 1], [5, 0], [5.0, 2]])
def test_a_window_that_is_not_two_numbers_is_one_sentence(batch, window):
    options = {"window": window, "stride": [5, 2]}
    with pytest.raises(UserError, match="occlusion: window is"):
        saliency_map("occlusion", batch, options)


def test_a_new_method_is_a_function_and_a_row(monkeypatch, batch):
    """The recipe of docs/architecture.md."""

    def smooth_gradient_map(batch, n_samples, noise):
        maps = []
        for _ in range(n_samples):
            shift = torch.randn(batch.feats.shape, generator=batch.generator)
            noisy = batch.feats + noise * shift.to(batch.feats)
            maps.append(gradient_map(replace(batch, feats=noisy))[0])
        return torch.stack(maps).mean(0), None

    monkeypatch.setitem(TABLE, "smooth_gradient", smooth_gradient_map)
    attribution, _ = saliency_map(
        "smooth_gradient", batch, {"n_samples": 2, "noise": 0.0}
    )
    assert torch.allclose(attribution, gradient_map(batch)[0])
    with pytest.raises(UserError, match="smooth_gradient: .*'noise'"):
        check_methods({"smooth_gradient": {"n_samples": 2}}, [])


def test_a_fault_of_the_score_is_not_taken_for_a_wrong_option(feats):
    def broken(x):
        raise TypeError("unexpected keyword argument in the network")

    with pytest.raises(TypeError, match="in the network"):
        saliency_map("gradient", first_column(broken, feats))


def test_without_captum_one_sentence_says_how_to_get_it(monkeypatch, batch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match="pip install 'captum"):
        saliency_map("gradient", batch)
    attribution, _ = saliency_map("integrated_gradients", batch)
    assert attribution.shape == batch.feats.shape


def test_occlusion_is_the_fall_of_the_score(batch, feats):
    attribution, _ = occlusion_map(batch, window=(10, 4), stride=(10, 4))
    without = feats.clone()
    without[PATCH] = 0
    fall = (patch_score(feats) - patch_score(without))[:, 0]
    assert torch.allclose(attribution[:, 25, 6], fall, atol=1e-6)


def test_a_window_larger_than_the_utterance_takes_it_whole(batch, feats):
    attribution, _ = occlusion_map(batch, window=(500, 500), stride=(500, 500))
    fall = patch_score(feats)[:, 0]
    assert torch.allclose(attribution[:, 0, 0], fall, atol=1e-6)


def test_random_maps_depend_on_the_seed_alone(batch):
    def draw(seed):
        batch.generator = torch.Generator().manual_seed(seed)
        return random_map(batch)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
