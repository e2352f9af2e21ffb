"""Kaldi's features for batches, beside torchaudio's for one utterance."""

import pytest
import torch
from torchaudio.compliance.kaldi import fbank

from imlkd_brain.models.kaldi_fbank import KaldiFbank


@pytest.mark.parametrize("n_samples", [400, 8000, 33333])
@pytest.mark.parametrize("rate, n_mels", [(16000, 80), (8000, 40)])
def test_features_are_torchaudios(n_samples, rate, n_mels):
    generator = torch.manual_seed(0)
    wavs = 0.1 * torch.randn(2, n_samples, generator=generator)
    wavs[1] *= 1e-4
    expected = torch.stack(
        [
            fbank(
                wav.unsqueeze(0),
                num_mel_bins=n_mels,
                sample_frequency=rate,
                dither=0.0,
            )
            for wav in wavs
        ]
    )
    found = KaldiFbank(n_mels, rate)(wavs)
    # Log energies of about -16 to 5 in float32, summed in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_silence_is_finite_and_so_are_its_gradients():
    wavs = torch.zeros(1, 1600, requires_grad=True)
    feats = KaldiFbank()(wavs)
    feats.sum().backward()
    assert torch.isfinite(feats).all() and torch.isfinite(wavs.grad).all()


def test_filters_are_centred_evenly_in_mel():
    def mel(hertz):
        return 1127 * torch.log1p(hertz / 700)

    edges = mel(torch.tensor([20.0, 8000.0]))
    expected = edges[0] + (edges[1] - edges[0]) * torch.arange(1, 81) / 81
    torch.testing.assert_close(mel(KaldiFbank().f_central), expected)
