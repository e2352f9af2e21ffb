"""Unit tests of ``imlkd_brain.distillation.rivals``."""

import numpy as np
import pytest
import torch
from helpers.losses import logits

from imlkd_brain.distillation.losses import decoupled_kd_loss
from imlkd_brain.distillation.rivals import (
    confusion_set,
    relation_loss,
    triage_loss,
)

# Float64 against float64: only the order of the sums differs.
EXACT = {"rtol": 1e-10, "atol": 1e-13}

B, C = 6, 9
TARGET = torch.tensor([0, 3, 8, 3, 1, 5])


def cosine(a, b):
    return (a @ b) / np.sqrt((a @ a) * (b @ b))


def relation_by_pairs(student, teacher):
    """The formula, pair by pair."""
    pairs = [(i, j) for i in range(len(student)) for j in range(i)]
    squares = [
        (cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2
        for i, j in pairs
    ]
    return np.mean(squares)


class TestRelation:
    @pytest.mark.parametrize("dims", [(4, 4), (3, 7)])
    def test_it_is_the_mean_over_pairs(self, dims):
        student, teacher = logits(0, (B, dims[0])), logits(1, (B, dims[1]))
        expected = relation_by_pairs(student.numpy(), teacher.numpy())
        actual = relation_loss(student, teacher).item()
        assert actual == pytest.approx(expected, rel=1e-10)

    def test_a_turned_and_stretched_space_has_the_same_relations(self):
        student = logits(0, (B, 4))
        turned, _ = torch.linalg.qr(logits(1, (4, 4)))
        teacher = student @ turned * torch.arange(1, B + 1)[:, None]
        # Cosines of float64 are right to 1e-15, their squares to 1e-30.
        assert relation_loss(student, teacher) < 1e-28

    def test_opposite_pairs_are_the_most(self):
        same, opposite = torch.ones(2, 1), torch.tensor([[1.0], [-1.0]])
        assert relation_loss(same, opposite) == 4

    def test_no_gradient_reaches_the_teacher_and_half_precision_is_taken(self):
        student = logits(0, (B, 4)).half().requires_grad_()
        teacher = logits(1, (B, 5)).half().requires_grad_()
        loss = relation_loss(student, teacher)
        assert loss.dtype == torch.float32
        loss.backward()
        assert teacher.grad is None and student.grad.isfinite().all()


def triage_by_hand(student, teacher, target, cutoff, alpha, beta, tau):
    """The formula, utterance by utterance and set by set."""
    total = 0
    for z_s, z_t, y in zip(
        student.numpy(), teacher.numpy(), target.tolist(), strict=False
    ):
        p_s, p_t = (np.exp(z / tau) / np.exp(z / tau).sum() for z in (z_s, z_t))
        others = sorted((c for c in range(C) if c != y), key=lambda c: -p_t[c])
        rivals, share = [], 0
        for c in others:
            rivals.append(c)
            share += p_t[c] / (1 - p_t[y])
            if share >= cutoff:
                break
        rest = [c for c in others if c not in rivals]
        groups = [[y], rivals, rest] if rest else [[y], rivals]
        for group in groups:
            m_s, m_t = p_s[group].sum(), p_t[group].sum()
            total += alpha * m_t * np.log(m_t / m_s)
        q_s = p_s[rivals] / p_s[rivals].sum()
        q_t = p_t[rivals] / p_t[rivals].sum()
        total += beta * (q_t * np.log(q_t / q_s)).sum()
    return tau**2 * total / len(target)


class TestTriage:
    # A rival, some of them, all but the last ones.
    @pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.7, 0.95])
    @pytest.mark.parametrize("tau", [1, 4.5])
    def test_it_is_the_formula(self, cutoff, tau):
        student, teacher = logits(0), logits(1)
        actual = triage_loss(student, teacher, TARGET, cutoff, 0.7, 5.0, tau)
        expected = triage_by_hand(
            student, teacher, TARGET, cutoff, 0.7, 5.0, tau
        )
        assert actual.item() == pytest.approx(expected, rel=1e-9)

    def test_with_all_speakers_as_rivals_it_is_decoupled_kd(self):
        student, teacher = logits(0), logits(1)
        actual = triage_loss(student, teacher, TARGET, 1.0, 0.7, 5.0, 4)
        expected = decoupled_kd_loss(student, teacher, TARGET, 0.7, 5.0, 4)
        torch.testing.assert_close(actual, expected, **EXACT)

    @pytest.mark.parametrize("cutoff", [0.0, 0.9, 1.0])
    def test_gradients_are_those_of_differences(self, cutoff):
        student, teacher = logits(0).requires_grad_(), logits(1)
        assert torch.autograd.gradcheck(
            lambda z: triage_loss(z, teacher, TARGET, cutoff, 0.7, 5.0, 4.0),
            student,
        )

    def test_two_speakers_and_a_certain_teacher(self):
        target = torch.tensor([0])
        two = torch.tensor([[1.0, -1.0]], requires_grad=True)
        teacher = torch.tensor([[2.0, 0.5]])
        loss = triage_loss(two, teacher, target, 0.5, 1.0, 1.0, 1.0)
        expected = decoupled_kd_loss(two, teacher, target, 1.0, 1.0, 1.0)
        torch.testing.assert_close(loss, expected)
        certain = torch.tensor([[1e4, 1.0, 0.0]])
        student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
        loss = triage_loss(student, certain, target, 0.5, 1.0, 1.0, 1.0)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite() and gradient.isfinite().all()

    def test_what_is_in_the_background_is_not_taught(self):
        student, teacher = logits(0), logits(1)
        others = teacher.scatter(1, TARGET[:, None], -torch.inf)
        rivals = confusion_set(others.log_softmax(1), TARGET, 0.5)
        target = torch.nn.functional.one_hot(TARGET, C).bool()
        background = ~rivals & ~target
        assert background.any(1).all() and rivals.any(1).all()
        # Another order within the background of the student's.
        moved = student.clone()
        for row, chosen in enumerate(background):
            moved[row, chosen] = student[row, chosen].flip(0)
        assert not torch.equal(moved, student)
        options = (TARGET, 0.5, 1.0, 1.0, 1.0)
        torch.testing.assert_close(
            triage_loss(moved, teacher, *options),
            triage_loss(student, teacher, *options),
            **EXACT,
        )
