"""Convolutions give the spectra of the transforms that they stand for."""

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from imlkd_brain.models.onnx_graphs import (
    ConvolutionSTFT,
    exportable_features,
)
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.processing.features import STFT


def speechlike(seconds=1.3, batch=3, seed=0):
    """Noise that is quiet at times."""
    generator = torch.Generator().manual_seed(seed)
    wavs = torch.randn(batch, int(16000 * seconds), generator=generator)
    return 0.1 * wavs * torch.linspace(1, 0, wavs.shape[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_fft": 512},
        {"n_fft": 512, "center": False},
        {"win_length": 20, "n_fft": 401, "normalized_stft": True},
        {"hop_length": 12.5, "window_fn": torch.hann_window},
    ],
)
def test_the_convolution_is_the_transform(options):
    stft = STFT(sample_rate=16000, **options)
    wavs = speechlike()
    expected = stft(wavs)
    found = ConvolutionSTFT(stft)(wavs)
    # Sums of 400 float32 products in another order.
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("fbank", "tolerance"),
    [
        # In dB, where spectral bins cancel to the rounding of loud ones.
        (Fbank(n_mels=40), 1e-3),
        (Fbank(n_mels=80, sample_rate=16000, n_fft=512), 1e-3),
        (KaldiFbank(n_mels=80), 1e-3),
    ],
)
def test_features_are_those_of_the_model(fbank, tolerance):
    wavs = speechlike()
    before = fbank(wavs)
    found = exportable_features(fbank)(wavs)
    assert torch.allclose(found, before, atol=tolerance)
    assert torch.equal(fbank(wavs), before)  # left as it was


def test_other_features_are_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"MFCC.*--graphs '\[features\]'"):
        exportable_features(MFCC())
