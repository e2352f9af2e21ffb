"""A teacher with other features: its own, and its weights carried over."""

import numpy as np
import pytest
import torch
from torchaudio.transforms import MFCC

from imlkd_brain.distillation.front_end import FrontEnd, carried_weights
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from imlkd_brain.models.speaker_model import SpeakerModel
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization


class Cepstra(torch.nn.Module):
    """MFCCs (batch, time, coefficient), which no STFT of SpeechBrain makes."""

    def __init__(self):
        super().__init__()
        self.mfcc = MFCC(16000, 20, melkwargs={"n_mels": 40})

    def forward(self, wavs):
        return self.mfcc(wavs).transpose(1, 2)


TEACHERS = {
    "40 mels": (Fbank(n_mels=40), 40, 16000),
    "MFCC": (Cepstra(), 20, 16000),
    "half the frame rate": (Fbank(n_mels=30, hop_length=20), 30, 16000),
    "8 kHz": (Fbank(n_mels=30, sample_rate=8000), 30, 8000),
    "Kaldi": (KaldiFbank(n_mels=30), 30, 16000),
}


@pytest.fixture(params=TEACHERS)
def teacher(request):
    features, n_mels, rate = TEACHERS[request.param]
    torch.manual_seed(0)
    return SpeakerModel(
        features,
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(
            n_mels,
            channels=[8] * 4 + [24],
            lin_neurons=12,
            attention_channels=8,
            se_channels=8,
        ),
        sample_rate=rate,
    )


def test_a_teacher_answers_for_a_batch_what_it_answers_alone(teacher):
    front_end = FrontEnd(teacher, 16000)
    wavs = 0.1 * torch.randn(4, 16000)
    # One is 120 dB above another: torchaudio's MFCCs of the quiet one would
    # be cut at 80 dB below the loud one.
    wavs[2] *= 10
    wavs[3] *= 1e-5
    together = front_end(wavs)
    alone = torch.cat([front_end(wav.unsqueeze(0)) for wav in wavs])
    assert torch.equal(together, alone)
    with torch.no_grad():
        embeddings = teacher.embed_features(together)
        own = torch.cat(
            [teacher.embed(front_end.resample(w[None])) for w in wavs]
        )
    # float32, summed in another order for other sizes of a batch.
    torch.testing.assert_close(embeddings, own, rtol=1e-4, atol=1e-4)


def test_its_features_are_those_that_it_computes_itself(teacher):
    wavs = 0.1 * torch.randn(2, 16000)
    if teacher.sample_rate == 16000:
        expected = torch.cat([teacher.features(wav[None]) for wav in wavs])
        torch.testing.assert_close(FrontEnd(teacher, 16000)(wavs), expected)
    seconds = FrontEnd(teacher, 16000)(wavs).shape[1] / (
        teacher.sample_rate / teacher.hop_samples
    )
    assert seconds == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("rates", [(100, 50), (50, 100), (100, 80), (31, 100)])
def test_weights_are_interpolated_over_time(rates):
    rate, other = rates
    n_weights, n_frames = 2 * rate, 2 * other
    weights = torch.rand(3, n_weights, generator=torch.manual_seed(0)).double()
    found = carried_weights(weights, n_frames, rate, other)
    # Seconds from the middle of the signal, by numpy.
    times = (np.arange(n_weights) - (n_weights - 1) / 2) / rate
    wanted = (np.arange(n_frames) - (n_frames - 1) / 2) / other
    for row, values in zip(found.numpy(), weights.numpy(), strict=False):
        expected = np.interp(wanted, times, values)
        expected *= values.mean() / expected.mean()
        np.testing.assert_allclose(row, expected, rtol=1e-9)


def test_equal_frames_keep_their_weights_and_no_weight_stays_none():
    weights = torch.tensor([[0.2, 1.8, 1.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(carried_weights(weights, 3, 100, 100), weights)


def test_a_peak_stays_where_it_is_in_seconds():
    # Kaldi has 98 frames in a second, SpeechBrain 101.
    weights = torch.zeros(1, 98)
    weights[0, 48:50] = 1.0
    carried = carried_weights(weights, 101, 100, 100)
    centre = (carried[0] * torch.arange(101)).sum() / carried.sum()
    assert centre == pytest.approx(50, abs=0.01)
