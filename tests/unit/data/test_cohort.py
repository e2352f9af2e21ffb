"""Unit tests of ``imlkd_brain.data.cohort``."""

import pytest
from helpers.verification import write

from imlkd_brain.data.cohort import read_cohort
from imlkd_brain.errors import UserError


def test_cohort_is_drawn_from_an_annotation(tmp_path):
    """One entry a file, the same ones for the same seed."""
    rows = [
        f"u{i}_{part},3,$data_root/wav/s{i % 3}/s1/{i}.wav,0,9,s{i % 3}"
        for i in range(20)
        for part in range(2)
    ]
    header = "ID,duration,wav,start,stop,spk_id\n"
    path = write(tmp_path / "train.csv", header + "\n".join(rows))
    everything = read_cohort(path, "/data", 100, seed=0)
    assert len(everything) == 20
    assert everything["/data/wav/s1/s1/4.wav"] == "s1"
    some = read_cohort(path, "/data", 5, seed=1)
    assert len(some) == 5
    assert some == read_cohort(path, "/data", 5, seed=1)
    with pytest.raises(UserError, match="no such cohort"):
        read_cohort(tmp_path / "none.csv", "/data", 5, seed=1)
    with pytest.raises(UserError, match="column wav is missing"):
        read_cohort(write(tmp_path / "b.csv", "a,b\n1,2"), "/", 5, seed=1)
