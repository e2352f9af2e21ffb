"""Graphs of a speaker model that an ONNX exporter can follow.

The short-time Fourier transform is a convolution here, with the window's and
the transform's own numbers, since exporters and small runtimes lack complex
numbers. Everything else is the model's own modules.

Authors: IML-KD contributors
"""

import copy

import torch
import torch.nn.functional as F

from imlkd_brain.errors import UserError
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from speechbrain.lobes.features import Fbank


class ConvolutionSTFT(torch.nn.Module):
    """SpeechBrain's STFT as one convolution with a stride of a hop.

    Arguments
    ---------
    stft : speechbrain.processing.features.STFT
        What to compute: centred with zeros around, one-sided.

    Example
    -------
    >>> from speechbrain.processing.features import STFT
    >>> stft = STFT(sample_rate=16000)
    >>> wavs = torch.randn(2, 4000)
    >>> torch.allclose(ConvolutionSTFT(stft)(wavs), stft(wavs), atol=1e-4)
    True
    """

    def __init__(self, stft):
        super().__init__()
        self.hop_length = stft.hop_length
        self.padding = stft.n_fft // 2 if stft.center else 0
        # torch.stft puts a shorter window into the middle of the transform.
        spare = stft.n_fft - stft.win_length
        window = F.pad(
            stft.window.double().cpu(), (spare // 2, spare - spare // 2)
        )
        kernels = transform_kernels(torch.diag(window), stft.n_fft)
        if stft.normalized_stft:
            kernels = kernels / stft.n_fft**0.5
        self.register_buffer("kernels", kernels.float())

    def forward(self, wavs):
        """Return (batch, time, bins, 2) of waveforms (batch, samples)."""
        padded = F.pad(wavs, (self.padding, self.padding))
        return transformed(padded, self.kernels, self.hop_length)


class ConvolutionKaldiFbank(torch.nn.Module):
    """Kaldi's filter banks with one convolution for all that is linear.

    Taking a frame's mean away, pre-emphasis, window and Fourier transform are
    linear: their product is the kernel.

    Arguments
    ---------
    fbank : KaldiFbank
        What to compute.

    Example
    -------
    >>> fbank, wavs = KaldiFbank(n_mels=24), torch.randn(2, 4000)
    >>> ours = ConvolutionKaldiFbank(fbank)(wavs)
    >>> torch.allclose(ours, fbank(wavs), atol=1e-3)
    True
    """

    def __init__(self, fbank):
        super().__init__()
        self.n_hop = fbank.n_hop
        frames = torch.eye(fbank.n_window, dtype=torch.float64)
        frames = fbank.shaped(frames)
        kernels = transform_kernels(frames, fbank.n_fft)
        self.register_buffer("kernels", kernels.float())
        self.register_buffer("filters", fbank.filters.clone().cpu())

    def forward(self, wavs):
        """Return log-mel energies (batch, time, mel) of (batch, samples)."""
        spectrum = transformed(wavs, self.kernels, self.n_hop)
        energies = spectrum.square().sum(-1) @ self.filters
        return energies.clamp(min=torch.finfo(torch.float32).eps).log()


def transform_kernels(rows, n_fft):
    """Return convolution kernels of the Fourier transform of shaped frames.

    Arguments
    ---------
    rows : torch.Tensor
        (samples, samples), float64: row n is what becomes of a frame that is 1
        at sample n and 0 elsewhere.
    n_fft : int
        Length of the transform.

    Returns
    -------
    torch.Tensor
        (2 * bins, 1, samples): real parts, then imaginary parts.
    """
    spectrum = torch.fft.rfft(rows, n=n_fft).T
    return torch.cat([spectrum.real, spectrum.imag]).unsqueeze(1)


def transformed(wavs, kernels, hop):
    """Convolve (batch, samples) to spectra (batch, time, bins, 2)."""
    spectra = F.conv1d(wavs.unsqueeze(1), kernels, stride=hop)
    bins = kernels.shape[0] // 2
    return torch.stack(
        [spectra[:, :bins], spectra[:, bins:]], dim=-1
    ).transpose(1, 2)


def exportable_features(compute_features):
    """Return a feature module without complex numbers.

    Arguments
    ---------
    compute_features : torch.nn.Module
        SpeechBrain's ``Fbank`` or this recipe's ``KaldiFbank``.

    Returns
    -------
    torch.nn.Module
        One with the same output to rounding. What was given is left as it is.

    Raises
    ------
    UserError
        If it is another module.
    """
    if isinstance(compute_features, KaldiFbank):
        return ConvolutionKaldiFbank(compute_features)
    if not isinstance(compute_features, Fbank):
        raise UserError(
            f"compute_features: a {type(compute_features).__name__} cannot be "
            "put into an ONNX graph, only SpeechBrain's Fbank and KaldiFbank "
            "can; give `--graphs '[features]'` to export the graph from "
            "features alone."
        )
    features = copy.deepcopy(compute_features).cpu()
    features.compute_STFT = ConvolutionSTFT(features.compute_STFT)
    return features


class FeaturesGraph(torch.nn.Module):
    """From features (batch, time, mel) to embeddings (batch, dim).

    The normalisation is inside. Where it takes the mean of the utterance away,
    features that went through it already give the same.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        On the CPU.
    """

    def __init__(self, model):
        super().__init__()
        self.mean_var_norm = model.mean_var_norm
        self.embedding_model = model.embedding_model

    def forward(self, feats):
        """Return embeddings (batch, dim)."""
        feats = self.mean_var_norm(feats, torch.ones(feats.shape[0]))
        return self.embedding_model(feats).squeeze(1)


class WaveformGraph(torch.nn.Module):
    """From waveforms (batch, samples) to embeddings (batch, dim).

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        On the CPU.
    """

    def __init__(self, model):
        super().__init__()
        self.compute_features = exportable_features(model.compute_features)
        self.of_features = FeaturesGraph(model)

    def forward(self, wavs):
        """Return embeddings (batch, dim)."""
        return self.of_features(self.compute_features(wavs))
