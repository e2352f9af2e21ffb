"""The distillation losses: one function each.

:mod:`imlkd_brain.distillation.terms` has a row for each.

Shapes: logits (B, C), already scaled (30 times the cosine, without margin),
embeddings (B, D). ``p = softmax(z / tau)`` and ``P`` the matrix of its rows;
``_s`` is the student, ``_t`` the teacher. No gradient reaches the teacher.

Autocast of the caller does not reach these losses. Those of logits compute in
float64 (float32 where the device has no other) and return float32 or better:
they are differences of posteriors, small against what is subtracted when the
student comes close to its teacher.

Reference
---------
Yang, Wei, Lu, Lu and Li, "Integrated Multi-Level Knowledge Distillation for
Enhanced Speaker Verification", arXiv 2409.09389 (2024).

Authors: IML-KD contributors
"""

import functools

import torch
import torch.nn.functional as F

from imlkd_brain.errors import UserError


def in_float64(loss):
    """Run a loss of logits in float64, autocast off, the teacher detached."""

    @functools.wraps(loss)
    def wrapper(student_logits, teacher_logits, *args, **kwargs):
        """The loss of float64, as float32 or better."""
        device = student_logits.device.type
        widest = torch.float32 if device == "mps" else torch.float64
        with torch.autocast(device, enabled=False):
            value = loss(
                student_logits.to(widest),
                teacher_logits.detach().to(widest),
                *args,
                **kwargs,
            )
        return value.to(
            torch.promote_types(student_logits.dtype, torch.float32)
        )

    return wrapper


@in_float64
def instance_loss(student_logits, teacher_logits, temperature):
    """Posteriors of each utterance: ``tau^2 * mean_i KL(p_t,i || p_s,i)``.

    ``tau^2`` keeps the gradient's size when the temperature changes. This is
    also vanilla KD: Hinton, Vinyals and Dean, "Distilling the Knowledge in a
    Neural Network", arXiv 1503.02531 (2015).

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Example
    -------
    >>> logits = torch.tensor([[30.0, 0.0]])
    >>> instance_loss(logits, logits, temperature=2)
    tensor(0.)
    """
    return temperature**2 * F.kl_div(
        torch.log_softmax(student_logits / temperature, dim=1),
        torch.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def embedding_loss(student, teacher, projection=None):
    """Direction of the embeddings: ``mean_i |n(W e_s,i) - n(e_t,i)|^2``.

    ``n`` scales to unit length, so this is ``2 - 2 cos``, in [0, 4]. ``W`` is
    learnt and needed where the dimensions differ.

    Arguments
    ---------
    student : torch.Tensor
        Shape (B, D_s).
    teacher : torch.Tensor
        Shape (B, D_t).
    projection : torch.nn.Module, optional
        From (B, D_s) to (B, D_t), such as ``torch.nn.Linear(D_s, D_t,
        bias=False)``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality.

    Raises
    ------
    UserError
        If the dimensions do not meet.

    Example
    -------
    >>> student = torch.tensor([[2.0, 0.0]])
    >>> embedding_loss(student, torch.tensor([[0.0, 5.0]]))
    tensor(2.)
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.to(dtype), teacher.detach().to(dtype)
        if projection is not None:
            student = projection(student)
        if student.shape != teacher.shape:
            raise UserError(
                f"The student's embeddings are {tuple(student.shape)} and the "
                f"teacher's {tuple(teacher.shape)}: give the embedding term a "
                "projection from the one dimension to the other."
            )
        difference = F.normalize(student, dim=1) - F.normalize(teacher, dim=1)
        return difference.square().sum(1).mean()


@in_float64
def class_loss(student_logits, teacher_logits, temperature):
    """Relations between classes: ``|P_t' P_t - P_s' P_s|_F^2 / C``.

    The C x C matrices are never built. With ``D = P_s - P_t`` and ``M = (P_s +
    P_t) / 2``, ``P_s' P_s - P_t' P_t = M' D + D' M`` exactly, and so::

        |M'D + D'M|_F^2 = 2 <M M', D D'>_F + 2 <D M', (D M')'>_F

    three B x B products. Every term is of second order in ``D``, so nothing
    cancels when the student comes close to the teacher, unlike in ``|P_t
    P_t'|^2 + |P_s P_s'|^2 - 2 |P_s P_t'|^2``.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality and for B permuted alike in both.

    Example
    -------
    >>> student = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> teacher = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    >>> class_loss(student, teacher, temperature=1)
    tensor(1.)
    """
    mean, difference = _mean_and_difference(
        student_logits, teacher_logits, temperature
    )
    cross = difference @ mean.T
    squared = ((mean @ mean.T) * (difference @ difference.T)).sum()
    return 2 * (squared + (cross * cross.T).sum()) / mean.shape[1]


@in_float64
def batch_loss(student_logits, teacher_logits, temperature):
    """Relations between utterances: ``|P_t P_t' - P_s P_s'|_F^2 / B``.

    With ``D`` and ``M`` of :func:`class_loss` the difference of the two Gram
    matrices is ``D M' + (D M')'`` exactly: one B x B product.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality and for C permuted in one of them.

    Example
    -------
    >>> student = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> teacher = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    >>> batch_loss(student, teacher, temperature=1)
    tensor(1.)
    """
    mean, difference = _mean_and_difference(
        student_logits, teacher_logits, temperature
    )
    cross = difference @ mean.T
    return (cross + cross.T).square().sum() / len(mean)


def multi_level_kd_loss(
    student_logits, teacher_logits, temperatures=(2, 3, 4, 5, 6)
):
    """The three levels on plain inputs, summed over temperatures.

    ``sum_tau [instance(tau) + class(tau) + batch(tau)]``, ``tau^2`` on the
    instance term only. Jin, Wang and Lin, "Multi-Level Logit Distillation",
    CVPR 2023, without its confidence masks.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperatures : iterable of float
        Every ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality.

    Example
    -------
    >>> logits = torch.rand(4, 10)
    >>> multi_level_kd_loss(logits, logits)
    tensor(0.)
    """
    return sum(
        level(student_logits, teacher_logits, temperature)
        for temperature in temperatures
        for level in (instance_loss, class_loss, batch_loss)
    )


@in_float64
def decoupled_kd_loss(
    student_logits, teacher_logits, target, alpha, beta, temperature=1
):
    """KD with the target and the non-target speakers weighed apart.

    ::

        tau^2 * mean_i [alpha KL(b_t || b_s) + beta KL(q_t || q_s)]

    ``b = (p_y, 1 - p_y)`` is the binary posterior of the true speaker and
    ``q`` the posterior among the others. ``alpha = 1``, ``beta = 1 - p_t,y``
    is vanilla KD; a larger ``beta`` emphasises the non-target speakers. Zhao,
    Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", CVPR 2022.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C), C at least 2.
    teacher_logits : torch.Tensor
        Shape (B, C).
    target : torch.Tensor
        True classes, shape (B,), int64.
    alpha : float or torch.Tensor
        Weight of the target part, a number or shape (B,).
    beta : float or torch.Tensor
        Weight of the non-target part, a number or shape (B,).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Example
    -------
    >>> logits = torch.tensor([[3.0, 1.0, 0.0]])
    >>> decoupled_kd_loss(logits, logits, torch.tensor([0]), alpha=1, beta=8)
    tensor(0.)
    """
    binary_student, others_student = binary_posteriors(
        student_logits / temperature, target
    )
    binary_teacher, others_teacher = binary_posteriors(
        teacher_logits / temperature, target
    )
    binary = kl_of_rows(binary_teacher, binary_student)
    others = kl_of_rows(others_teacher, others_student)
    return temperature**2 * (alpha * binary + beta * others).mean()


@in_float64
def dist_loss(student_logits, teacher_logits, temperature, beta, gamma):
    """DIST: Pearson correlation within utterances and within classes.

    ::

        beta * mean_i [1 - corr(P_s[i, :], P_t[i, :])]
        + gamma * mean_c [1 - corr(P_s[:, c], P_t[:, c])]

    Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger
    Teacher", NeurIPS 2022. A row or column that is constant in one of the two
    has no correlation and counts zero.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.
    beta : float
        Weight of the relation between classes within an utterance.
    gamma : float
        Weight of the relation between utterances within a class.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality, at most ``2 * (beta + gamma)``.

    Example
    -------
    >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> dist_loss(student, student.flip(0), temperature=1, beta=1, gamma=0)
    tensor(2.)
    """
    student = _posteriors(student_logits, temperature)
    teacher = _posteriors(teacher_logits, temperature)
    within_utterances = _one_minus_correlation(student, teacher, dim=1)
    within_classes = _one_minus_correlation(student, teacher, dim=0)
    return beta * within_utterances.mean() + gamma * within_classes.mean()


def _posteriors(logits, temperature):
    """``P``, the rows ``softmax(z / tau)``, shape (B, C)."""
    return torch.softmax(logits / temperature, dim=1)


def _mean_and_difference(student_logits, teacher_logits, temperature):
    """``M = (P_s + P_t) / 2`` and ``D = P_s - P_t``, both (B, C)."""
    student = _posteriors(student_logits, temperature)
    teacher = _posteriors(teacher_logits, temperature)
    return (student + teacher) / 2, student - teacher


def kl_of_rows(teacher, student):
    """KL of each row of log-posteriors, shape (B,); minus infinity is p = 0."""
    impossible = teacher.isneginf()
    return (
        teacher.exp()
        * (
            teacher.masked_fill(impossible, 0)
            - student.masked_fill(impossible, 0)
        )
    ).sum(1)


def binary_posteriors(logits, target):
    """Log-posteriors of target against the rest (B, 2), and among the rest.

    The second has shape (B, C) with minus infinity at the target.
    """
    target = target[:, None]
    others = logits.scatter(1, target, -torch.inf)
    binary = torch.cat(
        [logits.gather(1, target), others.logsumexp(1, keepdim=True)], dim=1
    )
    return torch.log_softmax(binary, dim=1), torch.log_softmax(others, dim=1)


def _one_minus_correlation(student, teacher, dim):
    """``1 - corr`` along a dimension, as ``|n(a) - n(b)|^2 / 2``.

    This form is exactly zero at equality and does not cancel near it.
    """
    student, student_varies = _standardise(student, dim)
    teacher, teacher_varies = _standardise(teacher, dim)
    squared = (student - teacher).square().sum(dim)
    return squared / 2 * (student_varies & teacher_varies)


def _standardise(posteriors, dim):
    """Centred and of unit length, and whether there was any variation."""
    centred = posteriors - posteriors.mean(dim, keepdim=True)
    peak = centred.detach().abs().amax(dim, keepdim=True)
    # Below this the mean's own rounding is all there is.
    rounding = 64 * torch.finfo(posteriors.dtype).eps
    varies = peak > rounding * posteriors.detach().amax(dim, keepdim=True)
    # A speaker's posterior can be tiny throughout: the peak goes out first.
    scaled = torch.where(varies, centred / peak.where(varies, 1.0), 0.0)
    return F.normalize(scaled, dim=dim), varies.squeeze(dim)
