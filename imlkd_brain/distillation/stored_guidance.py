"""What a teacher said of a batch, for the training step: stored, not asked.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.distillation.front_end import carried_weights
from imlkd_brain.distillation.guidance import Integrated
from imlkd_brain.distillation.segments import segments_at
from imlkd_brain.precision import full_float32


class StoredGuidance:
    """What a teacher said of a batch, in a training step.

    It has the interface of :class:`imlkd_brain.distillation.guidance.Guidance`.

    Arguments
    ---------
    teacher : imlkd_brain.distillation.teacher.Teacher
        Its classes are read. It is asked nothing and stays where it is.
    integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        How ``I(x_d)`` is made of weights.
    """

    def __init__(self, teacher, integrated):
        self.teacher = teacher
        self.integrated = integrated

    def to(self, device):
        """Move the classes; return this."""
        self.teacher.rows = self.teacher.rows.to(device)
        for layer in self.teacher.layers:
            layer.to(device)
        return self

    def of_chunk(self, view):
        """Cosines (B, C) and embeddings (B, D) of the chunks."""
        if view.answer is None:
            view.answer = self._answer(view.of_batch("answer_chunk"))
        return view.answer

    def of_segments(
        self, view, seeds, with_gap=False, integrated=True, weights=False
    ):
        """The segments in the student's features, and what was stored."""
        front_end = self.teacher.front_end
        frames = view.of_batch("frames")
        plain = segments_at(view.feats.detach(), frames).float()
        made = Integrated(plain, plain=plain)
        for name in ("answer_integrated", "answer_segment"):
            if hasattr(view.batch, name):
                made.teacher = view.of_batch(name)
        if self.integrated.mode == "identity":
            return made
        if integrated or weights:
            given = view.of_batch("answer_weights")
            if front_end is not None:
                given = carried_weights(
                    given,
                    plain.shape[1],
                    front_end.frame_rate,
                    self.integrated.frame_rate,
                )
            made.student = self.integrated.gated(plain, given)
            made.weights = given if weights else None
        return made

    def of_integrated(self, inputs):
        """Cosines and embeddings of ``I(x_d)``, of which one was stored."""
        return self._answer(inputs.teacher)

    def _answer(self, embeddings):
        """Embeddings and the cosines to the classes that they have."""
        whole = torch.autocast(embeddings.device.type, enabled=False)
        with full_float32(), torch.no_grad(), whole:
            return self.teacher.classify(embeddings), embeddings
