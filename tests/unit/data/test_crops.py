"""Unit tests of ``imlkd_brain.data.crops``."""

import math

import pytest
import torch

from imlkd_brain.data.crops import (
    RandomChunks,
    crop_name,
    duration_name,
    read_durations,
)
from imlkd_brain.errors import UserError


def test_chunks_depend_on_seed_epoch_and_utterance_only():
    names = [f"u{i}" for i in range(200)]
    one, other = RandomChunks(3), RandomChunks(3)
    first = {name: one(name, 1000, 400) for name in names}
    # Another instance, in another order, after other global draws.
    torch.manual_seed(5)
    second = {name: other(name, 1000, 400) for name in reversed(names)}
    assert first == second
    # Both ends can be drawn: 601 starts, all within the bounds.
    assert all(0 <= start <= 600 for start in first.values())
    assert min(first.values()) < 60 and max(first.values()) > 540
    assert len(set(first.values())) > 100

    one.epoch = 1
    next_epoch = {name: one(name, 1000, 400) for name in names}
    other_seed = {name: RandomChunks(4)(name, 1000, 400) for name in names}
    for starts in (next_epoch, other_seed):
        # 200 draws of 601: about one in three coincides by chance.
        assert sum(starts[n] == first[n] for n in names) < 10
    other.epoch = 1
    assert next_epoch == {name: other(name, 1000, 400) for name in names}


def test_chunks_of_short_files_start_at_zero():
    assert RandomChunks(0)("a", 400, 400) == RandomChunks(0)("a", 10, 400) == 0


def test_a_duration_is_full_or_seconds_and_has_one_name():
    read = read_durations(["full", 3, 1.5])
    assert read == {"full": None, "3s": 3, "1.5s": 1.5}
    assert list(read) == [duration_name(d) for d in ("full", 3, 1.5)]
    assert [crop_name(d, 7) for d in read.values()] == [
        "full",
        "3s-seed7",
        "1.5s-seed7",
    ]
    for wrong in (None, [], ["all"], [0], [-1], [float("nan")], [math.inf]):
        with pytest.raises(UserError, match=r"^valid_durations(\[0\])? is "):
            read_durations(wrong, "valid_durations")
