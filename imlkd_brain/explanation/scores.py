"""The score that is explained: one model on the utterances of one task.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch

from imlkd_brain.data.audio import LONGEST_SECONDS, read_waveform
from imlkd_brain.data.crops import crop
from imlkd_brain.distillation.attribution import enrolment_score
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import Batch
from imlkd_brain.explanation.tasks import Task
from imlkd_brain.models.features import refuse_too_short
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.speaker_model import SpeakerModel

TEACHER = "teacher"
SHUFFLED = "shuffled"  # the control of the comparison of models


def load_models(sources, device):
    """Load the models by name, the teacher first.

    Arguments
    ---------
    sources : dict of str to str
        Folder of each model; a model whose folder is None is left out.
    device : str
        Where to.

    Returns
    -------
    models : dict of str to SpeakerModel

    Raises
    ------
    UserError
        If there is no teacher, a folder holds no model, a name is taken, or
        sampling rates differ.
    """
    sources = {name: source for name, source in sources.items() if source}
    if TEACHER not in sources:
        raise UserError(
            f"models: there is no `{TEACHER}`; name the model that the others "
            f"are compared with, as in `{{{TEACHER}: results/.../1986}}`."
        )
    if SHUFFLED in sources:
        raise UserError(
            f"models: `{SHUFFLED}` is the name of the control; call the model "
            "something else."
        )
    models = {}
    for name in sorted(sources, key=lambda name: name != TEACHER):
        try:
            models[name] = load_speaker_model(sources[name], device)
        except UserError as error:
            raise UserError(f"models: {name}: {error}") from error
    rates = {model.sample_rate for model in models.values()}
    if len(rates) > 1:
        raise UserError(
            f"models: sampling rates differ ({sorted(rates)} Hz); their maps "
            "cannot be compared, explain them one by one."
        )
    return models


@dataclass
class Subject:
    """One model on one task: what is explained.

    Attributes
    ----------
    name : str
        The name of the model.
    model : SpeakerModel
        The model.
    task : Task
        The utterances.
    enrolled : torch.Tensor or None
        Shape (E, D), embeddings of the task's enrolments.
    score : callable
        ``(N, T, F) -> (N, C)``: cosines against the enrolments, or against the
        training speakers where there are no enrolments.
    target : torch.Tensor
        Shape (U,), the column of each utterance's own score.
    """

    name: str
    model: SpeakerModel
    task: Task

    def __post_init__(self):
        if self.task.enrolments:
            self.enrolled = embed_enrolments(self.task, self.model)
            self.score = enrolment_score(
                self.model.embed_features, self.enrolled
            )
            columns = self.task.own
        else:
            self.enrolled = None
            self.score = self.model.cosines
            rows = {name: row for row, name in enumerate(self.model.speakers)}
            columns = [rows[u.speaker] for u in self.task.utterances]
        self.target = torch.tensor(columns, device=self.device)

    @property
    def device(self):
        """The device of the model."""
        return next(self.model.parameters()).device

    def batches(self, features, batch_frames, generator=None):
        """Yield batches of utterances of one length, with their indices.

        Arguments
        ---------
        features : list of torch.Tensor
            Features (T, F) of the utterances.
        batch_frames : int
            At most this many frames in a batch.
        generator : torch.Generator
            For random maps.

        Yields
        ------
        indices : list of int
            Which utterances.
        batch : Batch
            Their features and their score.
        """
        for indices in equal_lengths(features, batch_frames):
            yield (
                indices,
                Batch(
                    self.score,
                    torch.stack([features[i] for i in indices]).to(self.device),
                    self.target[indices],
                    self.model,
                    batch_frames,
                    generator,
                ),
            )


def equal_lengths(features, batch_frames):
    """Yield indices of features of one length, at most so many frames.

    Example
    -------
    >>> features = [torch.zeros(n, 2) for n in (5, 3, 5, 5)]
    >>> list(equal_lengths(features, batch_frames=10))
    [[0, 2], [3], [1]]
    """
    by_length = {}
    for index, item in enumerate(features):
        by_length.setdefault(len(item), []).append(index)
    for length, indices in by_length.items():
        size = max(1, batch_frames // length)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


@torch.no_grad()
def features_of(subject, duration):
    """Compute the features of each utterance of a subject.

    Arguments
    ---------
    subject : Subject
        The model and the utterances.
    duration : float or str
        Seconds from the middle of the utterance, or ``full``.

    Returns
    -------
    features : list of torch.Tensor
        Shape (T, F) each, on the CPU.
    places : list of tuple of float
        Start and end of each crop in seconds of its utterance.
    """
    features, places = [], []
    model = subject.model
    for utterance in subject.task.utterances:
        signal = read_waveform(
            utterance.path, model.sample_rate, LONGEST_SECONDS
        )
        piece, start = crop(
            signal, duration, model.sample_rate, model.hop_samples
        )
        feats = model.features(piece[None].to(subject.device))
        features.append(feats[0].cpu())
        places.append((start, start + len(piece) / model.sample_rate))
    return features, places


@torch.no_grad()
def embed_enrolments(task, model):
    """Compute the embeddings (E, D) of the enrolments of a task.

    An utterance without another one of its speaker is enrolled with the mean
    of its halves. Against itself its score would be at the maximum, 1, where
    the gradient is zero. One that is too short for the network is named.
    """
    device = next(model.parameters()).device
    embeddings = []
    for utterance in task.enrolments:
        signal = read_waveform(
            utterance.path, model.sample_rate, LONGEST_SECONDS
        ).to(device)
        parts = [signal]
        if utterance.key.endswith("#halves"):
            parts = signal.split(-(-len(signal) // 2))
        try:
            units = [
                torch.nn.functional.normalize(
                    model.embed_features(model.features(part[None])), dim=-1
                )
                for part in parts
            ]
        except RuntimeError as error:
            seconds = len(parts[-1]) / model.sample_rate
            refuse_too_short(error, utterance.path, seconds, model.source)
            raise
        embeddings.append(torch.cat(units).mean(0))
    return torch.stack(embeddings)
