"""One trained speaker model: features, embedding network and classifier.

Authors: IML-KD contributors
"""

import hashlib
from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.models.features import (
    has_statistics,
    hop_samples,
    plain_settings,
)


class SpeakerModel(torch.nn.Module):
    """A frozen speaker model: waveforms to features, embeddings and cosines.

    It stays in evaluation mode whatever is asked of it, and none of its
    parameters takes a gradient, so that BatchNorm statistics and weights are
    bit-identical after any use.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Waveforms (batch, samples) to log-mel features (batch, time, mel).
    mean_var_norm : torch.nn.Module
        Normalises features, called with relative lengths (batch,).
    embedding_model : torch.nn.Module
        Maps (batch, time, mel) to (batch, 1, dim).
    classifier : torch.nn.Module or None
        Maps (batch, 1, dim) to cosines (batch, 1, speakers).
    speakers : list of str
        Training speakers in the order of the classifier's rows.
    sample_rate : int
        In Hz.
    source : str
        Where the model came from, for messages.
    teacher_speakers : list of str
        Training speakers of its teacher and of its initial weights, of their
        teachers and so on. Error rates on them are too low.

    Attributes
    ----------
    key : str
        SHA-256 (hex) of the weights and of the modules' description. A copy
        of a model has the same key.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
    >>> from speechbrain.processing.features import InputNormalization
    >>> model = SpeakerModel(
    ...     Fbank(n_mels=80),
    ...     InputNormalization(norm_type="sentence", std_norm=False),
    ...     ECAPA_TDNN(80, channels=[16] * 4 + [48], lin_neurons=24),
    ...     Classifier(24, out_neurons=3),
    ...     speakers=["a", "b", "c"],
    ... )
    >>> feats = model.features(torch.randn(2, 16000))
    >>> model.embed_features(feats).shape, model.cosines(feats).shape
    (torch.Size([2, 24]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        compute_features,
        mean_var_norm,
        embedding_model,
        classifier=None,
        speakers=(),
        sample_rate=16000,
        source="",
        teacher_speakers=(),
    ):
        super().__init__()
        self.compute_features = compute_features
        self.mean_var_norm = mean_var_norm
        self.embedding_model = embedding_model
        self.classifier = classifier
        self.speakers = list(speakers)
        self.teacher_speakers = list(teacher_speakers)
        self.sample_rate = sample_rate
        self.source = str(source)
        self.requires_grad_(False)
        self.train(False)
        self.key = self._fingerprint()
        self.name = Path(self.source).name or "model"

    def train(self, mode=True):
        """Stay in evaluation mode: a teacher's BatchNorm must not learn."""
        return super().train(False)

    def _apply(self, fn, recurse=True):
        """Move statistics that are no buffers along with the weights."""
        super()._apply(fn, recurse)
        if has_statistics(self.mean_var_norm):
            norm = self.mean_var_norm
            norm.glob_mean, norm.glob_std = map(
                fn, (norm.glob_mean, norm.glob_std)
            )
        return self

    def features(self, wavs, lens=None):
        """Return normalised log-mel features (batch, time, mel).

        Arguments
        ---------
        wavs : torch.Tensor
            (batch, samples) at ``sample_rate``.
        lens : torch.Tensor, optional
            Relative lengths (batch,), 1 for the longest.
        """
        if lens is None:
            lens = torch.ones(wavs.shape[0], device=wavs.device)
        return self.mean_var_norm(self.compute_features(wavs), lens)

    def embed_features(self, feats, lens=None):
        """Return embeddings (batch, dim) of features (batch, time, mel)."""
        if lens is None:
            return self.embedding_model(feats).squeeze(1)
        return self.embedding_model(feats, lens).squeeze(1)

    def embed(self, wavs, lens=None):
        """Return embeddings (batch, dim) of waveforms (batch, samples)."""
        return self.embed_features(self.features(wavs, lens), lens)

    def classify(self, embeddings):
        """Return cosines (batch, speakers) of embeddings (batch, dim)."""
        if self.classifier is None:
            raise UserError(
                f"{self.source}: this model has no classifier, so it has no "
                "training speakers to score; use it for verification only."
            )
        return self.classifier(embeddings.unsqueeze(1)).squeeze(1)

    def cosines(self, feats):
        """Return cosines (batch, speakers) of features (batch, time, mel).

        Cosines in [-1, 1], without margin or scale; differentiable with
        respect to ``feats``.
        """
        return self.classify(self.embed_features(feats))

    @property
    def hop_samples(self):
        """Samples from one frame of the features to the next."""
        return hop_samples(self.compute_features, self.sample_rate)

    @property
    def learnt_speakers(self):
        """Speakers it has learnt itself or through its teachers, sorted."""
        return sorted({*self.speakers, *self.teacher_speakers})

    @property
    def embedding_dim(self):
        """Dimension of the embeddings, found with one frame-sized input."""
        device = next(self.embedding_model.parameters()).device
        with torch.no_grad():
            wavs = torch.zeros(1, self.sample_rate, device=device)
            return self.embed(wavs).shape[-1]

    def _fingerprint(self):
        """Hash the weights and the description of every module."""
        digest = hashlib.sha256()
        for name, module in self.named_modules():
            if module is not self:
                # repr() leaves out what has no weights: hop length, dilation,
                # the kind of normalisation.
                digest.update(f"{name} {type(module)}".encode())
                digest.update(repr(plain_settings(module)).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            # Through bytes, not numpy: bfloat16 has no numpy type.
            data = value.detach().cpu().contiguous().flatten()
            digest.update(data.view(torch.uint8).numpy().tobytes())
        if has_statistics(self.mean_var_norm):
            norm = self.mean_var_norm
            for value in (norm.glob_mean, norm.glob_std):
                digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
