"""Saliency maps: how much each time-frequency bin matters to a score.

:data:`METHODS` is the table of the methods. To add one, write a function
``(batch, **options) -> attribution, gap``, add its row, and name it with its
options under ``methods`` in the YAML.

Captum is optional (extra ``explain``).

Authors: IML-KD contributors
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.errors import UserError
from imlkd_brain.precision import full_float32


@dataclass
class Batch:
    """Utterances of one length, and the score that their maps explain.

    Attributes
    ----------
    score : callable
        ``(N, T, F) -> (N, C)``. It treats its rows independently (no batch
        statistics).
    feats : torch.Tensor
        Shape (B, T, F), mean-normalised log-mel features.
    target : torch.Tensor
        Shape (B,), int64: the column of the score that is explained.
    model : torch.nn.Module
        The network that the score runs through. ``grad_cam`` finds its layer
        in it.
    batch_frames : int
        At most this many frames go through the network at once.
    generator : torch.Generator
        On the CPU, for ``random``.
    """

    score: Callable
    feats: torch.Tensor
    target: torch.Tensor
    model: torch.nn.Module = None
    batch_frames: int = 6400
    generator: torch.Generator = None


@full_float32()
def saliency_map(method, batch, options=None):
    """Compute the maps of a batch by the name of the method.

    Arguments
    ---------
    method : str
        A key of :data:`METHODS`.
    batch : Batch
        The utterances and their score.
    options : dict
        Arguments of the method's function, as in the YAML.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F); a high value is important. ``gradient`` is absolute.
        The other methods have a sign: a negative bin speaks against the
        speaker.
    gap : torch.Tensor or None
        For ``integrated_gradients`` the completeness gap, shape (B,): the sum
        of the attribution minus the difference between the score of the
        utterance and the score of the baseline.

    Raises
    ------
    UserError
        If the method, its layer or one of its options is unknown.

    Example
    -------
    >>> def score(x):
    ...     return x[:, 10:20].mean((1, 2), keepdim=True)[..., 0]
    >>> target = torch.zeros(2, dtype=torch.long)
    >>> batch = Batch(score, torch.randn(2, 50, 8), target)
    >>> attribution, gap = saliency_map(
    ...     "integrated_gradients", batch, {"n_steps": 2}
    ... )
    >>> bool(attribution[:, 20:].abs().max() == 0)
    True
    """
    check_options(method, options)
    return METHODS[method](batch, **(options or {}))


def check_methods(methods, models):
    """Refuse methods, options and layers that are unknown.

    Arguments
    ---------
    methods : dict of str to dict
        The options of each method.
    models : iterable of torch.nn.Module
        The models whose maps the methods will make.

    Raises
    ------
    UserError
        For the first mistake.
    """
    if not methods:
        raise UserError(f"methods: give at least one of {', '.join(METHODS)}.")
    for method, options in methods.items():
        check_options(method, options)
        if "layer" in inspect.signature(METHODS[method]).parameters:
            for model in models:
                find_layer(model, (options or {}).get("layer"), method)


def check_options(method, options=None):
    """Refuse an unknown method and options that it does not take.

    Example
    -------
    >>> check_options("gradient")
    """
    if method not in METHODS:
        raise UserError(
            f"methods: `{method}` is none of the maps; known are "
            f"{', '.join(METHODS)}."
        )
    try:
        inspect.signature(METHODS[method]).bind(None, **(options or {}))
    except TypeError as error:
        raise UserError(
            f"methods: {method}: {error}; correct its options."
        ) from error


def find_layer(model, name, method="grad_cam"):
    """Find a layer of a model by its name.

    Arguments
    ---------
    model : torch.nn.Module
        The network.
    name : str
        Dotted, as in ``embedding_model.mfa``.
    method : str
        The method that needs the layer, for the message.

    Returns
    -------
    layer : torch.nn.Module
        The layer.

    Raises
    ------
    UserError
        If the model has no such layer. It lists layers that the model has.
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
        f"methods: {method}: the model has no layer `{name}`; try one of "
        f"{', '.join(parts) or 'the names in model.named_modules()'}."
    )


def _captum():
    """Import Captum, or say in one sentence how to get it."""
    try:
        import captum.attr
    except ImportError as error:
        raise UserError(
            "the maps `gradient`, `gradient_x_input`, `grad_cam` and "
            "`occlusion` come from Captum, which is not installed; run `pip "
            "install 'captum>=0.7'`, or leave them out of `methods`."
        ) from error
    return captum.attr


def integrated_gradients_map(batch, n_steps=1, rule="midpoint", baseline=None):
    """Integrated Gradients of the recipe.

    Arguments
    ---------
    batch : Batch
        The utterances and their score.
    n_steps, rule, baseline
        As :func:`imlkd_brain.distillation.attribution.integrated_gradients`
        takes them.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F).
    gap : torch.Tensor
        Shape (B,), the completeness gap.
    """
    return integrated_gradients(
        batch.score,
        batch.feats,
        batch.target,
        n_steps=n_steps,
        rule=rule,
        baseline=baseline,
        internal_batch_size=max(1, batch.batch_frames // batch.feats.shape[1]),
    )


def gradient_map(batch):
    """Absolute gradient of the score (Captum's ``Saliency``)."""
    feats = batch.feats.detach().requires_grad_()
    saliency = _captum().Saliency(batch.score)
    return saliency.attribute(feats, target=batch.target).detach(), None


def gradient_x_input_map(batch):
    """Gradient times input (Captum's ``InputXGradient``)."""
    feats = batch.feats.detach().requires_grad_()
    product = _captum().InputXGradient(batch.score)
    return product.attribute(feats, target=batch.target).detach(), None


def grad_cam_map(batch, layer=None):
    """Grad-CAM of a layer (Captum's ``LayerGradCam``), brought to (B, T, F).

    The channels of the layer are weighted with their mean gradients, summed,
    and interpolated to the frames of the input. A layer of a one-dimensional
    network has no frequency axis, so all bins of a frame have the same value.
    Negative values stay: they speak against the speaker.

    Arguments
    ---------
    batch : Batch
        The utterances, their score and its model.
    layer : str
        Name of a layer that the score runs through, as in
        ``embedding_model.mfa``. Its output is (N, channels, time) or (N,
        channels, height, width), where the height or the width is the time.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F).
    gap : None

    Raises
    ------
    UserError
        If there is no such layer, or its output has another shape.
    """
    module = find_layer(batch.model, layer)
    n_frames, n_bands = batch.feats.shape[1:]
    captum = _captum()
    feats = batch.feats.detach().requires_grad_()
    shapes = []
    hook = module.register_forward_hook(
        lambda module, inputs, output: shapes.append(
            tuple(output.shape) if torch.is_tensor(output) else ()
        )
    )
    try:
        attribution = captum.LayerGradCam(batch.score, module).attribute(
            feats, target=batch.target
        )
    finally:
        hook.remove()
    shape = shapes[0]
    if len(shape) == 4:
        attribution = attribution.detach()
        # A two-dimensional network keeps the proportions of the input; time
        # may be its height or its width.
        upright = abs(math.log(shape[2] * n_bands / (shape[3] * n_frames)))
        lying = abs(math.log(shape[2] * n_frames / (shape[3] * n_bands)))
        if lying < upright:
            attribution = attribution.transpose(2, 3)
        image = captum.LayerAttribution.interpolate(
            attribution, (n_frames, n_bands), "bilinear"
        )
        return image[:, 0], None
    channels_last = len(shape) == 3 and (
        abs(n_frames - shape[1]) < abs(n_frames - shape[2])
    )
    if len(shape) != 3 or shape[2] < 2 or channels_last:
        raise UserError(
            f"layer {layer}: Grad-CAM needs an output of shape (batch, "
            f"channels, time), this one's is {shape}; name a convolution "
            "before the pooling, such as `embedding_model.mfa`."
        )
    attribution = captum.LayerAttribution.interpolate(
        attribution.detach(), n_frames, "linear"
    )
    image = attribution.transpose(1, 2).expand(-1, -1, n_bands)
    return image.contiguous(), None


def occlusion_map(batch, window, stride):
    """Drop of the score when a window is set to zero (Captum's ``Occlusion``).

    Zero is the mean spectrum of mean-normalised features.

    Arguments
    ---------
    batch : Batch
        The utterances and their score.
    window, stride : sequence of int
        The size and the step of the window: (frames, mel bands). Windows that
        overlap are averaged.

    Returns
    -------
    attribution : torch.Tensor
        Shape (B, T, F), the drop of the score.
    gap : None

    Raises
    ------
    UserError
        If the window or the stride is not two whole numbers above 0.
    """
    for key, pair in (("window", window), ("stride", stride)):
        whole = isinstance(pair, list | tuple) and len(pair) == 2
        if not whole or not all(isinstance(n, int) and n > 0 for n in pair):
            raise UserError(
                f"methods: occlusion: {key} is {pair!r}; give two whole "
                "numbers above 0, frames and mel bands, as in [20, 16]."
            )
    sizes = batch.feats.shape[1:]
    window = tuple(map(min, window, sizes))
    stride = tuple(map(min, stride, window))
    n_frames = batch.feats.shape[0] * batch.feats.shape[1]
    with torch.no_grad():
        attribution = (
            _captum()
            .Occlusion(batch.score)
            .attribute(
                batch.feats,
                sliding_window_shapes=window,
                strides=stride,
                baselines=0.0,
                target=batch.target,
                perturbations_per_eval=max(1, batch.batch_frames // n_frames),
            )
        )
    return attribution, None


def random_map(batch):
    """The control: uniform random numbers, drawn on the CPU.

    A seed gives the same map on every device.
    """
    values = torch.rand(batch.feats.shape, generator=batch.generator)
    return values.to(batch.feats), None


METHODS = {
    "integrated_gradients": integrated_gradients_map,
    "gradient": gradient_map,
    "gradient_x_input": gradient_x_input_map,
    "grad_cam": grad_cam_map,
    "occlusion": occlusion_map,
    "random": random_map,
}
