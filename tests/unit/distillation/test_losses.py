"""Unit tests of ``imlkd_brain.distillation.losses``."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.losses import LOSSES, logits

from imlkd_brain.distillation.losses import (
    batch_loss,
    class_loss,
    decoupled_kd_loss,
    dist_loss,
    embedding_loss,
    instance_loss,
    multi_level_kd_loss,
)
from imlkd_brain.errors import UserError

# Float64 against float64: only the order of the sums differs.
EXACT = {"rtol": 1e-10, "atol": 1e-13}

B, C = 6, 9
TARGET = torch.tensor([0, 3, 8, 3, 1, 5])

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def posteriors(z, temperature):
    exponentials = np.exp(np.asarray(z, dtype=np.float64) / temperature)
    return exponentials / exponentials.sum(1, keepdims=True)


def dense_class(s, t, tau):
    p_s, p_t = posteriors(s, tau), posteriors(t, tau)
    return ((p_t.T @ p_t - p_s.T @ p_s) ** 2).sum() / p_s.shape[1]


def dense_batch(s, t, tau):
    p_s, p_t = posteriors(s, tau), posteriors(t, tau)
    return ((p_t @ p_t.T - p_s @ p_s.T) ** 2).sum() / len(p_s)


def dense_instance(s, t, tau):
    p_s, p_t = posteriors(s, tau), posteriors(t, tau)
    return tau**2 * (p_t * np.log(p_t / p_s)).sum() / len(p_s)


DENSE = {
    instance_loss: dense_instance,
    class_loss: dense_class,
    batch_loss: dense_batch,
}


class TestValues:
    @pytest.mark.parametrize("loss", DENSE, ids=lambda loss: loss.__name__)
    @pytest.mark.parametrize("tau", [1, 4.5])
    # More utterances than classes and fewer.
    @pytest.mark.parametrize("shape", [(B, C), (12, 5), (2, 2)])
    def test_levels_equal_their_dense_formulas(self, loss, tau, shape):
        student, teacher = logits(0, shape), logits(1, shape)
        expected = DENSE[loss](student, teacher, tau)
        actual = loss(student, teacher, tau).item()
        assert actual == pytest.approx(expected, rel=1e-10)

    def test_multi_level_is_the_sum_over_temperatures(self):
        student, teacher = logits(0), logits(1)
        expected = sum(
            dense(student, teacher, tau)
            for tau in (2, 3, 4, 5, 6)
            for dense in DENSE.values()
        )
        actual = multi_level_kd_loss(student, teacher).item()
        assert actual == pytest.approx(expected, rel=1e-10)

    def test_instance_tends_to_logit_matching(self):
        # Hinton et al., section 2.1: at a high temperature KD compares the
        # centred logits, |dz|^2 / 2C. The next order is |z| / tau = 1e-4.
        student, teacher = logits(0), logits(1)
        gap = student - teacher
        gap = gap - gap.mean(1, keepdim=True)
        expected = gap.square().sum(1).mean() / (2 * C)
        actual = instance_loss(student, teacher, 1e5)
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=0)

    @pytest.mark.parametrize("tau", [1, 3])
    def test_decoupled_is_kl_of_the_two_parts(self, tau):
        student, teacher = logits(0), logits(1)
        p_s, p_t = posteriors(student, tau), posteriors(teacher, tau)
        total = 0
        for i, y in enumerate(TARGET.tolist()):
            s, t = np.delete(p_s[i], y), np.delete(p_t[i], y)
            binary = p_t[i, y] * np.log(p_t[i, y] / p_s[i, y])
            binary += t.sum() * np.log(t.sum() / s.sum())
            q_s, q_t = s / s.sum(), t / t.sum()
            total += 0.7 * binary + 5 * (q_t * np.log(q_t / q_s)).sum()
        actual = decoupled_kd_loss(student, teacher, TARGET, 0.7, 5, tau)
        assert actual.item() == pytest.approx(tau**2 * total / B, rel=1e-10)

    def test_decoupled_with_beta_of_the_teacher_is_vanilla_kd(self):
        # The decomposition that Zhao et al. start from.
        student, teacher = logits(0), logits(1)
        p_target = (teacher / 2).softmax(1).gather(1, TARGET[:, None])[:, 0]
        actual = decoupled_kd_loss(
            student, teacher, TARGET, 1.0, 1 - p_target, 2
        )
        expected = instance_loss(student, teacher, 2)
        torch.testing.assert_close(actual, expected, **EXACT)

    def test_decoupled_of_a_certain_teacher_is_finite(self):
        # 1 - p_y underflows: the rest is still compared in logarithms.
        teacher = torch.tensor([[1e4, 1.0, 0.0]])
        student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
        loss = decoupled_kd_loss(student, teacher, torch.tensor([0]), 1.0, 8.0)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite() and gradient.isfinite().all()

    def test_dist_is_pearson(self):
        student, teacher = logits(0), logits(1)
        p_s, p_t = posteriors(student, 2), posteriors(teacher, 2)
        rows = [1 - np.corrcoef(p_s[i], p_t[i])[0, 1] for i in range(B)]
        columns = [
            1 - np.corrcoef(p_s[:, c], p_t[:, c])[0, 1] for c in range(C)
        ]
        actual = dist_loss(student, teacher, 2, 0.3, 0.9).item()
        expected = 0.3 * np.mean(rows) + 0.9 * np.mean(columns)
        assert actual == pytest.approx(expected, rel=1e-10)

    def test_dist_without_variation_counts_zero(self):
        # All rows alike: no class varies over the batch, though the mean of
        # seven equal numbers is often not exactly that number.
        student, teacher = logits(0, (7, 50)), logits(1, (7, 50))
        student = student[:1].expand(7, 50).clone().requires_grad_()
        loss = dist_loss(student, teacher, 1, 0.0, 1.0)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss == 0 and gradient.isfinite().all()
        uniform = torch.zeros(4, C, requires_grad=True)
        loss = dist_loss(uniform, logits(1)[:4], 1, 1.0, 1.0)
        (gradient,) = torch.autograd.grad(loss, uniform)
        assert loss == 0 and gradient.isfinite().all()

    def test_dist_of_tiny_posteriors(self):
        # A speaker whose posterior is 1e-26 throughout is correlated too.
        shift = torch.zeros(C)
        shift[0] = -60.0
        student, teacher = logits(0), logits(1)
        p_s, p_t = posteriors(student + shift, 1), posteriors(teacher, 1)
        columns = [
            1 - np.corrcoef(p_s[:, c], p_t[:, c])[0, 1] for c in range(C)
        ]
        actual = dist_loss(student + shift, teacher, 1, 0.0, 1.0).item()
        assert actual == pytest.approx(np.mean(columns), rel=1e-9)

    def test_embeddings(self):
        student, teacher = logits(0), logits(1)
        cosine = torch.cosine_similarity(student, teacher)
        expected = (2 - 2 * cosine).mean()
        for scale in (1e-3, 1.0, 1e3):
            actual = embedding_loss(scale * student, teacher)
            torch.testing.assert_close(actual, expected, **EXACT)
        assert embedding_loss(student, 5 * student).item() < 1e-30

    def test_embeddings_of_two_dimensions(self):
        projection = torch.nn.Linear(4, C, bias=False).double()
        student, teacher = logits(0, (B, 4)), logits(1)
        loss = embedding_loss(student, teacher, projection)
        projected = student @ projection.weight.T
        expected = (2 - 2 * torch.cosine_similarity(projected, teacher)).mean()
        torch.testing.assert_close(loss, expected, **EXACT)
        loss.backward()
        assert projection.weight.grad.norm() > 0
        for wrong in (None, torch.nn.Linear(4, C + 1).double()):
            with pytest.raises(UserError, match="projection"):
                embedding_loss(student, teacher, wrong)


class TestProperties:
    @every_loss
    def test_zero_at_equality_and_positive_elsewhere(self, loss):
        student, teacher = logits(0), logits(1)
        assert loss(teacher, teacher.clone(), TARGET).item() == 0
        assert loss(student, teacher, TARGET).item() > 1e-3
        # Posteriors do not see a constant added to the logits.
        assert abs(loss(teacher + 5, teacher, TARGET).item()) < 1e-13

    @every_loss
    def test_gradient_is_the_derivative(self, loss):
        student, teacher = logits(0).requires_grad_(), logits(1)
        assert torch.autograd.gradcheck(
            lambda z: loss(z, teacher, TARGET), (student,)
        )

    @every_loss
    def test_gradient_vanishes_at_equality(self, loss):
        student = logits(1).requires_grad_()
        loss(student, logits(1), TARGET).backward()
        # KL's is p_s - p_t, in float64.
        assert student.grad.abs().max() < 1e-14

    @every_loss
    def test_no_gradient_reaches_the_teacher(self, loss):
        student, teacher = (
            logits(0).requires_grad_(),
            logits(1).requires_grad_(),
        )
        loss(student, teacher, TARGET).backward()
        assert teacher.grad is None and student.grad.norm() > 0

    @every_loss
    def test_order_of_the_batch_and_names_of_classes(self, loss):
        student, teacher = logits(0), logits(1)
        expected = loss(student, teacher, TARGET)
        rows, columns = torch.randperm(B), torch.randperm(C)
        torch.testing.assert_close(
            loss(student[rows], teacher[rows], TARGET[rows]), expected, **EXACT
        )
        torch.testing.assert_close(
            loss(
                student[:, columns],
                teacher[:, columns],
                columns.argsort()[TARGET],
            ),
            expected,
            **EXACT,
        )

    def test_what_a_level_does_not_see(self):
        teacher = logits(1)
        # Relations of classes do not know which utterance is which, those of
        # utterances do not know which class is which.
        assert class_loss(teacher.flip(0), teacher, 1).item() < 1e-15
        assert batch_loss(teacher.flip(1), teacher, 1).item() < 1e-15
        assert class_loss(teacher.flip(1), teacher, 1).item() > 1e-3
        assert batch_loss(teacher.flip(0), teacher, 1).item() > 1e-3

    @every_loss
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_float32_under_autocast(self, loss, dtype):
        student, teacher = logits(0).float(), logits(1).float()
        expected = loss(student, teacher, TARGET)
        with torch.autocast("cpu", dtype):
            actual = loss(student, teacher, TARGET)
        assert actual.dtype == torch.float32
        assert torch.equal(actual, expected)
        # Half-precision logits are widened before anything is computed.
        half = loss(student.to(dtype), teacher.to(dtype), TARGET)
        wide = loss(
            student.to(dtype).float(), teacher.to(dtype).float(), TARGET
        )
        assert torch.equal(half, wide)

    def test_projection_under_autocast(self):
        projection = torch.nn.Linear(4, C, bias=False)
        student, teacher = logits(0, (B, 4)).float(), logits(1).float()
        expected = embedding_loss(student, teacher, projection)
        with torch.autocast("cpu", torch.bfloat16):
            actual = embedding_loss(student.bfloat16(), teacher, projection)
            same = embedding_loss(student, teacher, projection)
        assert torch.equal(same, expected)
        # bfloat16 has 8 bits: 2 ** -8 of values of order 1.
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-2)


class TestNearTheTeacher:
    """Where |G_s|^2 + |G_t|^2 - 2 <G_s, G_t> would be all rounding."""

    @pytest.mark.parametrize("loss", [instance_loss, class_loss, batch_loss])
    @pytest.mark.parametrize("distance", [1e-2, 1e-4])
    def test_value_and_gradient_in_float32(self, loss, distance):
        teacher = logits(1, (16, 40)).float()
        student = teacher + distance * logits(0, (16, 40)).float()
        student.requires_grad_()
        value = loss(student, teacher, 1)
        (gradient,) = torch.autograd.grad(value, student)

        # Dense in float64: the difference is taken before it is squared.
        wide = student.detach().double().requires_grad_()
        p_s, p_t = wide.softmax(1), teacher.double().softmax(1)
        if loss is instance_loss:
            # p_s - p_t sums to zero: added, it leaves squares to be summed.
            ratio = wide.log_softmax(1) - teacher.double().log_softmax(1)
            expected = (p_t * (ratio.expm1() - ratio)).sum() / 16
        elif loss is class_loss:
            expected = (p_s.T @ p_s - p_t.T @ p_t).square().sum() / 40
        else:
            expected = (p_s @ p_s.T - p_t @ p_t.T).square().sum() / 16
        (expected_gradient,) = torch.autograd.grad(expected, wide)
        # The results are rounded to float32, 6e-8; nothing worse happens.
        torch.testing.assert_close(
            value.double(), expected.detach(), rtol=1e-6, atol=0
        )
        scale = expected_gradient.abs().max().item()
        torch.testing.assert_close(
            gradient.double(), expected_gradient, rtol=1e-5, atol=1e-6 * scale
        )

    @every_loss
    def test_second_order(self, loss):
        # Each is of second order in the distance: a tenth of the distance is
        # a hundredth of the loss. At 1e-5 the loss is 1e-10 and less, while
        # KL cancels to 1e-16 in float64, hence 1e-4 of it.
        teacher, direction = logits(1), logits(0)
        far, near = (
            loss(teacher + distance * direction, teacher, TARGET).item()
            for distance in (1e-4, 1e-5)
        )
        assert far / near == pytest.approx(100, rel=2e-2)


# Peak memory of one loss and its gradient, in float64 (B, C) matrices.
MEMORY = """
import pathlib, re, torch
from imlkd_brain.distillation.losses import *
B, C = 8, 100_000
generator = torch.Generator().manual_seed(0)
student = 6 * torch.randn(B, C, generator=generator).requires_grad_()
teacher = 6 * torch.randn(B, C, generator=generator)
target = torch.arange(B)
def peak():
    # Not ru_maxrss: a process inherits that from the one that started it.
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
before = peak()
for loss, arguments in (
    (instance_loss, (2.0,)),
    (class_loss, (2.0,)),
    (batch_loss, (2.0,)),
    (decoupled_kd_loss, (target, 1.0, 8.0)),
    (dist_loss, (2.0, 1.0, 1.0)),
    (multi_level_kd_loss, ()),
):
    value = loss(student, teacher, *arguments)
    (gradient,) = torch.autograd.grad(value, student)
    assert value > 0 and gradient.isfinite().all()
    del value, gradient
    print((peak() - before) / (8 * B * C))
"""


def test_a_hundred_thousand_classes():
    """The memory docs/method.md states, where C x C would be 12,500 units."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        # Freed blocks go back at once, so the peak is what was in use.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    # The peak only grows: of the single losses, then of five temperatures.
    *single, multi_level = map(float, done.stdout.split())
    assert 1 < single[-1] < 15
    assert multi_level < 50
