"""Unit tests of ``imlkd_brain.distillation.attention``."""

import numpy as np
import pytest
import torch
from helpers.networks import random_tensor
from scipy.special import rel_entr, softmax

from imlkd_brain.distillation.attention import (
    PoolingAttention,
    attention_loss,
    find_pooling,
)
from imlkd_brain.errors import UserError
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.lobes.models.Xvector import Xvector

B, CHANNELS, T = 3, 5, 11


def ecapa():
    torch.manual_seed(2)
    return ECAPA_TDNN(
        20,
        channels=[8] * 4 + [24],
        lin_neurons=6,
        attention_channels=8,
        se_channels=8,
    )


def weights_of(seed=1):
    weights = random_tensor(B, T, seed=seed).abs()
    # A frame that the teacher's score does not rest on at all.
    weights[0, 2] = 0
    return weights


def test_it_is_the_relative_entropy_of_scipy():
    scores, weights = random_tensor(B, CHANNELS, T), weights_of()
    shares = weights.numpy() / weights.numpy().sum(1, keepdims=True)
    attention = softmax(scores.numpy(), axis=2).mean(1)
    expected = rel_entr(shares, attention).sum(1).mean()
    actual = attention_loss(scores, weights).item()
    assert actual == pytest.approx(expected, rel=1e-12)


def test_it_does_not_matter_how_large_weights_are():
    scores, weights = random_tensor(B, CHANNELS, T), weights_of()
    torch.testing.assert_close(
        attention_loss(scores, 7 * weights), attention_loss(scores, weights)
    )


def test_it_is_zero_where_each_channel_attends_as_the_teacher():
    weights = random_tensor(B, T).abs()
    scores = weights.log()[:, None] + random_tensor(1, CHANNELS, 1)
    assert attention_loss(scores, weights).abs() < 1e-14


def test_gradients_reach_the_student_alone():
    scores = random_tensor(B, CHANNELS, T).requires_grad_()
    weights = weights_of()
    assert torch.autograd.gradcheck(
        lambda s: attention_loss(s, weights), scores
    )
    weights = weights.float().requires_grad_()
    half = scores.detach().half().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = attention_loss(half, weights)
    loss.backward()
    assert loss.dtype == torch.float32
    assert weights.grad is None and half.grad.isfinite().all()


def test_other_frames_are_said():
    with pytest.raises(UserError, match="weighs 11 frames of segments of 10"):
        attention_loss(random_tensor(B, CHANNELS, T), torch.ones(B, 10))


def test_the_hook_reads_what_the_pooling_weighs_frames_with(monkeypatch):
    student = ecapa()
    feats = random_tensor(B, 40, 20).float()
    plain = student(feats)
    attention = PoolingAttention(student)
    seen = []
    real = torch.nn.functional.softmax

    def recorded(values, dim):
        seen.append(values)
        return real(values, dim=dim)

    monkeypatch.setattr(torch.nn.functional, "softmax", recorded)
    torch.testing.assert_close(student(feats), plain, rtol=0, atol=0)
    # All frames count, so that the mask changes nothing.
    scores = attention.take()
    assert torch.equal(scores, seen[0]) and scores.shape == (B, 24, 40)
    assert attention.take() is None
    attention_loss(
        student(feats) is not None and attention.take(), torch.ones(B, 40)
    ).backward()
    pooling = find_pooling(student)
    assert pooling.conv.conv.weight.grad.abs().sum() > 0
    # What comes after the pooling has no part in it.
    assert student.fc.conv.weight.grad is None


def test_the_hook_leaves_the_weights_and_names_as_they_are():
    student = ecapa()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    PoolingAttention(student)
    after = student.state_dict()
    assert list(before) == list(after)
    assert all(np.array_equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Xvector(in_channels=20, lin_neurons=6), r"\(Xvector\) has none"),
        (torch.nn.ModuleList([ecapa(), ecapa()]), "has 2"),
    ],
)
def test_a_student_without_one_pooling_is_said(network, words):
    with pytest.raises(UserError, match=words):
        PoolingAttention(network)
