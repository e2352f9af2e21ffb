"""How far two maps agree: rank correlation, shared top bins, time profile.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.perturbation import importance_ranks
from imlkd_brain.explanation.tasks import seeded


def average_ranks(values):
    """Ranks from 0, ties sharing their mean rank, along the last axis.

    Arguments
    ---------
    values : torch.Tensor
        Shape (B, N).

    Returns
    -------
    ranks : torch.Tensor
        Shape (B, N), float64.

    Example
    -------
    >>> average_ranks(torch.tensor([[3.0, 1.0, 3.0]]))
    tensor([[1.5000, 0.0000, 1.5000]], dtype=torch.float64)
    """
    ordered, order = values.sort(-1)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = starts.flatten().cumsum(0) - 1
    places = torch.arange(values.shape[1], device=values.device)
    places = places.expand_as(order).flatten().double()
    sizes = torch.bincount(run)
    sums = places.new_zeros(len(sizes)).index_add_(0, run, places)
    shared = (sums / sizes)[run].view(order.shape)
    return torch.empty_like(shared).scatter_(-1, order, shared)


def correlation(one, other):
    """Pearson's correlation of two batches, row by row.

    Arguments
    ---------
    one, other : torch.Tensor
        Shape (B, N).

    Returns
    -------
    rho : torch.Tensor
        Shape (B,), in [-1, 1]; 0 where a row is constant.
    """
    first = one.double() - one.double().mean(1, keepdim=True)
    second = other.double() - other.double().mean(1, keepdim=True)
    norms = first.norm(dim=1) * second.norm(dim=1)
    product = (first * second).sum(1)
    return torch.where(norms > 0, product / norms.clamp(min=1e-30), 0.0)


def rank_correlation(one, other):
    """Spearman's rank correlation of two batches of maps.

    Arguments
    ---------
    one, other : torch.Tensor
        Shape (B, ...).

    Returns
    -------
    rho : torch.Tensor
        Shape (B,), in [-1, 1]; 0 where a map is constant, for it ranks
        nothing.

    Example
    -------
    >>> one = torch.tensor([[0.1, 0.2, 0.9]])
    >>> round(rank_correlation(one, one.exp()).item(), 6)
    1.0
    """
    return correlation(
        average_ranks(one.flatten(1)), average_ranks(other.flatten(1))
    )


def top_share(attribution, share=0.2, generator=None):
    """The most important bins of each map of a batch.

    Two maps that have nothing to do with each other have ``share`` of these
    bins in common.

    Arguments
    ---------
    attribution : torch.Tensor
        Shape (B, T, F).
    share : float
        Which part of the bins counts as most important.
    generator : torch.Generator
        On the CPU, for ties.

    Returns
    -------
    top : torch.Tensor
        Shape (B, T, F), bool; the same number of True in each map.
    """
    values = attribution.flatten(1)
    count = max(1, round(share * values.shape[1]))
    top = values >= values.topk(count).values[:, -1:]
    if (top.sum(1) > count).any():  # ties at the edge
        return importance_ranks(attribution, generator=generator) < count
    return top.view(attribution.shape)


def time_profile(attribution):
    """Attention per frame: absolute attribution summed over the mel bands.

    Arguments
    ---------
    attribution : torch.Tensor
        Shape (..., T, F).

    Returns
    -------
    profile : torch.Tensor
        Shape (..., T), with mean 1 over the frames (0 for an empty map).
    """
    profile = attribution.abs().sum(-1)
    mean = profile.mean(-1, keepdim=True)
    return torch.where(mean > 0, profile / mean.clamp(min=1e-30), 0.0)


AGREEMENT = ("rank_correlation", "top_overlap", "time_correlation")


def ranked(attribution, share):
    """What the comparison of a map (T, F) with others needs of it."""
    batch = attribution[None]
    return (
        average_ranks(batch.flatten(1)),
        top_share(batch, share, seeded("ties")),
        average_ranks(time_profile(batch)),
    )


def agreement(one, other):
    """Three numbers (:data:`AGREEMENT`) for how alike two ranked maps are."""
    if one[1].shape != other[1].shape:
        raise UserError(
            "models: their features differ (maps of "
            f"{tuple(one[1].shape[1:])} and {tuple(other[1].shape[1:])} "
            "frames and mel bands); maps of such models cannot be compared, "
            "explain them one by one."
        )
    return torch.stack(
        (
            correlation(one[0], other[0])[0],
            (one[1] & other[1]).sum() / one[1].sum().double(),
            correlation(one[2], other[2])[0],
        )
    )
