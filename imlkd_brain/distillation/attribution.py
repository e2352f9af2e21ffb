"""Integrated Gradients: how much each bin of the input adds to a score.

Features ``x`` are (batch, time, mel): log-mel, sentence-mean-normalised. A
network is any callable ``logits`` from (N, time, mel) to (N, classes) that
treats its rows independently (BatchNorm in eval mode); for a verification
score, give one column per enrolment embedding (:func:`enrolment_score`).

Everything here runs in float32 or better, also under the caller's autocast,
and returns constants: no gradient flows through an attribution.

References
----------
Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML
2017.

Authors: IML-KD contributors
"""

import numbers

import numpy as np
import torch

from imlkd_brain.errors import UserError, expected_sentence, nearest
from imlkd_brain.precision import full_float32

RULES = ("right", "midpoint", "gauss_legendre", "stochastic")
TARGETS = ("true_class", "predicted", "log_posterior", "own_embedding")

# Scale of AAM-softmax: turns cosines into the logits whose posterior is meant.
COSINE_SCALE = 30.0


def quadrature(rule, n_steps):
    """Nodes and weights on [0, 1] of a rule that is not random.

    ``right`` is the paper's sum, nodes ``k/m`` and weights ``1/m``; its error
    falls as ``1/m``. ``midpoint`` has nodes ``(k - 1/2)/m``, exact for a
    gradient linear along the path. ``gauss_legendre`` with ``m`` nodes is
    exact for a gradient of degree ``2m - 1``. All weights sum to one.

    Arguments
    ---------
    rule : str
        ``right``, ``midpoint`` or ``gauss_legendre``.
    n_steps : int
        Number of nodes, m.

    Returns
    -------
    nodes : numpy.ndarray
        Shape (m,), float64, ascending.
    weights : numpy.ndarray
        Shape (m,), float64, sum 1.

    Raises
    ------
    UserError
        For another rule or fewer than one step.

    Example
    -------
    >>> quadrature("midpoint", 2)[0].tolist()
    [0.25, 0.75]
    """
    check_positive_integer("n_steps", n_steps)
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(n_steps)
        return (nodes + 1) / 2, weights / 2
    shift = {"right": 0.0, "midpoint": 0.5}
    if rule not in shift:
        check_choice("rule", rule, RULES[:3])
    nodes = (np.arange(1, n_steps + 1) - shift[rule]) / n_steps
    return nodes, np.full(n_steps, 1 / n_steps)


@full_float32()
def integrated_gradients(
    logits,
    feats,
    target,
    *,
    n_steps=1,
    rule="midpoint",
    baseline=None,
    internal_batch_size=None,
    generator=None,
    with_gap=True,
):
    """Integrated Gradients of one logit per item, and its completeness gap.

    With ``f`` the target's logit, baseline ``x'`` and a rule's nodes
    ``alpha_k`` and weights ``w_k``::

        IG(x) = (x - x') * sum_k w_k df(x' + alpha_k (x - x')) / dx
        gap   = sum(IG(x)) - (f(x) - f(x'))

    The gap is zero for the exact integral (completeness). With the
    ``stochastic`` rule each item and step has its own ``alpha`` drawn
    uniformly from [0, 1), so that the attribution is unbiased at any
    ``n_steps``.

    Gradients are taken with respect to the input only: no parameter's
    ``.grad`` changes and no graph is kept. It works inside the caller's
    ``no_grad``, ``inference_mode`` and ``autocast``; autocast and TF32 are
    switched off inside, and half-precision features are taken to float32.

    Arguments
    ---------
    logits : callable
        From (N, T, F) to (N, C), rows independent of one another.
    feats : torch.Tensor
        The input ``x``, shape (B, T, F).
    target : torch.Tensor
        The column of each item, shape (B,), int64.
    n_steps : int
        Number of nodes m: forward and backward passes per item.
    rule : str
        One of ``right`` (the paper's), ``midpoint``, ``gauss_legendre``,
        ``stochastic``.
    baseline : torch.Tensor, optional
        ``x'``, broadcastable to (B, T, F). Zeros without it, which after mean
        normalisation is the utterance's mean spectrum.
    internal_batch_size : int, optional
        Most rows in one call of ``logits``: the memory limit. Without it all
        ``m * B`` rows go at once.
    generator : torch.Generator, optional
        Source of the ``stochastic`` rule's draws.
    with_gap : bool
        Whether to spend two forward passes per item on the gap.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F), detached, float32 or better.
    gap : torch.Tensor or None
        Shape (B,), in the logit's unit; None if not ``with_gap``.

    Raises
    ------
    UserError
        For an unknown rule, shapes that do not fit, or logits that carry no
        gradient to their input.

    Example
    -------
    >>> def square(x):
    ...     return x.square().sum((1, 2))[:, None]
    >>> feats = torch.tensor([[[1.0, 2.0]]])
    >>> target = torch.tensor([0])
    >>> integrated_gradients(square, feats, target)
    (tensor([[[1., 4.]]]), tensor([0.]))
    """
    check_choice("rule", rule, RULES)
    check_positive_integer("n_steps", n_steps)
    if internal_batch_size is not None:
        check_positive_integer("internal_batch_size", internal_batch_size)
    if feats.ndim != 3 or target.shape != feats.shape[:1]:
        raise UserError(
            "Integrated Gradients need features (B, T, F) and targets (B,), "
            f"not {tuple(feats.shape)} and {tuple(target.shape)}; add the "
            "batch dimension or give one class per item."
        )
    plain = torch.autocast(feats.device.type, enabled=False)
    with torch.inference_mode(False), plain:
        # The clones turn a caller's inference tensors into ordinary ones.
        feats = float32_or_better(feats.detach()).clone()
        target = target.to(feats.device).clone()
        baseline = expand_baseline(baseline, feats)
        nodes, weights = _path_nodes(rule, n_steps, feats, generator)
        difference = feats - baseline
        mean_gradient = torch.zeros_like(feats)
        for step, item in _chunks(n_steps, len(feats), internal_batch_size):
            alphas = nodes[step, item, None, None]
            points = baseline[item] + alphas * difference[item]
            gradient = _input_gradient(logits, points, target[item])
            mean_gradient[item] += torch.einsum(
                "s,sbtf->btf", weights[step], gradient
            )
        attribution = difference * mean_gradient
        if not with_gap:
            return attribution, None
        rows = internal_batch_size or 2 * len(feats)
        ends = [
            _scores(logits, part, part_target)
            for part, part_target in zip(
                torch.cat([feats, baseline]).split(rows),
                torch.cat([target, target]).split(rows),
            )
        ]
        at_feats, at_baseline = torch.cat(ends).chunk(2)
        # Tens of thousands of bins are added: float64 where there is one.
        total = attribution.sum((1, 2), dtype=_widest(attribution.device))
        return attribution, (total - (at_feats - at_baseline)).to(feats.dtype)


@full_float32()
def attribution_target(
    logits, feats, target, kind="true_class", scale=COSINE_SCALE
):
    """What ``f`` is: the callable and the columns to attribute.

    ``true_class`` is the true speaker's cosine, ``predicted`` the cosine of
    the class the network finds (one more forward pass), ``log_posterior`` the
    true speaker's ``log softmax(scale * cosine)``. ``own_embedding`` needs no
    classes: the caller gives :func:`enrolment_score` of the utterances' own
    embeddings, and their numbers as targets.

    Arguments
    ---------
    logits : callable
        From (N, T, F) to cosines (N, C).
    feats : torch.Tensor
        Shape (B, T, F); read by ``predicted`` only.
    target : torch.Tensor
        True classes, shape (B,), int64.
    kind : str
        ``true_class``, ``predicted``, ``log_posterior`` or ``own_embedding``.
    scale : float
        Scale of the cosines inside the posterior.

    Returns
    -------
    logits : callable
        For :func:`integrated_gradients`.
    target : torch.Tensor
        Shape (B,), int64.

    Raises
    ------
    UserError
        For another kind.

    Example
    -------
    >>> def cosines(x):
    ...     return x[:, 0]
    >>> feats = torch.tensor([[[0.1, 0.9]]])
    >>> f, y = attribution_target(cosines, feats, torch.tensor([0]), "predicted")
    >>> y
    tensor([1])
    """
    check_choice("attribution_target", kind, TARGETS)
    if kind == "predicted":
        plain = torch.autocast(feats.device.type, enabled=False)
        with torch.no_grad(), plain:
            target = logits(float32_or_better(feats.detach())).argmax(1)
    if kind != "log_posterior":
        return logits, target

    def log_posteriors(points):
        """Log-posteriors (N, C) of points (N, T, F)."""
        return torch.log_softmax(scale * logits(points), dim=1)

    return log_posteriors, target


def enrolment_score(embed, enrolments):
    """A score that needs no classes: the cosine against each enrolment.

    Arguments
    ---------
    embed : callable
        ``(N, T, F) -> (N, D)``, the embeddings of features.
    enrolments : torch.Tensor
        Shape (E, D), one enrolment embedding a row. No gradient reaches it.

    Returns
    -------
    score : callable
        ``(N, T, F) -> (N, E)``; the target of an utterance is the row of its
        enrolment.

    Example
    -------
    >>> score = enrolment_score(lambda x: x.mean(1), torch.eye(4)[:2])
    >>> score(torch.ones(3, 5, 4)).shape
    torch.Size([3, 2])
    """
    directions = torch.nn.functional.normalize(enrolments.detach(), dim=-1)

    def score(feats):
        """Cosines (N, E) of features (N, T, F)."""
        embeddings = torch.nn.functional.normalize(embed(feats), dim=-1)
        return embeddings @ directions.T

    return score


def _path_nodes(rule, n_steps, feats, generator):
    """Nodes (m, B) and weights (m,) on the features' device."""
    if rule == "stochastic":
        shape = (n_steps, len(feats))
        nodes = random_like(torch.rand, shape, feats, generator)
        return nodes, feats.new_full((n_steps,), 1 / n_steps)
    nodes, weights = (
        torch.as_tensor(values, dtype=feats.dtype).to(
            feats.device, non_blocking=True
        )
        for values in quadrature(rule, n_steps)
    )
    return nodes[:, None].expand(-1, len(feats)), weights


def _chunks(n_steps, n_items, limit):
    """Slices of steps and of items whose product is within the limit."""
    limit = limit or n_steps * n_items
    steps = max(1, limit // max(1, n_items))
    items = min(limit, max(1, n_items))
    for step in range(0, n_steps, steps):
        for item in range(0, n_items, items):
            yield slice(step, step + steps), slice(item, item + items)


def _input_gradient(logits, points, target):
    """Gradient of each row's target logit, ``points`` being (S, B, T, F)."""
    n_steps = len(points)
    with torch.enable_grad():
        rows = points.flatten(0, 1).requires_grad_()
        scores = _pick(logits(rows), target.repeat(n_steps), len(rows))
        if not scores.requires_grad:
            raise UserError(
                "The network's logits carry no gradient to the features, so "
                "nothing can be attributed: call it without no_grad or "
                "detach inside."
            )
        (gradient,) = torch.autograd.grad(scores.sum(), rows)
    return gradient.unflatten(0, (n_steps, -1))


def _scores(logits, rows, target):
    """Target logits (N,) without a graph."""
    with torch.no_grad():
        return _pick(logits(rows), target, len(rows)).to(_widest(rows.device))


def _pick(values, target, n_rows):
    """The target's column of each row, shape (N,)."""
    if values.ndim != 2 or len(values) != n_rows:
        raise UserError(
            f"The network maps {n_rows} inputs to {tuple(values.shape)}, but "
            "(N, T, F) must give (N, C): return one row of logits per input."
        )
    return values.gather(1, target[:, None]).squeeze(1)


def expand_baseline(baseline, feats):
    """The baseline as (B, T, F) of the features' type and device."""
    if baseline is None:
        return torch.zeros_like(feats)
    baseline = baseline.detach().to(feats, non_blocking=True)
    try:
        return baseline.expand_as(feats).clone()
    except RuntimeError:
        raise UserError(
            f"The baseline {tuple(baseline.shape)} does not broadcast to the "
            f"features {tuple(feats.shape)}: give one number per mel band."
        ) from None


def random_like(draw, shape, like, generator):
    """Numbers drawn where the generator lives, moved to ``like``."""
    device = generator.device if generator is not None else like.device
    return draw(shape, generator=generator, dtype=like.dtype, device=device).to(
        like.device, non_blocking=True
    )


def float32_or_better(tensor):
    """Half precision and integers as float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _widest(device):
    """float64, except where the device has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def check_choice(key, value, choices):
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        expected = f"one of {', '.join(choices)}{nearest(value, choices)}"
        raise UserError(expected_sentence(key, repr(value), expected))


def check_positive_integer(key, value):
    """Refuse what is not a whole number of at least one."""
    if (
        not isinstance(value, numbers.Integral)
        or isinstance(value, bool)
        or value < 1
    ):
        expected = "a whole number of at least 1"
        raise UserError(expected_sentence(key, repr(value), expected))
