"""What the teacher says of a batch: its answers, and integrated inputs.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch

from imlkd_brain.distillation.front_end import carried_weights
from imlkd_brain.distillation.integrated_inputs import gated
from imlkd_brain.precision import full_float32


@dataclass
class View:
    """A batch of training chunks, as student and teacher are given it."""

    wavs: torch.Tensor  # augmented, (B, samples)
    feats: torch.Tensor  # the student's features of them, (B, T, F)
    target: torch.Tensor  # true classes, (B,), int64
    batch: object = None  # of the data set, where more comes with the chunks


@dataclass
class Integrated:
    """``I(x_d)`` of a batch in the features of each, and the gap (B,)."""

    student: torch.Tensor  # (B, T, F)
    teacher: torch.Tensor  # the same where they share their features
    gap: torch.Tensor = None  # of completeness, where it was asked for
    segment: torch.Tensor = None  # the teacher's features of x_d, if its own
    teacher_weights: torch.Tensor = None  # w of the teacher's frames, (B, T)


class Guidance:
    """A frozen teacher beside a student in training.

    Arguments
    ---------
    teacher : imlkd_brain.distillation.teacher.Teacher
        The teacher.
    integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        How ``I(x_d)`` is made.
    sample_rate : int
        Of the waveforms, in Hz.
    cache : callable, optional
        See :class:`imlkd_brain.distillation.teacher_cache.TeacherCache`.
    """

    def __init__(self, teacher, integrated, sample_rate, cache=None):
        self.teacher = teacher
        self.integrated = integrated
        self.sample_rate = sample_rate
        self.cache = cache

    def to(self, device):
        """Move the teacher; return this."""
        self.teacher.to(device)
        return self

    def of_chunk(self, view):
        """Cosines (B, C) and embeddings (B, D) of the teacher on the chunks."""
        front_end = self.teacher.front_end
        feats = view.feats if front_end is None else front_end(view.wavs)
        return self.answer(feats)

    def answer(self, feats):
        """Cosines and embeddings of the frozen teacher, in float32."""

        def compute():
            """Ask the teacher."""
            whole = torch.autocast(feats.device.type, enabled=False)
            with full_float32(), torch.no_grad(), whole:
                embeddings = self.teacher.embed_features(feats.float())
                return self.teacher.classify(embeddings), embeddings

        return self._once("answer", feats, compute)

    def of_integrated(self, inputs):
        """Cosines and embeddings of the teacher on its ``I(x_d)``."""
        return self.answer(inputs.teacher)

    def of_segments(self, view, seeds, with_gap=False):
        """``I(x_d)`` of one segment of each chunk, constants.

        Of the two seeds, all processes share the first, which the duration is
        drawn with.
        """
        if self.cache is None or with_gap:
            return self._integrate(view, seeds, with_gap)
        # Reading targets waits for the GPU: for the cache only.
        options = {
            name: value.tolist() if isinstance(value, torch.Tensor) else value
            for name, value in vars(self.integrated).items()
        }
        description = f"{options} {seeds[1]} {view.target.tolist()}"
        front_end = self.teacher.front_end
        seen = view.feats if front_end is None else view.wavs

        def compute():
            """Make the inputs, each once where they are shared."""
            inputs = self._integrate(view, seeds, False)
            if front_end is None:
                return (inputs.student,)
            return inputs.student, inputs.teacher

        kept = self._once(description, seen, compute)
        return Integrated(kept[0], kept[-1])

    def _integrate(self, view, seeds, with_gap):
        """Segments, their attribution, and I of them."""
        segment, generator = self._segments(view, seeds)
        return self._weigh(view, segment, generator, with_gap)

    def _segments(self, view, seeds):
        """A random segment of each chunk, and where numbers come from then."""
        common = generator = torch.Generator().manual_seed(seeds[0])
        if seeds[1] != seeds[0]:
            generator = torch.Generator().manual_seed(seeds[1])
        segment = self.integrated.segments(
            view.feats.detach(), generator, common
        )
        return segment, generator

    def _weigh(self, view, segment, generator, with_gap):
        """I of segments."""
        if self.teacher.front_end is not None:
            return self._carry(view, segment, generator, with_gap)
        inputs, gap = self.integrated(
            self.teacher.cosines,
            segment.features,
            view.target,
            generator=generator,
            with_gap=with_gap,
        )
        return Integrated(inputs, inputs, gap)

    def _carry(self, view, segment, generator, with_gap):
        """I in the features of each, by weights of the teacher's frames."""
        front_end = self.teacher.front_end
        feats = segment.features
        if front_end is not None:
            feats = front_end(self._waveforms(view.wavs, segment))
        if self.integrated.mode == "identity":
            return Integrated(segment.features, feats, segment=feats)
        weights, gap = self.integrated.time_weights(
            self.teacher.cosines,
            feats,
            view.target,
            generator=generator,
            with_gap=with_gap,
        )
        carried = weights
        if front_end is not None:
            carried = carried_weights(
                weights,
                segment.features.shape[1],
                front_end.frame_rate,
                self.integrated.frame_rate,
            )
        gate = self.integrated.gate
        return Integrated(
            gated(segment.features.float(), carried.unsqueeze(2), gate),
            gated(feats.float(), weights.unsqueeze(2), gate),
            gap,
            feats,
            weights,
        )

    def _waveforms(self, wavs, segment):
        """The samples (B, samples) that the frames of segments cover."""
        hop = self.sample_rate / self.integrated.frame_rate
        n_samples = round(segment.features.shape[1] * hop)
        n_samples = min(n_samples, wavs.shape[1])
        starts = (segment.start.to(wavs.device) * hop).round().long()
        # The last frame of centred features may begin at the very end.
        starts = starts.clamp(max=wavs.shape[1] - n_samples)
        samples = torch.arange(n_samples, device=wavs.device)
        return wavs.gather(1, starts.unsqueeze(1) + samples)

    def _once(self, description, feats, compute):
        """Ask the cache first, where there is one."""
        if self.cache is None:
            return compute()
        description = f"{self.teacher.key} {description}"
        return self.cache(description, feats, compute)
