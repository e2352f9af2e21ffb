"""What the teacher says of a batch: its answers, and integrated inputs.

Authors: IML-KD contributors
"""

from dataclasses import dataclass, replace

import torch

from imlkd_brain.distillation.attribution import enrolment_score
from imlkd_brain.distillation.front_end import carried_weights
from imlkd_brain.distributed import gathered
from imlkd_brain.precision import full_float32


@dataclass
class Outputs:
    """What student and teacher say of one branch's inputs.

    Arguments
    ---------
    student : torch.Tensor
        The student's cosines, or logits after :meth:`scaled`, (B, C).
    student_embeddings : torch.Tensor
        Shape (B, D_s).
    teacher : torch.Tensor or None
        The teacher's cosines or logits, (B, C). None where no term needs a
        teacher.
    teacher_embeddings : torch.Tensor or None
        Shape (B, D_t).
    attention : torch.Tensor or None
        Scores (B, channels, T) of the student's pooling, where asked for.
    weights : torch.Tensor or None
        Time weights of the teacher, (B, T), where asked for.

    Example
    -------
    >>> outputs = Outputs(torch.ones(1, 2), None, torch.zeros(1, 2))
    >>> outputs.scaled(30).student
    tensor([[30., 30.]])
    """

    student: torch.Tensor
    student_embeddings: torch.Tensor
    teacher: torch.Tensor = None
    teacher_embeddings: torch.Tensor = None
    attention: torch.Tensor = None
    weights: torch.Tensor = None

    def scaled(self, scale):
        """Return the same with logits, ``scale`` times the cosines."""
        return replace(
            self, student=scale * self.student, teacher=scale * self.teacher
        )

    def of_all(self, rows, names):
        """Return the same of the utterances of all processes.

        Arguments
        ---------
        rows : list of int
            Utterances of each process, in the order of ranks.
        names : iterable of str
            Which tensors; the others stay as they are.

        Returns
        -------
        Outputs
            Gradients reach this process's rows, see
            :func:`imlkd_brain.distributed.gathered`.
        """
        return replace(
            self,
            **{name: gathered(getattr(self, name), rows) for name in names},
        )

    def of_rows(self, rows):
        """Return the same of some utterances, by their numbers."""
        return replace(
            self,
            **{
                name: value[rows]
                for name, value in vars(self).items()
                if value is not None
            },
        )


@dataclass
class View:
    """A batch of training chunks, as student and teacher are given it."""

    wavs: torch.Tensor  # augmented, (B, samples)
    feats: torch.Tensor  # the student's features of them, (B, T, F)
    target: torch.Tensor  # true classes, (B,), int64
    batch: object = None  # of the data set, where more comes with the chunks
    answer: tuple = None  # the teacher's on the chunks, once it was asked
    rows: torch.Tensor = None  # numbers in the batch of these; None: all of it

    def of_rows(self, rows):
        """Return the same of some chunks, by their numbers; None: of all."""
        if rows is None:
            return self
        given = (self.wavs, self.feats, self.target)
        answer = self.answer and tuple(part[rows] for part in self.answer)
        return View(*(part[rows] for part in given), self.batch, answer, rows)

    def of_batch(self, name):
        """Return what the data set gave with these chunks."""
        given = getattr(self.batch, name).data
        return given if self.rows is None else given[self.rows]


@dataclass
class Integrated:
    """Segments of a batch: plain, as ``I(x_d)``, and their time weights."""

    student: torch.Tensor = None  # I(x_d) in the student's features, (B, T, F)
    teacher: torch.Tensor = None  # in the teacher's; the same where shared
    gap: torch.Tensor = None  # (B,), of completeness, where it was asked for
    weights: torch.Tensor = None  # w of the student's frames, (B, T), if asked
    plain: torch.Tensor = None  # x_d itself in the student's features
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
        if view.answer is None:
            front_end = self.teacher.front_end
            feats = view.feats if front_end is None else front_end(view.wavs)
            view.answer = self.answer(feats)
        return view.answer

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

    def of_segments(
        self, view, seeds, with_gap=False, integrated=True, weights=False
    ):
        """One segment of each chunk, and what is asked of it, constants.

        Arguments
        ---------
        view : View
            The chunks.
        seeds : tuple of int
            All processes share the first, which the duration is drawn with.
        with_gap : bool
            Whether to measure the completeness gap of an attribution.
        integrated : bool
            Whether ``I(x_d)`` is made.
        weights : bool
            Whether the time weights of the attribution are given, whatever
            the mode of ``I(x_d)`` is.

        Returns
        -------
        Integrated
            ``plain`` always; what was not asked for is None.
        """
        segment, generator = self._segments(view, seeds)
        if not integrated and not weights:
            return Integrated(plain=segment.features)

        def compute():
            """Attribute the segments, and shape them."""
            asked = {"integrated": integrated, "weights": weights}
            return self._weigh(view, segment, generator, with_gap, **asked)

        if self.cache is None or with_gap:
            return compute()
        # Reading targets waits for the GPU: for the cache only.
        options = {
            name: value.tolist() if isinstance(value, torch.Tensor) else value
            for name, value in vars(self.integrated).items()
        }
        description = f"{options} {seeds[1]} {view.target.tolist()}"
        front_end = self.teacher.front_end
        seen = view.feats if front_end is None else view.wavs
        names = ["student"] * integrated
        if integrated and front_end is not None:
            names.append("teacher")
        if weights:
            names.append("weights")
            description += f" {names}"

        def tensors():
            """Each of them once where they are shared."""
            made = compute()
            return tuple(getattr(made, name) for name in names)

        kept = dict(zip(names, self._once(description, seen, tensors)))
        kept.setdefault("teacher", kept.get("student"))
        return Integrated(**kept, plain=segment.features)

    def _segments(self, view, seeds):
        """A random segment of each chunk, and where numbers come from then."""
        common = generator = torch.Generator().manual_seed(seeds[0])
        if seeds[1] != seeds[0]:
            generator = torch.Generator().manual_seed(seeds[1])
        segment = self.integrated.segments(
            view.feats.detach(), generator, common
        )
        return segment, generator

    def _weigh(self, view, segment, generator, with_gap, integrated, weights):
        """I of segments and time weights, as far as they are asked for."""
        if self.teacher.front_end is not None:
            return self._carry(
                view, segment, generator, with_gap, integrated, weights
            )
        logits, target = self._attributed(view)
        given = (logits, segment.features, target, generator, with_gap)
        made = Integrated(plain=segment.features)
        if not integrated:
            made.weights, made.gap = self.integrated.time_weights(*given)
        elif not weights:
            made.student, made.gap = self.integrated(*given)
        else:
            made.student, made.weights, made.gap = self.integrated.weighed(
                *given
            )
        made.teacher = made.student
        return made

    def _attributed(self, view):
        """The score that is attributed, and the column of each item."""
        if self.integrated.target != "own_embedding":
            return self.teacher.cosines, view.target
        _, embeddings = self.of_chunk(view)
        columns = torch.arange(len(embeddings), device=embeddings.device)
        return enrolment_score(self.teacher.embed_features, embeddings), columns

    def _carry(self, view, segment, generator, with_gap, integrated, weights):
        """I in the features of each, by weights of the teacher's frames."""
        front_end = self.teacher.front_end
        plain = feats = segment.features
        if front_end is not None:
            feats = front_end(self._waveforms(view.wavs, segment))
        made = Integrated(plain=plain, segment=feats)
        plain_mode = self.integrated.mode == "identity"
        if plain_mode and integrated:
            made.student, made.teacher = plain, feats
        if plain_mode and not weights:
            return made
        logits, target = self._attributed(view)
        own, made.gap = self.integrated.time_weights(
            logits, feats, target, generator, with_gap
        )
        carried = made.teacher_weights = own
        if front_end is not None:
            carried = carried_weights(
                own,
                plain.shape[1],
                front_end.frame_rate,
                self.integrated.frame_rate,
            )
        if weights:
            made.weights = carried
        if integrated and not plain_mode:
            made.student = self.integrated.gated(plain, carried)
            made.teacher = self.integrated.gated(feats, own)
        return made

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
