"""Deletion and insertion [1]: is what a map calls important important?

Bins, or whole frames, are removed in the order of the map, most important
first, until the utterance is empty, or are inserted in the same order into an
empty one. With a true map the score falls early when bins are removed and
rises early when they are inserted.

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

    One sort on the attribution's device. Equal values (Grad-CAM gives all bins
    of a frame the same) are ranked in a random order, not from low to high
    frequency.

    Arguments
    ---------
    attribution : torch.Tensor
        Shape (B, T, F).
    unit : str
        ``bins``, or ``frames``: ranked by their sum over the mel bands.
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
    """What a deleted bin is replaced by, and what insertion begins with.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    kind : str
        ``zero``: after mean normalisation the mean spectrum of the utterance;
        ``band_mean``: each band's mean over the frames given (the same as
        ``zero`` where the features were normalised over these very frames);
        ``blur``: the utterance smoothed over time and frequency.
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
    """Smooth (B, T, F) over both axes; the edges repeat themselves."""
    reach = math.ceil(3 * sigma)
    steps = torch.arange(-reach, reach + 1, dtype=feats.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(feats.device)
    image = torch.nn.functional.pad(
        feats[:, None], (reach, reach, reach, reach), mode="replicate"
    )
    image = torch.nn.functional.conv2d(image, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(image, kernel.view(1, 1, -1, 1))[:, 0]


def perturbed_inputs(feats, ranks, counts, baseline, insertion=False):
    """Utterances of which a number of units are gone, or have come.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (N, T, F).
    ranks : torch.Tensor
        Shape (N, T, F) or (N, T, 1), from :func:`importance_ranks`.
    counts : torch.Tensor
        Shape (N,), how many units, most important first.
    baseline : torch.Tensor
        Shape (N, T, F), from :func:`empty_input`.
    insertion : bool
        Whether these units alone are there instead of alone missing.

    Returns
    -------
    inputs : torch.Tensor
        Shape (N, T, F); each bin is exactly the utterance's or the baseline's.
    """
    chosen = ranks < counts.view(-1, 1, 1)
    if insertion:
        return torch.where(chosen, feats, baseline)
    return torch.where(chosen, baseline, feats)


@torch.no_grad()
def perturbation_outputs(
    network,
    feats,
    ranks,
    levels,
    baseline,
    insertion=False,
    batch_frames=6400,
):
    """What a network gives at every level of deletion or insertion.

    The ranks are compared with a threshold per level: all levels of a batch
    come from the one sort that made the ranks.

    Arguments
    ---------
    network : callable
        ``(N, T, F) -> (N, D)``, embeddings or cosines.
    feats : torch.Tensor
        Shape (B, T, F).
    ranks : torch.Tensor
        Shape (B, T, F) or (B, T, 1), from :func:`importance_ranks`.
    levels : torch.Tensor
        Shape (L,), shares of the units in [0, 1] that are gone (or there).
    baseline : torch.Tensor
        Shape (B, T, F), from :func:`empty_input`.
    insertion : bool
        Whether units come instead of go.
    batch_frames : int
        At most this many frames go through the network at once.

    Returns
    -------
    outputs : torch.Tensor
        Shape (B, L, D). Deletion at 0 and insertion at 1 are the clean
        utterance, deletion at 1 and insertion at 0 the empty one, exactly.
    """
    n_units = ranks[0].numel()
    counts = (levels.double() * n_units).round().long().to(feats.device)
    n_items, n_levels = feats.shape[0], len(counts)
    chunk = max(1, batch_frames // feats.shape[1])
    outputs = []
    for start in range(0, n_items * n_levels, chunk):
        stop = min(start + chunk, n_items * n_levels)
        index = torch.arange(start, stop, device=feats.device)
        item = index // n_levels
        inputs = perturbed_inputs(
            feats[item],
            ranks[item],
            counts[index % n_levels],
            baseline[item],
            insertion,
        )
        outputs.append(network(inputs))
    return torch.cat(outputs).view(n_items, n_levels, -1)


def identification_curves(cosines, target, scale=30.0, top=(1, 5)):
    """Posterior of the true speaker and top-k hits, level by level.

    Arguments
    ---------
    cosines : torch.Tensor
        Shape (B, L, C), against the training speakers, at L levels.
    target : torch.Tensor
        Shape (B,), the true speakers.
    scale : float
        Of the logits: the scale of the AAM-softmax that the model was
        trained with. Without it every posterior is near 1 / C.
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


def area_under_curve(curve, levels):
    """Area under a curve over levels from 0 to 1, by the trapezoid rule.

    A curve with values in [0, 1] has an area in [0, 1]: its mean over the
    levels.

    Arguments
    ---------
    curve : torch.Tensor
        Shape (..., L).
    levels : torch.Tensor
        Shape (L,), rising from 0 to 1.

    Returns
    -------
    area : torch.Tensor
        Shape (...).

    Example
    -------
    >>> levels = torch.linspace(0, 1, 21)
    >>> round(float(area_under_curve((levels < 0.5).float(), levels)), 4)
    0.475
    """
    return torch.trapezoid(curve, levels.to(curve), dim=-1)
