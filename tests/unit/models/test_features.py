"""What features say of themselves, against their definition."""

import pytest
import torch

from imlkd_brain.data.crops import seconds_to_samples
from imlkd_brain.models.features import frame_rate, hop_samples
from speechbrain.lobes.features import MFCC, Fbank


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
