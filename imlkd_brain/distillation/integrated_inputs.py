"""Integrated inputs ``I(x)``: a random segment, weighted by its attribution.

:class:`IntegratedInputs` is what the YAML builds: it draws the segments, asks
:mod:`imlkd_brain.distillation.attribution` for the teacher's attribution and
shapes the features with it. Features are (batch, time, mel).

References
----------
Yang, Wei, Lu, Lu and Li, "Integrated Multi-Level Knowledge Distillation for
Enhanced Speaker Verification", arXiv 2409.09389 (2024).

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.distillation.attribution import (
    COSINE_SCALE,
    RULES,
    TARGETS,
    attribution_target,
    check_choice,
    expand_baseline,
    float32_or_better,
    integrated_gradients,
    random_like,
)
from imlkd_brain.distillation.segments import (
    DURATIONS,
    Segment,
    draw_duration,
    random_segments,
)
from imlkd_brain.errors import UserError
from imlkd_brain.schema import choice, list_of, number, whole
from imlkd_brain.values import check_given

MODES = (
    "gate",
    "time_gate",
    "reversed_gate",
    "overlay",
    "attribution",
    "mask",
    "time_mask",
    "identity",
)
# Those that have one weight for all bins of a frame
OF_FRAMES = ("time_gate", "reversed_gate", "time_mask")
BASELINES = ("zero", "noise")

# A map whose standard deviation is below this share of its peak is constant
# up to float32 rounding; dividing by that deviation would only amplify noise.
_CONSTANT = 1e-6

# Keys of the YAML that IntegratedInputs is given.
OPTIONS = {
    "mode": choice("How the map of attributions shapes a segment.", MODES),
    "rule": choice("Where Integrated Gradients takes its gradients.", RULES),
    "n_steps": whole(
        "Gradients of the teacher in each map of attributions.",
        low=1,
        high=10_000,
    ),
    "attribution_target": choice("What the teacher's map explains.", TARGETS),
    "attribution_baseline": list_of(
        number("Of one mel band.", low=-1e6, high=1e6),
        "The input without speech that attributions start from.",
        words=BASELINES,
    ),
    "durations": DURATIONS,
    "segment_share": number(
        "Share of a batch's chunks that segments are cut from: at least two, "
        "others in each batch. What is learnt on whole chunks is of all.",
        above=0,
        high=1,
    ),
    "gate": number(
        "How much the map weighs the input: 0 leaves it as it is, 1 weighs it "
        "by the map alone.",
        low=0,
        high=1,
    ),
    "max_weight": number(
        "Upper limit of a gate's weight, in means of the utterance.",
        low=1,
        high=1e6,
    ),
    "keep": number(
        "Share of bins or frames that a mask keeps.", above=0, high=1
    ),
    "internal_batch_size": whole(
        "Most rows in one pass of the teacher for attributions.",
        low=1,
        high=10**9,
        null="all at once",
    ),
    "scale": number(
        "Scale of the AAM-softmax, which turns cosines into logits.",
        above=0,
        high=1e6,
    ),
    "frame_rate": number("Frames of a second.", above=0, high=1e6),
}


def integrated_inputs(
    feats,
    attribution,
    mode="time_gate",
    *,
    baseline=None,
    gate=1.0,
    max_weight=3.0,
    keep=0.5,
):
    """The integrated input ``I(x)``, given the map ``a = IG(x)``.

    The paper leaves ``I`` open. With ``w = min(abs(a) / mean(abs(a)),
    max_weight)``, all statistics per utterance:

    =================  ==================================================
    ``gate``           ``x * (1 - g + g * w)``
    ``time_gate``      the same, ``abs(a)`` first summed over frequency
    ``reversed_gate``  the same, the weights of the frames in reverse order
    ``overlay``        ``(x + a * std(x) / std(a)) / 2``
    ``attribution``    ``a * std(x) / std(a)``
    ``mask``           ``x`` in the top ``keep`` of bins by ``abs(a)``, the
                       baseline elsewhere
    ``time_mask``      the same for whole frames
    ``identity``       ``x``
    =================  ==================================================

    ``reversed_gate`` is a control: its weights are as uneven and as smooth as
    those of ``time_gate``, but belong to other frames.

    A map that is zero everywhere prefers no bin: ``w`` is then one, and a mask
    keeps everything, as it keeps all bins tied with the last one kept. A
    constant map has nothing to scale: its part in ``overlay`` and
    ``attribution`` is zero.

    Arguments
    ---------
    feats : torch.Tensor
        Shape (B, T, F).
    attribution : torch.Tensor or None
        Shape (B, T, F); ``identity`` does not read it.
    mode : str
        A row of the table.
    baseline : torch.Tensor, optional
        Fill of the masks, broadcastable to (B, T, F); zeros without it.
    gate : float
        ``g`` in [0, 1]: 0 leaves ``x`` as it is.
    max_weight : float
        Upper limit of ``w``, in multiples of the utterance's mean.
    keep : float
        Share of bins or frames that a mask keeps, in (0, 1]; at least one.

    Returns
    -------
    torch.Tensor
        Shape (B, T, F), detached, float32 or better.

    Raises
    ------
    UserError
        For an unknown mode or a parameter out of range.

    Example
    -------
    >>> feats = torch.tensor([[[1.0], [2.0]]])
    >>> attribution = torch.tensor([[[0.0], [5.0]]])
    >>> integrated_inputs(feats, attribution, "time_gate").flatten()
    tensor([0., 4.])
    """
    check_choice("mode", mode, MODES)
    check_given(OPTIONS, gate=gate, max_weight=max_weight, keep=keep)
    feats = float32_or_better(feats.detach())
    if mode == "identity":
        return feats
    attribution = attribution.detach().to(feats.dtype)
    if mode in ("overlay", "attribution"):
        scaled = _scaled_to(attribution, feats)
        return scaled if mode == "attribution" else (feats + scaled) / 2
    saliency = _saliency(attribution, mode in OF_FRAMES)
    if mode.endswith("gate"):
        return gated(mode, feats, _weights(saliency, max_weight), gate)
    ranked = saliency.flatten(1)
    kept = max(1, round(keep * ranked.shape[1]))
    last_kept = ranked.topk(kept).values[:, -1, None, None]
    return torch.where(
        saliency >= last_kept, feats, expand_baseline(baseline, feats)
    )


def gated(mode, feats, weights, gate):
    """``x * (1 - g + g * w)``, with weights that broadcast to (B, T, F)."""
    if mode == "reversed_gate":
        weights = weights.flip(1)
    return feats * (1 - gate + gate * weights)


class IntegratedInputs:
    """Every choice about ``I(x_d)`` in one object that the YAML builds.

    Arguments
    ---------
    mode : str
        See :func:`integrated_inputs`.
    rule : str
        See :func:`integrated_gradients`.
    n_steps : int
        Nodes of the rule.
    target : str
        See :func:`attribution_target`.
    baseline : str or list of float or torch.Tensor
        ``zero``; ``noise``, Gaussian with the utterance's own deviation in
        each band, drawn anew at each call; or a mean spectrum of F numbers.
    durations : list of float
        Seconds; one is drawn for each batch.
    gate : float
        ``g`` of the gates, in [0, 1].
    max_weight : float
        Upper limit of the gates' weight, at least 1.
    keep : float
        Share the masks keep, in (0, 1].
    internal_batch_size : int or None
        Most rows in one forward pass of the teacher.
    frame_rate : float
        Frames per second.
    scale : float
        Scale of the cosines inside the posterior of ``log_posterior``.
    share : float
        Of a batch's chunks that the training step cuts segments from, in
        (0, 1].

    Raises
    ------
    UserError
        For any option out of range, in one sentence that names it.

    Example
    -------
    >>> integrated = IntegratedInputs(
    ...     mode="time_gate", rule="midpoint", n_steps=1, target="true_class",
    ...     baseline="zero", durations=[1.0], gate=1.0, max_weight=3.0,
    ...     keep=0.5, internal_batch_size=None,
    ... )
    >>> segments = integrated.segments(torch.rand(2, 300, 80)).features
    >>> segments.shape
    torch.Size([2, 100, 80])
    >>> logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8000, 5))
    >>> inputs, gap = integrated(logits, segments, torch.tensor([0, 4]))
    >>> inputs.shape, gap.shape
    (torch.Size([2, 100, 80]), torch.Size([2]))
    """

    def __init__(
        self,
        mode,
        rule,
        n_steps,
        target,
        baseline,
        durations,
        gate,
        max_weight,
        keep,
        internal_batch_size,
        frame_rate=100,
        scale=COSINE_SCALE,
        share=1.0,
    ):
        check_choice("mode", mode, MODES)
        check_choice("rule", rule, RULES)
        check_choice("attribution_target", target, TARGETS)
        check_given(
            OPTIONS,
            n_steps=n_steps,
            internal_batch_size=internal_batch_size,
            durations=durations,
            gate=gate,
            max_weight=max_weight,
            keep=keep,
            frame_rate=frame_rate,
            scale=scale,
            segment_share=share,
        )
        if isinstance(baseline, str):
            check_choice("attribution_baseline", baseline, BASELINES)
        else:
            baseline = _as_spectrum(baseline)
        self.mode = mode
        self.rule = rule
        self.n_steps = n_steps
        self.target = target
        self.baseline = baseline
        self.durations = list(durations)
        self.gate = gate
        self.max_weight = max_weight
        self.keep = keep
        self.internal_batch_size = internal_batch_size
        self.frame_rate = frame_rate
        self.scale = scale
        self.share = share

    def segments(self, feats, generator=None, duration_generator=None):
        """Draw a duration for the batch and crop each utterance to it.

        Arguments
        ---------
        feats : torch.Tensor
            Shape (B, T, F).
        generator : torch.Generator, optional
            Source of the duration and of the starts.
        duration_generator : torch.Generator, optional
            Source of the duration, where it is another: processes that train
            together have one duration and starts of their own.

        Returns
        -------
        Segment
            ``x_d``, of min(d * frame_rate, T) frames.
        """
        if duration_generator is None:
            duration_generator = generator
        duration = draw_duration(self.durations, duration_generator)
        n_frames = max(1, round(duration * self.frame_rate))
        features, start = random_segments(feats, n_frames, generator)
        return Segment(features, duration, start)

    def gated(self, feats, weights):
        """``I(x_d)`` of segments (B, T, F), by weights (B, T) of their frames.

        The mode is one that weighs frames, and the weights are those that
        :meth:`time_weights` returns.
        """
        return gated(self.mode, feats.float(), weights.unsqueeze(2), self.gate)

    def __call__(self, logits, feats, target, generator=None, with_gap=True):
        """Integrated inputs of a batch.

        Arguments
        ---------
        logits : callable
            The teacher's cosines, from (N, T, F) to (N, C).
        feats : torch.Tensor
            Segments, shape (B, T, F).
        target : torch.Tensor
            True classes in the teacher's columns, shape (B,), int64.
        generator : torch.Generator, optional
            Source of random nodes and of the noise baseline.
        with_gap : bool
            Whether to compute the completeness gap too.

        Returns
        -------
        inputs : torch.Tensor
            ``I(x_d)``, shape (B, T, F), detached.
        gap : torch.Tensor or None
            Shape (B,); None if not ``with_gap`` or where nothing is
            attributed (``identity``).
        """
        if self.mode == "identity":
            return integrated_inputs(feats, None, "identity"), None
        inputs, _, gap = self.weighed(
            logits, feats, target, generator, with_gap
        )
        return inputs, gap

    def weighed(self, logits, feats, target, generator=None, with_gap=True):
        """Integrated inputs, and the time weights of the same attribution.

        Arguments are those of a call.

        Returns
        -------
        inputs : torch.Tensor
            As a call returns them.
        weights : torch.Tensor
            As :meth:`time_weights` returns them, whatever the mode is.
        gap : torch.Tensor or None
            Of the attribution, shape (B,); None if not ``with_gap``.
        """
        baseline = self._baseline(feats, generator)
        attribution, gap = self._attribute(
            logits, feats, target, baseline, generator, with_gap
        )
        inputs = integrated_inputs(
            feats,
            attribution,
            self.mode,
            baseline=baseline,
            gate=self.gate,
            max_weight=self.max_weight,
            keep=self.keep,
        )
        return inputs, self._time_weights(attribution), gap

    def time_weights(
        self, logits, feats, target, generator=None, with_gap=True
    ):
        """The weights ``w`` that ``time_gate`` gives to the frames.

        Arguments are those of a call.

        Returns
        -------
        weights : torch.Tensor
            Shape (B, T), detached.
        gap : torch.Tensor or None
            As a call returns it.
        """
        attribution, gap = self._attribute(
            logits,
            feats,
            target,
            self._baseline(feats, generator),
            generator,
            with_gap,
        )
        return self._time_weights(attribution), gap

    def _time_weights(self, attribution):
        """``w`` of whole frames (B, T), by an attribution (B, T, F)."""
        saliency = _saliency(float32_or_better(attribution.detach()), True)
        return _weights(saliency, self.max_weight).squeeze(2)

    def _attribute(self, logits, feats, target, baseline, generator, with_gap):
        """The attribution of this batch, and its gap."""
        logits, target = attribution_target(
            logits, feats, target, self.target, self.scale
        )
        return integrated_gradients(
            logits,
            feats,
            target,
            n_steps=self.n_steps,
            rule=self.rule,
            baseline=baseline,
            internal_batch_size=self.internal_batch_size,
            generator=generator,
            with_gap=with_gap,
        )

    def _baseline(self, feats, generator):
        """The baseline ``x'`` of this batch, None for zeros."""
        if isinstance(self.baseline, torch.Tensor):
            return self.baseline
        if self.baseline == "zero":
            return None
        feats = float32_or_better(feats.detach())
        deviation = feats.std(1, correction=0, keepdim=True)
        return deviation * random_like(
            torch.randn, feats.shape, feats, generator
        )


def _saliency(attribution, over_time):
    """``abs(a)`` relative to its peak, one where it is zero throughout."""
    saliency = attribution.abs()
    # Relative to the peak first: no underflow whatever the logit's scale.
    peak = saliency.amax((1, 2), keepdim=True)
    saliency = torch.where(peak > 0, saliency / peak, 1.0)
    return saliency.mean(2, keepdim=True) if over_time else saliency


def _weights(saliency, max_weight):
    """``w``: mean one before it is limited."""
    weights = saliency / saliency.mean((1, 2), keepdim=True)
    return weights.clamp(max=max_weight)


def _scaled_to(attribution, feats):
    """The map with the features' deviation per utterance, zero if constant."""
    peak = attribution.abs().amax((1, 2), keepdim=True)
    relative = torch.where(peak > 0, attribution / peak, 0.0)
    deviation = relative.std((1, 2), correction=0, keepdim=True)
    scale = feats.std((1, 2), correction=0, keepdim=True) / deviation
    return torch.where(deviation > _CONSTANT, relative * scale, 0.0)


def _as_spectrum(baseline):
    """A mean spectrum from the YAML as a tensor (F,)."""
    if not isinstance(baseline, torch.Tensor):
        check_given(OPTIONS, attribution_baseline=baseline)
    spectrum = torch.as_tensor(baseline, dtype=torch.float32)
    if not spectrum.isfinite().all() or not spectrum.numel():
        raise UserError(
            "attribution_baseline holds what is no finite number; give zero, "
            "noise or a list of finite numbers, one per mel band."
        )
    return spectrum
