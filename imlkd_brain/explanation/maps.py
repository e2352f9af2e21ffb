"""Saliency maps: how much each time-frequency bin matters to a score.

The score is any callable ``(N, T, F) -> (N, C)`` with a column ``target`` of
shape ``(N,)``: the true speaker's cosine for a training speaker (a model's
classifier), the cosine against an enrolment embedding for a held-out one
(:func:`enrolment_score`).

Captum is optional (extra ``explain``).

Authors: IML-KD contributors
"""

import math

import torch

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.errors import UserError
from imlkd_brain.precision import full_float32

METHODS = (
    "integrated_gradients",
    "gradient",
    "gradient_x_input",
    "grad_cam",
    "occlusion",
    "random",
)


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
