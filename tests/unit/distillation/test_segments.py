"""Unit tests of ``imlkd_brain.distillation.segments``."""

import pytest
import torch
from helpers.networks import random_tensor

from imlkd_brain.distillation.segments import draw_duration, random_segments
from imlkd_brain.errors import UserError


def test_crops_are_contiguous_and_renormalised():
    # Each value names its frame, so a crop tells where it began.
    frames = torch.arange(50.0)[None, :, None].expand(400, 50, 3)
    generator = torch.Generator().manual_seed(0)
    crops, starts = random_segments(frames, 47, generator)
    assert crops.shape == (400, 47, 3)
    expected = torch.arange(47.0) - 23
    torch.testing.assert_close(crops, expected[None, :, None].expand_as(crops))
    assert starts.shape == (400,)


def test_every_start_is_drawn():
    # Squares of the frame keep the start after the mean is taken out.
    squares = torch.arange(50.0).square()[None, :, None]
    generator = torch.Generator().manual_seed(0)
    crops, said = random_segments(squares.expand(400, 50, 1), 47, generator)
    steps = crops[:, 1, 0] - crops[:, 0, 0]
    starts, counts = ((steps - 1) / 2).unique(return_counts=True)
    assert torch.equal((steps - 1) / 2, said.float())
    assert starts.tolist() == [0, 1, 2, 3]
    # 100 expected each; 5 deviations of a binomial are 43.
    assert (counts - 100).abs().max() < 43


def test_short_utterances_stay_whole():
    feats = random_tensor(2, 30, 4)
    for n_frames in (30, 31, 500):
        actual, starts = random_segments(feats, n_frames)
        assert starts.tolist() == [0, 0]
        torch.testing.assert_close(actual, feats - feats.mean(1, keepdim=True))


def test_durations():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_duration([1, 2.5, 4], generator) for _ in range(600)]
    # 200 expected each; 5 deviations of a binomial are 58.
    for duration in (1.0, 2.5, 4.0):
        assert abs(drawn.count(duration) - 200) < 58
    for durations in ([], None, [0.0], [-1], ["2"], [float("nan")], [True]):
        with pytest.raises(UserError, match="durations"):
            draw_duration(durations)
