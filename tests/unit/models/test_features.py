"""What features say of themselves, against their definition."""

from types import SimpleNamespace

import pytest
import torch

from imlkd_brain.data.crops import seconds_to_samples
from imlkd_brain.errors import UserError
from imlkd_brain.models.features import (
    feature_difference,
    frame_rate,
    hop_samples,
    named_if_too_short,
)
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.processing.features import InputNormalization


@pytest.mark.parametrize(
    ("features", "sample_rate", "hop"),
    [
        (Fbank(), 16000, 160),
        (Fbank(sample_rate=8000), 8000, 80),
        (Fbank(hop_length=12.5), 16000, 200),
        # 110.25 samples are 110, and a little more than 100 frames a second.
        (Fbank(sample_rate=11025), 11025, 110),
        (MFCC(sample_rate=8000, hop_length=20), 8000, 160),
        # No spectrum at all: a frame is what is in 300 samples.
        (torch.nn.Unflatten(1, (-1, 300)), 15000, 300),
    ],
)
def test_the_hop_and_the_frame_rate_are_those_of_the_features(
    features, sample_rate, hop
):
    assert hop_samples(features, sample_rate) == hop
    rate = frame_rate(features, sample_rate)
    assert rate == sample_rate / hop
    n_frames = features(torch.zeros(1, 30 * hop)).shape[1]
    assert n_frames in (30, 31)


def test_seconds_are_rounded_to_samples_not_cut():
    # Of each hundredth of a second, at a rate that divides evenly.
    for rate in (100, 8000, 16000, 44100):
        for hundredths in range(1, 1000):
            exact = hundredths * rate // 100
            assert seconds_to_samples(hundredths / 100, rate) == exact


def other_window():
    """Mels whose window no setting names."""
    features = Fbank()
    features.compute_STFT.window = torch.hann_window(400)
    return features


NORM = {"norm_type": "sentence", "std_norm": False}


@pytest.mark.parametrize(
    ("theirs", "norm", "named"),
    [
        (Fbank(), NORM, None),
        (Fbank(n_mels=80), NORM, "compute_features"),
        (Fbank(f_max=7600), NORM, "compute_features"),
        (Fbank(win_length=20), NORM, "compute_features"),
        (Fbank(hop_length=12), NORM, "compute_features"),
        (Fbank(n_fft=512), NORM, "compute_features"),
        (Fbank(deltas=True), NORM, "compute_features"),
        (MFCC(), NORM, "compute_features"),
        (other_window(), NORM, "compute_features"),
        (Fbank(), {"norm_type": "sentence", "std_norm": True}, "mean_var_norm"),
    ],
)
def test_whatever_makes_features_others_is_a_difference(theirs, norm, named):
    model = SimpleNamespace(
        compute_features=theirs, mean_var_norm=InputNormalization(**norm)
    )
    found = feature_difference(model, Fbank(), InputNormalization(**NORM))
    assert found is None if named is None else found[0] == named
    wavs = 0.1 * torch.randn(1, 8000)
    feats = [f(wavs) for f in (theirs, Fbank())]
    if named == "compute_features":
        assert feats[0].shape != feats[1].shape or not feats[0].equal(feats[1])


def test_a_batch_that_a_network_finds_too_short_names_its_longest_utterance():
    def batch(n_samples):
        signals = torch.zeros(2, n_samples)
        return SimpleNamespace(
            sig=(signals, torch.tensor([0.5, 1.0])),
            utterance=["a/s/1", "b/s/2"],
        )

    def network():
        raise RuntimeError("Padding size should be less")

    with pytest.raises(UserError, match="^b/s/2: 20 ms of speech are too few"):
        with named_if_too_short(batch(320), 16000):
            network()
    # What is long enough has another fault, which stays as it is.
    with pytest.raises(RuntimeError, match="Padding"):
        with named_if_too_short(batch(16000), 16000):
            network()
