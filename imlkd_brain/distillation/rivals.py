"""Losses of other authors beside the levels of IML-KD.

Shapes and names are those of :mod:`imlkd_brain.distillation.losses`.

Authors: IML-KD contributors
"""

import torch
import torch.nn.functional as F

from imlkd_brain.distillation.losses import (
    binary_posteriors,
    in_float64,
    kl_of_rows,
)


def relation_loss(student, teacher):
    """Relations between embeddings: mean squared difference of cosines.

    ::

        mean_{i != j} (cos(e_s,i, e_s,j) - cos(e_t,i, e_t,j))^2

    over the B (B - 1) ordered pairs of a batch. The two dimensions may
    differ, and the student's space may be turned against the teacher's.

    This is of the family of Park, Kim, Lu and Cho, "Relational Knowledge
    Distillation", CVPR 2019. Theirs compares distances of pairs, or angles of
    triples, by Huber's loss. Ours compares cosines of pairs, which is what
    verification scores.

    Arguments
    ---------
    student : torch.Tensor
        Shape (B, D_s), B at least 2.
    teacher : torch.Tensor
        Shape (B, D_t). No gradient reaches it.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality, at most 4.

    Example
    -------
    >>> student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> relation_loss(student, torch.tensor([[3.0], [-4.0]]))
    tensor(1.)
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        student = F.normalize(student.to(dtype), dim=1)
        teacher = F.normalize(teacher.detach().to(dtype), dim=1)
        difference = student @ student.T - teacher @ teacher.T
        # On the diagonal both are one.
        difference = difference - torch.diag(difference.diagonal())
        n_items = len(student)
        return difference.square().sum() / (n_items * (n_items - 1))


@in_float64
def triage_loss(
    student_logits, teacher_logits, target, cutoff, alpha, beta, temperature
):
    """Three masses, and the posterior among the rivals of the true speaker.

    The confusion set ``K`` of an utterance holds the non-target speakers that
    the teacher finds most likely: as few of them as have, together, at least
    the share ``cutoff`` of what the teacher gives to all non-targets. The
    other non-targets are the background. With the masses ``m = (p_y, sum_K p,
    rest)`` and ``q`` the posterior within ``K``, the same ``K`` for both::

        tau^2 * mean_i [alpha KL(m_t || m_s) + beta KL(q_t || q_s)]

    What is within the background is not taught. A cut-off that falls during
    the training lets the student see many speakers first and the nearest
    rivals last.

    Kim, Jung, Yang, Roh, Han and Cho, "Triage knowledge distillation for
    speaker verification", arXiv 2601.14699 (2026), names these parts and the
    falling cut-off. The weights, the temperature and a cut-off of the share
    among non-targets are how we write it down.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C), C at least 2.
    teacher_logits : torch.Tensor
        Shape (B, C).
    target : torch.Tensor
        True classes, shape (B,), int64.
    cutoff : float
        In [0, 1]. 0 leaves the nearest rival alone in ``K``; 1 all speakers,
        which is :func:`imlkd_brain.distillation.losses.decoupled_kd_loss`.
    alpha : float
        Weight of the masses.
    beta : float
        Weight of the posterior in the confusion set.
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Example
    -------
    >>> logits = torch.tensor([[3.0, 1.0, 0.0, -2.0]])
    >>> target = torch.tensor([0])
    >>> triage_loss(logits, logits, target, 0.9, 1.0, 1.0, 1.0)
    tensor(0.)
    """
    binary_student, others_student = binary_posteriors(
        student_logits / temperature, target
    )
    binary_teacher, others_teacher = binary_posteriors(
        teacher_logits / temperature, target
    )
    rivals = confusion_set(others_teacher, target, cutoff)
    # Without the target, whose logarithm is minus infinity in both.
    background = (~rivals).scatter(1, target[:, None], False)
    masses, within = [], []
    for binary, others in (
        (binary_teacher, others_teacher),
        (binary_student, others_student),
    ):
        parts = [
            others.masked_fill(~chosen, -torch.inf).logsumexp(1, keepdim=True)
            for chosen in (rivals, background)
        ]
        masses.append(
            torch.cat([binary[:, :1], *(binary[:, 1:] + p for p in parts)], 1)
        )
        within.append(
            others.masked_fill(~rivals, -torch.inf).log_softmax(dim=1)
        )
    parts = alpha * kl_of_rows(*masses) + beta * kl_of_rows(*within)
    return temperature**2 * parts.mean()


def confusion_set(log_others, target, cutoff):
    """The speakers that the teacher confuses with the true one.

    Arguments
    ---------
    log_others : torch.Tensor
        Log-posteriors among non-targets (B, C), minus infinity at the target.
    target : torch.Tensor
        True classes, shape (B,), int64.
    cutoff : float
        Share of the posterior that they have at least.

    Returns
    -------
    torch.Tensor
        Shape (B, C), bool; at least one a row, never the target.

    Example
    -------
    >>> others = torch.tensor([[0.0, 0.6, 0.3, 0.1]]).log()
    >>> confusion_set(others, torch.tensor([0]), 0.8)
    tensor([[False,  True,  True, False]])
    """
    ranked, order = log_others.exp().sort(dim=1, descending=True)
    # In: as long as those before have less than the share.
    before = ranked.cumsum(1) - ranked
    chosen = before < cutoff
    chosen[:, 0] = True
    chosen = torch.zeros_like(chosen).scatter(1, order, chosen)
    return chosen.scatter(1, target[:, None], False)
