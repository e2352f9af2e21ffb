"""Where a speaker network looks, and whether the map of it is true.

A *map* gives every time-frequency bin of an utterance a number: how much the
bin mattered to one score of the network. The score is any callable
``(N, T, F) -> (N, C)`` with a column ``target`` of shape ``(N,)``: the true
speaker's cosine for a training speaker (a model's classifier), the cosine
against an enrolment embedding for a held-out one (:func:`enrolment_score`).

A map is judged by *deletion* and *insertion* [1]: bins, or whole frames, go in
the order of the map, most important first, until the utterance is empty; or
come, in the same order, into an empty one. A true map makes the score fall
early when bins go and rise early when they come. :func:`parameter_cascade`
adds the sanity check of [2]: a map that stays the same when the network's
parameters are shuffled shows the utterance, not the network.

Everything up to the plots takes tensors, returns tensors on the same device
and touches no file. Captum and matplotlib are optional (extra ``explain``).

References
----------
[1] V. Petsiuk, A. Das, K. Saenko, "RISE: Randomized Input Sampling for
    Explanation of Black-box Models", BMVC 2018.
[2] J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018.
"""

import copy
import math
import textwrap

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.integrated_inputs import integrated_gradients
from imlkd_brain.precision import full_float32

METHODS = (
    "integrated_gradients",
    "gradient",
    "gradient_x_input",
    "grad_cam",
    "occlusion",
    "random",
)
UNITS = ("bins", "frames")
BASELINES = ("zero", "band_mean", "blur")

# Okabe and Ito's palette: distinct under the common colour deficiencies.
OKABE_ITO = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)


# ---------------------------------------------------------------- scores


def enrolment_score(embed, enrolments):
    """The score of a held-out speaker: the cosine against an enrolment.

    Arguments
    ---------
    embed : callable
        ``(N, T, F) -> (N, D)``, the embeddings of features.
    enrolments : torch.Tensor
        Shape (E, D), one enrolment embedding a row. No gradient reaches it.

    Returns
    -------
    score : callable
        ``(N, T, F) -> (N, E)``; the target of an utterance is the row of the
        enrolment that it is tried against.

    Example
    -------
    >>> score = enrolment_score(lambda x: x.mean(1), torch.eye(4)[:2])
    >>> score(torch.ones(3, 5, 4)).shape
    torch.Size([3, 2])
    """
    directions = torch.nn.functional.normalize(enrolments.detach(), dim=-1)

    def score(feats):
        embeddings = torch.nn.functional.normalize(embed(feats), dim=-1)
        return embeddings @ directions.T

    return score


# ------------------------------------------------------------------ maps


def _captum():
    """Import Captum, or say in one sentence how to get it."""
    try:
        import captum.attr
    except ImportError as error:
        raise UserError(
            "the maps `gradient`, `gradient_x_input`, `grad_cam` and "
            "`occlusion` come from Captum, which is not installed: "
            "pip install 'imlkd_brain[explain]', or leave them out of "
            "`methods`."
        ) from error
    return captum.attr


def gradient_map(score, feats, target):
    """Absolute gradient of the score (Captum's ``Saliency``), (B, T, F)."""
    feats = feats.detach().requires_grad_()
    return _captum().Saliency(score).attribute(feats, target=target).detach()


def gradient_x_input_map(score, feats, target):
    """Gradient times input (Captum's ``InputXGradient``), (B, T, F)."""
    feats = feats.detach().requires_grad_()
    attribution = (
        _captum().InputXGradient(score).attribute(feats, target=target)
    )
    return attribution.detach()


def grad_cam_map(score, feats, target, layer, layer_name="layer"):
    """Grad-CAM on a layer (Captum's ``LayerGradCam``), brought to (B, T, F).

    The channels of the layer, each weighted with its mean gradient, are summed
    and interpolated to the frames of the input. A layer of a one-dimensional
    network has no frequency axis left: all bins of a frame get one value.
    Negative values, which speak against the speaker, are kept.

    Arguments
    ---------
    score : callable
        ``(N, T, F) -> (N, C)``.
    feats : torch.Tensor
        Shape (B, T, F).
    target : torch.Tensor
        Shape (B,), the column of each utterance.
    layer : torch.nn.Module
        A layer that ``score`` runs through. Its output is (N, channels, time)
        or (N, channels, height, width), one of the two last being time.
    layer_name : str
        How to call the layer in an error.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F).

    Raises
    ------
    UserError
        If the layer's output has another form.
    """
    shapes = []
    hook = layer.register_forward_hook(
        lambda module, inputs, output: shapes.append(
            tuple(output.shape) if torch.is_tensor(output) else ()
        )
    )
    n_frames, n_bands = feats.shape[1:]
    captum = _captum()
    feats = feats.detach().requires_grad_()
    try:
        attribution = captum.LayerGradCam(score, layer).attribute(
            feats, target=target
        )
    finally:
        hook.remove()
    shape = shapes[0]
    if len(shape) == 4:
        attribution = attribution.detach()
        # A two-dimensional network keeps the input's proportions, one way up
        # or the other.
        upright = abs(math.log(shape[2] * n_bands / (shape[3] * n_frames)))
        lying = abs(math.log(shape[2] * n_frames / (shape[3] * n_bands)))
        if lying < upright:
            attribution = attribution.transpose(2, 3)
        return captum.LayerAttribution.interpolate(
            attribution, (n_frames, n_bands), "bilinear"
        )[:, 0]
    channels_last = len(shape) == 3 and (
        abs(n_frames - shape[1]) < abs(n_frames - shape[2])
    )
    if len(shape) != 3 or shape[2] < 2 or channels_last:
        raise UserError(
            f"layer {layer_name}: Grad-CAM needs an output of shape (batch, "
            f"channels, time), this one's is {shape}; name a convolution "
            "before the pooling, such as `embedding_model.mfa`."
        )
    attribution = captum.LayerAttribution.interpolate(
        attribution.detach(), n_frames, "linear"
    )
    return attribution.transpose(1, 2).expand(-1, -1, n_bands).contiguous()


def occlusion_map(score, feats, target, window, stride, batch_frames=6400):
    """Fall of the score when a window is put to zero (Captum's ``Occlusion``).

    Arguments
    ---------
    score : callable
        ``(N, T, F) -> (N, C)``.
    feats : torch.Tensor
        Shape (B, T, F), mean-normalised, so that zero is the mean spectrum.
    target : torch.Tensor
        Shape (B,), the column of each utterance.
    window, stride : sequence of int
        (frames, mel bands) that a window covers and moves by. Windows that
        overlap are averaged.
    batch_frames : int
        At most this many frames go through the network at once.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F), the fall of the score per window.
    """
    window = tuple(
        min(size, limit)
        for size, limit in zip(window, feats.shape[1:], strict=True)
    )
    stride = tuple(
        min(step, size) for step, size in zip(stride, window, strict=True)
    )
    with torch.no_grad():
        return (
            _captum()
            .Occlusion(score)
            .attribute(
                feats,
                sliding_window_shapes=window,
                strides=stride,
                baselines=0.0,
                target=target,
                perturbations_per_eval=max(
                    1, batch_frames // (feats.shape[0] * feats.shape[1])
                ),
            )
        )


def random_map(feats, generator=None):
    """The control: uniform numbers in the shape of ``feats``, (B, T, F).

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    generator : torch.Generator
        On the CPU, so that a seed gives one map on every device.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F).
    """
    return torch.rand(feats.shape, generator=generator).to(feats)


@full_float32()
def saliency_map(
    method,
    score,
    feats,
    target,
    *,
    model=None,
    options=None,
    batch_frames=6400,
    generator=None,
):
    """One map by name.

    Arguments
    ---------
    method : str
        One of :data:`METHODS`.
    score : callable
        ``(N, T, F) -> (N, C)``, each item alone (no batch statistics).
    feats : torch.Tensor
        Shape (B, T, F), mean-normalised log-mel features.
    target : torch.Tensor
        Shape (B,), the column of each utterance.
    model : torch.nn.Module
        Where ``grad_cam`` looks its layer up.
    options : dict
        What the method takes: ``n_steps``, ``rule`` and ``baseline`` for
        ``integrated_gradients``, ``layer`` (a name) for ``grad_cam``,
        ``window`` and ``stride`` for ``occlusion``.
    batch_frames : int
        At most this many frames go through the network at once.
    generator : torch.Generator
        For ``random``.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F); high is important. ``gradient`` is absolute, the
        others have a sign and a negative bin speaks against the speaker.
    gap : torch.Tensor or None
        For ``integrated_gradients`` the completeness gap, shape (B,): the sum
        of the attribution less what the score differs from the baseline's.

    Raises
    ------
    UserError
        If the method, its layer or one of its options is unknown.

    Example
    -------
    >>> feats = torch.randn(2, 50, 8)
    >>> def score(x):
    ...     return x[:, 10:20].mean((1, 2), keepdim=True)[..., 0]
    >>> target = torch.zeros(2, dtype=torch.long)
    >>> attribution, gap = saliency_map(
    ...     "integrated_gradients",
    ...     score,
    ...     feats,
    ...     target,
    ...     options={"n_steps": 2},
    ... )
    >>> bool(attribution[:, 20:].abs().max() == 0)
    True
    """
    options = dict(options or {})
    batch = max(1, batch_frames // feats.shape[1])
    try:
        if method == "integrated_gradients":
            return integrated_gradients(
                score, feats, target, internal_batch_size=batch, **options
            )
        if method == "gradient":
            return gradient_map(score, feats, target, **options), None
        if method == "gradient_x_input":
            return gradient_x_input_map(score, feats, target, **options), None
        if method == "grad_cam":
            name = options.pop("layer", None)
            layer = find_layer(model, name)
            attribution = grad_cam_map(
                score, feats, target, layer, name, **options
            )
            return attribution, None
        if method == "occlusion":
            attribution = occlusion_map(
                score, feats, target, batch_frames=batch_frames, **options
            )
            return attribution, None
        if method == "random":
            return random_map(feats, generator, **options), None
    except TypeError as error:
        if "argument" not in str(error) or "map()" not in str(error):
            raise
        raise UserError(f"methods: {method}: {error}.") from error
    raise UserError(
        f"methods: `{method}` is none of the maps; known are "
        f"{', '.join(METHODS)}."
    )


def find_layer(model, name):
    """The layer called ``name``, or one sentence with those there are.

    Arguments
    ---------
    model : torch.nn.Module
        The network.
    name : str
        Dotted, as in ``embedding_model.mfa``.

    Returns
    -------
    layer : torch.nn.Module
        The layer.

    Raises
    ------
    UserError
        If the model has no such layer.
    """
    layers = dict(model.named_modules())
    if name in layers and name:
        return layers[name]
    parts = sorted(
        known
        for known, layer in layers.items()
        if known.count(".") in (1, 2)
        and not isinstance(layer, torch.nn.ModuleList)
        and (known.count(".") == 1 or known.rpartition(".")[2].isdigit())
    )
    raise UserError(
        f"methods: grad_cam: the model has no layer `{name}`; try one of "
        f"{', '.join(parts) or 'the names in model.named_modules()'}."
    )


# ------------------------------------------------- deletion and insertion


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
        return _gaussian_blur(feats, blur_sigma)
    raise UserError(f"baselines: `{kind}` is none of {', '.join(BASELINES)}.")


def _gaussian_blur(feats, sigma):
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


# --------------------------------------------- confidence and agreement


def replicated_means(values, speaker, counts):
    """Mean over utterances, once as it is and once per bootstrap replicate.

    Arguments
    ---------
    values : torch.Tensor
        Shape (N, ...), one row an utterance.
    speaker : torch.Tensor
        Shape (N,), the index of its speaker.
    counts : torch.Tensor
        Shape (R, S), from
        :func:`imlkd_brain.metrics.bootstrap_counts`.

    Returns
    -------
    mean : torch.Tensor
        Shape (...), float64.
    replicates : torch.Tensor
        Shape (R, ...), float64; NaN where no utterance was drawn.
    """
    values = values.double()
    weights = counts.to(values.device)[:, speaker]
    rows = values.flatten(1) if values.dim() > 1 else values[:, None]
    sums = weights @ rows / weights.sum(1, keepdim=True)
    return values.mean(0), sums.view(len(counts), *values.shape[1:])


def weighted_eer(scores, labels, weights):
    """EER of one list of trials under many weightings of the trials.

    The threshold is the score at which the weighted shares of false
    acceptances and false rejections are nearest, and the EER is their mean
    there. One sort serves all weightings.

    Arguments
    ---------
    scores : torch.Tensor
        Shape (K,), one per trial.
    labels : torch.Tensor
        Shape (K,), True for a target trial.
    weights : torch.Tensor
        Shape (R, K), how often each trial counts in each weighting. Whole
        numbers are counted exactly up to 2**24 in float32.

    Returns
    -------
    eer : torch.Tensor
        Shape (R,), in [0, 1]; NaN where no target or no nontarget is left.

    Example
    -------
    >>> scores = torch.tensor([0.9, 0.4, 0.6, 0.1])
    >>> labels = torch.tensor([True, True, False, False])
    >>> weighted_eer(scores, labels, torch.ones(1, 4))
    tensor([0.5000], dtype=torch.float64)
    """
    order = scores.argsort(descending=True)
    sorted_scores = scores[order]
    # index_select: several times as fast as indexing a second axis.
    weights = weights.index_select(1, order)
    if not weights.is_floating_point():
        weights = weights.double()
    is_target = labels[order].to(weights.dtype)
    # A threshold cannot part equal scores: only the last of a run counts.
    last = torch.ones_like(sorted_scores, dtype=torch.bool)
    last[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    last = last.nonzero()[:, 0]
    hits, false_alarms = (
        (weights * kind).cumsum(1).index_select(1, last)
        for kind in (is_target, 1 - is_target)
    )
    n_targets, n_nontargets = hits[:, -1:], false_alarms[:, -1:]
    # Misses fall and false alarms rise with every trial accepted: the nearest
    # point is where they cross or the one before it; -1 is to accept none.
    crossed = (hits / n_targets + false_alarms / n_nontargets < 1).sum(1) - 1
    rates = []
    for step in (crossed, crossed + 1):
        step = step.clamp(max=hits.shape[1] - 1)[:, None]
        index = step.clamp(min=0)
        hit, false_alarm = (
            torch.where(step < 0, 0.0, counts.gather(1, index).double())
            / counts[:, -1:].double()
            for counts in (hits, false_alarms)
        )
        rates.append(torch.cat((1 - hit, false_alarm), 1))
    before, after = rates
    nearer = (before[:, 0] - before[:, 1]).abs() <= (
        after[:, 0] - after[:, 1]
    ).abs()
    return torch.where(nearer, before.mean(1), after.mean(1))


def interval(replicates, confidence=0.95):
    """Percentile interval of bootstrap replicates.

    Arguments
    ---------
    replicates : torch.Tensor
        Shape (R, ...).
    confidence : float
        Share of the replicates inside.

    Returns
    -------
    low, high : torch.Tensor
        Shape (...).
    """
    tail = (1 - confidence) / 2
    low, high = torch.nanquantile(
        replicates,
        torch.tensor([tail, 1 - tail], dtype=replicates.dtype),
        dim=0,
    )
    return low, high


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


# ----------------------------------------------------------------- sanity


def shuffle_parameters(module, generator=None):
    """Permute the entries of each parameter of ``module`` in place.

    Their distribution, and so the scale of the activations, stays; what they
    learnt goes.

    Arguments
    ---------
    module : torch.nn.Module
        Any module.
    generator : torch.Generator
        On the CPU.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            shuffle = torch.randperm(parameter.numel(), generator=generator)
            flat = parameter.flatten()[shuffle.to(parameter.device)]
            parameter.copy_(flat.view_as(parameter))


def parameter_cascade(network, generator=None):
    """Copies of a network, shuffled deeper and deeper from the output down.

    Arguments
    ---------
    network : torch.nn.Module
        The embedding network. Its direct children, and the items of its
        lists, are the steps, in the order they were registered.
    generator : torch.Generator
        On the CPU.

    Yields
    ------
    name : str
        The child that is shuffled now, besides those before.
    network : torch.nn.Module
        The copy, in which this is so. The last one is shuffled whole.
    """
    network = copy.deepcopy(network)
    children = []
    for name, child in network.named_children():
        if isinstance(child, torch.nn.ModuleList | torch.nn.Sequential):
            children += [(f"{name}.{i}", item) for i, item in enumerate(child)]
        else:
            children.append((name, child))
    for name, child in reversed(children):
        if any(True for _ in child.parameters()):
            shuffle_parameters(child, generator)
            yield name, network


# ------------------------------------------------------------------ plots


def _figure(width, height):
    """An empty matplotlib figure in inches, or how to get matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "the figures need matplotlib, which is not installed: pip install "
            "'imlkd_brain[explain]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path, formats=("png", "pdf"), dpi=200):
    """Write a figure in each format, whole or not at all.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        As the ``plot_`` functions return it.
    path : pathlib.Path
        Without a suffix.
    formats : sequence of str
        File name suffixes.
    dpi : int
        Resolution of the raster formats.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The layout is the same for every format: found once.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for suffix in formats:
        unfinished = path.with_name(f".{path.name}.{suffix}")
        figure.savefig(unfinished, format=suffix, dpi=dpi)
        unfinished.replace(path.with_name(f"{path.name}.{suffix}"))


def plot_maps(columns, band_hz, title, smoothing=1.5):
    """One utterance: log-mel, the map of each model over it, time profiles.

    Arguments
    ---------
    columns : list of dict
        One per duration, with ``label``; ``start`` and ``stop`` in seconds of
        the utterance; ``log_mel`` (T, F); ``maps``, a dict from the name of a
        model (or of a method) to its map (T, F).
    band_hz : sequence of float
        Centre frequency of each of the F mel bands in Hz.
    title : str
        Above the figure.
    smoothing : float
        Standard deviation, in bins, of the smoothing of the maps in the
        picture; nothing but the picture is smoothed.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row for the log-mel, one for each map, one for the time profiles; a
        column for each duration, as wide as it is long. The colour is
        ``abs(a)`` over its mean in the utterance, on one scale for the whole
        figure; where it is low, the log-mel shows through.
    """
    names = list(columns[0]["maps"])
    weights = [
        {
            name: _map_weights(attribution, smoothing)
            for name, attribution in column["maps"].items()
        }
        for column in columns
    ]
    every = torch.cat([w.flatten() for c in weights for w in c.values()])
    # The 99th percentile: a few bins would else leave the rest in the dark.
    limit = float(every.kthvalue(max(1, int(0.99 * len(every)))).values)
    durations = [column["stop"] - column["start"] for column in columns]
    figure = _figure(7.2, 1.05 * (len(names) + 2) + 0.6)
    axes = figure.subplots(
        len(names) + 2,
        len(columns),
        squeeze=False,
        sharex="col",
        sharey="row",
        gridspec_kw={"width_ratios": durations},
    )
    loudness = torch.cat([c["log_mel"].flatten() for c in columns])
    low, high = (
        float(loudness.kthvalue(max(1, int(q * len(loudness)))).values)
        for q in (0.02, 0.995)
    )
    heat = _see_through("viridis")
    for j, column in enumerate(columns):
        n_frames, n_bands = column["log_mel"].shape
        extent = (column["start"], column["stop"], -0.5, n_bands - 0.5)
        common = {"origin": "lower", "aspect": "auto", "extent": extent}
        grey = {"cmap": "gray_r", "vmin": low, **common}
        axes[0, j].imshow(column["log_mel"].T, vmax=high, **grey)
        axes[0, j].set_title(column["label"], fontsize=9)
        seconds = column["start"] + (
            column["stop"] - column["start"]
        ) / n_frames * (torch.arange(n_frames) + 0.5)
        for i, name in enumerate(names, start=1):
            # Pale, so that the colours are not mixed up with the loudness.
            pale = low + 2.5 * (high - low)
            axes[i, j].imshow(column["log_mel"].T, vmax=pale, **grey)
            picture = axes[i, j].imshow(
                weights[j][name].T, cmap=heat, vmin=0, vmax=limit, **common
            )
            profile = time_profile(column["maps"][name])
            axes[-1, j].plot(
                seconds,
                _smooth_line(profile, 3.0),
                color=OKABE_ITO[(i - 1) % len(OKABE_ITO)],
                linestyle=("-", "--", "-.", ":")[(i - 1) % 4],
                linewidth=1.1,
                label=name,
            )
        axes[-1, j].set_xlim(column["start"], column["stop"])
        axes[-1, j].set_ylim(bottom=0)
        axes[-1, j].set_xlabel("time (s)", fontsize=8)
        axes[-1, j].grid(alpha=0.3)
    for i, name in enumerate(["log-mel", *names]):
        axes[i, 0].set_ylabel(
            textwrap.fill(name, 11) + "\n(Hz)",
            fontsize=8 if len(name) < 12 else 6.5,
        )
        for axis in axes[i]:
            axis.tick_params(labelsize=7)
            _hertz_ticks(axis, band_hz)
    axes[-1, 0].set_ylabel("time\nprofile", fontsize=8)
    for axis in axes[-1]:
        axis.tick_params(labelsize=7)
    bar = figure.colorbar(
        picture, ax=axes[1:-1, :], pad=0.01, aspect=30, extend="max"
    )
    bar.ax.tick_params(labelsize=7)
    bar.set_label("|attribution| / its mean", fontsize=8)
    figure.legend(
        *axes[-1, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(names), 6),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def _see_through(name):
    """A colour map that is clear at its low end, also in its colour bar."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps[name](torch.linspace(0, 1, 256).numpy())
    colours[:, 3] = torch.linspace(0, 2, 256).clamp(max=0.95).numpy()
    return ListedColormap(colours)


def _map_weights(attribution, smoothing):
    """Smoothed ``abs(a)`` over its mean, shape (T, F), for a picture."""
    weight = attribution.abs()[None].float()
    if smoothing > 0:
        weight = _gaussian_blur(weight, smoothing)
    return weight[0] / weight.mean().clamp(min=1e-30)


def _smooth_line(values, sigma):
    """Smooth a line (T,) for a picture."""
    return _gaussian_blur(values[None, :, None].float(), sigma)[0, :, 0]


def _hertz_ticks(axis, band_hz):
    """Label the bands nearest to a few round frequencies."""
    bands = torch.as_tensor(band_hz, dtype=torch.float)
    marks = [250, 1000, 2000, 4000]
    marks = [hz for hz in marks if bands[0] <= hz <= bands[-1]]
    nearest = [int((bands - hz).abs().argmin()) for hz in marks]
    axis.set_yticks(nearest, [f"{hz:g}" for hz in marks])


def plot_curves(panels, title):
    """Deletion and insertion of every method, the random control included.

    Arguments
    ---------
    panels : dict
        From direction (``deletion``, ``insertion``) to a dict from metric to
        a dict from method to ``(levels, mean, low, high)``, each of shape
        (L,).
    title : str
        Above the figure.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A row per direction, a column per metric; shaded is the confidence
        interval of the first method and of ``random``.
    """
    directions = list(panels)
    metrics = list(panels[directions[0]])
    figure = _figure(7.2, 1.6 * len(directions) + 0.7)
    axes = figure.subplots(
        len(directions), len(metrics), squeeze=False, sharex=True, sharey="col"
    )
    words = {
        "posterior": "posterior",
        "top1": "top-1 share",
        "top5": "top-5 share",
        "score": "(1 + score) / 2",
        "eer": "EER (%)",
    }
    for i, direction in enumerate(directions):
        share = "gone" if direction == "deletion" else "there"
        for j, metric in enumerate(metrics):
            axis = axes[i, j]
            scale = 100.0 if metric == "eer" else 1.0
            methods = panels[direction][metric]
            for k, (method, curve) in enumerate(methods.items()):
                levels, mean, low, high = curve
                random = method == "random"
                color = "black" if random else OKABE_ITO[k % 6]
                axis.plot(
                    100 * levels,
                    scale * mean,
                    color=color,
                    linestyle=":" if random else ("-", "--", "-.")[k % 3],
                    linewidth=1.2,
                    label=method.replace("_", " "),
                )
                if random or k == 0:
                    axis.fill_between(
                        100 * levels,
                        scale * low,
                        scale * high,
                        color=color,
                        alpha=0.15,
                        linewidth=0,
                    )
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=6.5)
            if metric in ("posterior", "top1", "top5"):
                axis.set_ylim(-0.02, 1.02)
            if i == 0:
                axis.set_title(words.get(metric, metric), fontsize=8)
            axis.set_xlabel(f"% {share}", fontsize=7)
        axes[i, 0].set_ylabel(direction, fontsize=9)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=7.5,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure


def plot_intervals(panels, x_labels, title, chance=None):
    """Means with their confidence intervals, series side by side.

    Arguments
    ---------
    panels : dict
        From the name of a quantity to a dict from the name of a series to
        ``(mean, low, high)``, each of shape (len(x_labels),).
    x_labels : list of str
        What the places on the horizontal axis are.
    title : str
        Above the figure.
    chance : dict
        From the name of a quantity to the value that unrelated maps have,
        drawn as a grey line.

    Returns
    -------
    figure : matplotlib.figure.Figure
        A panel per quantity.
    """
    figure = _figure(7.2, 2.9)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    places = torch.arange(len(x_labels), dtype=torch.float)
    for axis, (quantity, series) in zip(axes, panels.items(), strict=True):
        if chance and quantity in chance:
            axis.axhline(chance[quantity], color="grey", linewidth=0.8)
        for k, (name, (mean, low, high)) in enumerate(series.items()):
            shift = 0.6 * ((k + 0.5) / len(series) - 0.5)
            mean, low, high = (torch.as_tensor(v) for v in (mean, low, high))
            axis.errorbar(
                places + shift,
                mean,
                yerr=torch.stack((mean - low, high - mean)).clamp(min=0),
                color=OKABE_ITO[k % len(OKABE_ITO)],
                marker="osD^vPX"[k % 7],
                markersize=3.5,
                linewidth=0,
                elinewidth=1.0,
                label=name.replace("_", " "),
            )
        axis.set_xticks(places, x_labels, fontsize=7)
        if max(map(len, x_labels)) > 6:
            axis.tick_params(axis="x", rotation=60)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_title(quantity, fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=9)
    return figure
