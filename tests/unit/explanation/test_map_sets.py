"""Unit tests of ``imlkd_brain.explanation.map_sets``."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from synthetic import write_wav

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.map_sets import MapPlan, identity
from imlkd_brain.explanation.tasks import Task, Utterance


@dataclass
class Row:
    value: torch.Tensor


@pytest.fixture
def plan(tmp_path):
    return MapPlan({"random": {}}, ["full"], 6400, 1, False, tmp_path / "save")


def test_kept_records_are_known_by_the_content_of_the_utterances(
    tmp_path, plan
):
    """A file of equal length and with its old time is another file."""
    path = tmp_path / "wavs" / "anna" / "1.wav"
    write_wav(path, 0.3, 100, 0)
    state = os.stat(path)
    utterance = Utterance("anna/1", str(path), "anna")
    subject = SimpleNamespace(
        name="teacher",
        model=SimpleNamespace(key="k"),
        task=Task("identification", [utterance]),
    )

    def kept(value):
        (row,) = plan.kept(
            "maps",
            identity(subject, "full", plan),
            Row,
            lambda: [Row(torch.tensor(value))],
        )
        return int(row.value)

    assert kept(1) == 1 and kept(2) == 1
    write_wav(path, 0.3, 140, 0)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert os.stat(path).st_size == state.st_size
    assert kept(3) == 3
    # The same content in a new file is found again.
    write_wav(path, 0.3, 140, 0)
    assert kept(4) == 3
    subject.model.key = "other"
    assert kept(5) == 5
    path.unlink()
    with pytest.raises(UserError, match="1.wav: no readable audio file"):
        kept(6)


def test_records_of_another_form_are_computed_anew(plan):
    @dataclass
    class Longer:
        value: int
        more: int

    plan.kept("rows", ["same"], Row, lambda: [Row(1)])
    (row,) = plan.kept("rows", ["same"], Longer, lambda: [Longer(2, 3)])
    assert row == Longer(2, 3)


def test_a_wrong_duration_is_one_sentence():
    with pytest.raises(UserError, match="durations.* is -1, but must be full"):
        MapPlan({}, [-1], 6400, 1, False, "save")
