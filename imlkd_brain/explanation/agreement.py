"""How well two maps agree: rank correlation, shared top bins, time profile.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch
from scipy.stats import rankdata

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.perturbation import importance_ranks
from imlkd_brain.explanation.tasks import seeded


def average_ranks(values):
    """Rank each row; equal values share their mean rank.

    Arguments
    ---------
    values : torch.Tensor
        Shape (B, N), on any device.

    Returns
    -------
    ranks : torch.Tensor
        Shape (B, N), float64, on the CPU; 1 is the lowest.

    Example
    -------
    >>> average_ranks(torch.tensor([[3.0, 1.0, 3.0]]))
    tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    return torch.from_numpy(rankdata(values.cpu().numpy(), axis=-1))


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
        Shape (B,), in [-1, 1]; 0 where a map is constant (SciPy gives NaN).

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
    """Mark the most important bins of each map of a batch.

    Two unrelated maps have ``share`` of these bins in common.

    Arguments
    ---------
    attribution : torch.Tensor
        Shape (B, T, F).
    share : float
        Share of the bins to mark.
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
    """Sum the absolute attribution of each frame over the mel bands.

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


@dataclass
class RankedMap:
    """What the agreement of a map (T, F) with other maps is computed from.

    Attributes
    ----------
    bins : torch.Tensor
        Shape (1, T * F), ranks of the bins.
    top : torch.Tensor
        Shape (1, T, F), True for the most important bins.
    frames : torch.Tensor
        Shape (1, T), ranks of the frames in the time profile.
    """

    bins: torch.Tensor
    top: torch.Tensor
    frames: torch.Tensor

    @classmethod
    def of(cls, attribution, share):
        """Rank a map (T, F); ``share`` of its bins are the top ones."""
        batch = attribution[None]
        return cls(
            average_ranks(batch.flatten(1)),
            top_share(batch, share, seeded("ties")),
            average_ranks(time_profile(batch)),
        )


def agreement(one, other):
    """Compare two maps of the same utterance.

    Arguments
    ---------
    one, other : RankedMap
        The maps.

    Returns
    -------
    values : torch.Tensor
        Shape (3,), float64, one value for each of :data:`AGREEMENT`.

    Raises
    ------
    UserError
        If the maps differ in frames or mel bands.
    """
    if one.top.shape != other.top.shape:
        raise UserError(
            "models: their features differ (maps of "
            f"{tuple(one.top.shape[1:])} and {tuple(other.top.shape[1:])} "
            "frames and mel bands); maps of such models cannot be compared, "
            "explain them one by one."
        )
    return torch.stack(
        (
            correlation(one.bins, other.bins)[0],
            (one.top & other.top).sum() / one.top.sum().double(),
            correlation(one.frames, other.frames)[0],
        )
    )
