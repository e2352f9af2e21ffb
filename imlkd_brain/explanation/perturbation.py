"""Deletion and insertion [1]: does the score depend on the important bins?

Deletion removes bins, or whole frames, from the utterance in the order of the
map, most important first, until it is empty. Insertion adds them to an empty
utterance in the same order. If the map is true, the score falls early under
deletion and rises early under insertion.

References
----------
[1] V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for
    Explanation of Black-box Models", BMVC 2018.

Authors: IML-KD contributors
"""

import math

import torch

from imlkd_brain.errors import UserError

UNITS = ("bins", "frames")
BASELINES = ("zero", "band_mean", "blur")


def importance_ranks(attribution, unit="bins", generator=None):
    """Rank the bins, or the frames, of every utterance of a batch.

    Equal values are ranked in a random order, not from low to high frequency:
    Grad-CAM gives all bins of a frame the same value.

    Arguments
    ---------
    attribution : torch.Tensor
        Shape (B, T, F).
    unit : str
        ``bins``, or ``frames``, which are ranked by their sum over the bands.
    generator : torch.Generator
        On the CPU, for ties.

    Returns
    -------
    ranks : torch.Tensor
        Shape (B, T, F) or (B, T, 1), int64; 0 is the most important.

    Example
    -------
    >>> importance_ranks(torch.tensor([[[0.1, 0.9], [0.5, 0.2]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    if unit not in UNITS:
        raise UserError(f"units: `{unit}` is none of {', '.join(UNITS)}.")
    if unit == "frames":
        attribution = attribution.sum(2, keepdim=True)
    values = attribution.flatten(1)
    shuffle = torch.randperm(values.shape[1], generator=generator)
    shuffle = shuffle.to(values.device)
    order = shuffle[
        values[:, shuffle].argsort(dim=1, descending=True, stable=True)
    ]
    places = torch.arange(values.shape[1], device=values.device)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, places.expand_as(order))
    return ranks.view(attribution.shape)


def empty_input(feats, kind="zero", blur_sigma=10.0):
    """Make the empty input: the end of deletion and the start of insertion.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    kind : str
        ``zero``: the mean spectrum of mean-normalised features;
        ``band_mean``: the mean of each band over these frames, which is zero
        if the features were normalised over the same frames;
        ``blur``: the utterance, smoothed over time and frequency.
    blur_sigma : float
        Standard deviation of the Gaussian of ``blur``, in frames and bands.

    Returns
    -------
    baseline : torch.Tensor
        Shape (B, T, F).

    Example
    -------
    >>> empty_input(torch.tensor([[[1.0, 4.0], [3.0, 0.0]]]), "band_mean")
    tensor([[[2., 2.],
             [2., 2.]]])
    """
    if kind == "zero":
        return torch.zeros_like(feats)
    if kind == "band_mean":
        return feats.mean(1, keepdim=True).expand_as(feats)
    if kind == "blur":
        return gaussian_blur(feats, blur_sigma)
    raise UserError(f"baselines: `{kind}` is none of {', '.join(BASELINES)}.")


def gaussian_blur(feats, sigma):
    """Smooth (B, T, F) over both axes; the edge values continue outside."""
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=feats.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(feats.device)
    image = torch.nn.functional.pad(
        feats[:, None], (reach, reach, reach, reach), mode="replicate"
    )
    image = torch.nn.functional.conv2d(image, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(image, kernel.view(1, 1, -1, 1))[:, 0]


def perturbed_inputs(before, after, ranks, counts):
    """Replace a number of units of each utterance, most important first.

    Arguments
    ---------
    before, after : torch.Tensor
        Shape (N, T, F). For deletion ``before`` is the utterance and ``after``
        is empty (:func:`empty_input`); for insertion they are swapped.
    ranks : torch.Tensor
        Shape (N, T, F) or (N, T, 1), from :func:`importance_ranks`.
    counts : torch.Tensor
        Shape (N,), how many units to replace.

    Returns
    -------
    inputs : torch.Tensor
        Shape (N, T, F); each bin is exactly that of ``before`` or ``after``.
    """
    return torch.where(ranks < counts.view(-1, 1, 1), after, before)


@torch.no_grad()
def perturbation_outputs(
    network, before, after, ranks, levels, batch_frames=6400
):
    """Compute the output of a network at every level of deletion or insertion.

    Each level compares the ranks with a threshold, so one sort serves all
    levels.

    Arguments
    ---------
    network : callable
        ``(N, T, F) -> (N, D)``, embeddings or cosines.
    before, after : torch.Tensor
        Shape (B, T, F), as :func:`perturbed_inputs` takes them.
    ranks : torch.Tensor
        Shape (B, T, F) or (B, T, 1), from :func:`importance_ranks`.
    levels : torch.Tensor
        Shape (L,), shares of the units in [0, 1] that are replaced.
    batch_frames : int
        At most this many frames go through the network at once.

    Returns
    -------
    outputs : torch.Tensor
        Shape (B, L, D). Level 0 is exactly ``before``, level 1 ``after``.
    """
    n_units = ranks[0].numel()
    counts = (levels.double() * n_units).round().long().to(before.device)
    n_items, n_levels = before.shape[0], len(counts)
    chunk = max(1, batch_frames // before.shape[1])
    outputs = []
    for start in range(0, n_items * n_levels, chunk):
        stop = min(start + chunk, n_items * n_levels)
        index = torch.arange(start, stop, device=before.device)
        item = index // n_levels
        inputs = perturbed_inputs(
            before[item], after[item], ranks[item], counts[index % n_levels]
        )
        outputs.append(network(inputs))
    return torch.cat(outputs).view(n_items, n_levels, -1)


def identification_curves(cosines, target, scale=30.0, top=(1, 5)):
    """Compute the true speaker's posterior and the top-k hits at each level.

    Arguments
    ---------
    cosines : torch.Tensor
        Shape (B, L, C), against the training speakers, at L levels.
    target : torch.Tensor
        Shape (B,), the true speakers.
    scale : float
        The scale of the AAM-softmax that the model was trained with. Logits
        are the scaled cosines.
    top : sequence of int
        The k of the top-k identification.

    Returns
    -------
    curves : dict of str to torch.Tensor
        ``posterior`` and ``top<k>``, each (B, L), in [0, 1]. A tie with
        another speaker is a miss.
    """
    posteriors = torch.softmax(scale * cosines.float(), dim=-1)
    index = target.view(-1, 1, 1).expand(-1, cosines.shape[1], 1)
    true = cosines.gather(2, index)
    ahead = (cosines >= true).sum(-1) - 1
    curves = {"posterior": posteriors.gather(2, index)[..., 0]}
    for k in top:
        curves[f"top{k}"] = (ahead < k).float()
    return curves
