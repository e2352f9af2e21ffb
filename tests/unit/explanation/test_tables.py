"""Unit tests of ``imlkd_brain.explanation.tables``."""

import math

import pytest
import torch

from imlkd_brain.explanation.curves import Curve
from imlkd_brain.explanation.map_sets import MapSet
from imlkd_brain.explanation.sanity import Similarity
from imlkd_brain.explanation.tables import (
    Speakers,
    completeness_table,
    context_table,
    curve_tables,
    fidelity_table,
    sanity_table,
)
from imlkd_brain.explanation.tasks import Task, Utterance


def utterances(*speakers):
    return [Utterance(f"{s}/{i}", "", s) for i, s in enumerate(speakers)]


@pytest.fixture
def task():
    return Task("verification", utterances("anna", "anna", "bert", "cleo"))


@pytest.fixture
def speakers(task):
    return Speakers(task, n_bootstrap=40, confidence=0.9, seed=1)


def maps_of(*maps, places=(), frame_rate=100.0):
    zeros = torch.zeros(len(maps))
    return MapSet(
        list(maps),
        list(places),
        {"m": list(maps)},
        zeros,
        zeros,
        zeros,
        frame_rate,
    )


def test_areas_are_means_over_levels_and_differences_to_random(speakers):
    steps = torch.tensor([[1.0, 1.0, 0.0]]).expand(4, -1)
    flat = torch.full((4, 3), 0.5)
    condition = ("bins", "deletion", "zero", "score")
    curves_of = {
        "ours": [Curve(*condition, steps)],
        "random": [Curve(*condition, flat)],
    }
    areas, points = curve_tables({"model": "teacher"}, curves_of, speakers)
    random, ours = areas
    assert random["method"] == "random" and random["mean"] == 0.5
    # Trapezoids: all of the first half, half of the second.
    assert ours["mean"] == ours["low"] == ours["high"] == 0.75
    assert ours["less_random_mean"] == ours["less_random_low"] == 0.25
    assert "less_random_mean" not in random
    assert [p["level"] for p in points[:3]] == [0.0, 0.5, 1.0]
    assert [p["mean"] for p in points[3:]] == [1.0, 1.0, 0.0]


def test_the_eer_of_a_curve_is_that_of_its_trials():
    everyone = utterances("anna", "bert")
    trials = [(0, 0, True), (1, 0, False), (1, 1, True), (0, 1, False)]
    task = Task("verification", everyone, everyone, [0, 1], trials)
    speakers = Speakers(task, n_bootstrap=10, confidence=0.9, seed=1)
    # Apart at the first level, the wrong way round at the second.
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]])
    mean, replicates = speakers.eer(scores)
    assert mean.tolist() == [0.0, 1.0]
    assert replicates.shape == (10, 2)


def test_a_student_with_the_teachers_maps_agrees_wholly(task, speakers):
    maps = [torch.rand(20, 10) for _ in range(4)]
    noise = [torch.rand(20, 10) for _ in range(4)]
    by_name = {
        "teacher": {"full": maps_of(*maps)},
        "same": {"full": maps_of(*maps)},
        "other": {"full": maps_of(*noise)},
    }
    rows = fidelity_table(task, by_name, 0.2, "same", speakers)
    assert [(r["student"], r["duration"]) for r in rows] == [
        ("same", "full"),
        ("other", "full"),
        ("same", "all"),
        ("other", "all"),
    ]
    same, other = rows[:2]
    for quantity in ("rank_correlation", "top_overlap", "time_correlation"):
        assert same[f"{quantity}_mean"] == pytest.approx(1)
        assert f"{quantity}_less_reference_mean" not in same
        less = other[f"{quantity}_less_reference_mean"]
        assert less == pytest.approx(other[f"{quantity}_mean"] - 1)


@pytest.mark.parametrize(("frames", "rate"), [(198, 100.0), (101, 50.0)])
def test_a_teacher_with_other_frames_is_compared_at_the_same_times(
    task, speakers, frames, rate
):
    def waves(n_frames, frame_rate):
        """Eight waves of 10 Hz around the middle of a signal, (T, 8)."""
        seconds = (torch.arange(n_frames) - (n_frames - 1) / 2) / frame_rate
        phases = 62.83 * seconds[:, None] + torch.arange(8) / 4
        return phases.sin() + 2

    by_name = {
        "teacher": {2: maps_of(*[waves(frames, rate)] * 4, frame_rate=rate)},
        "same": {2: maps_of(*[waves(201, 100.0)] * 4)},
    }
    row, _ = fidelity_table(task, by_name, 0.2, None, speakers)
    # Frame by frame from the start, 1.5 frames off, it would be 0.59.
    assert row["rank_correlation_mean"] > 0.95
    assert row["time_correlation_mean"] > 0.95


def test_the_map_of_a_crop_is_compared_with_the_same_frames(task, speakers):
    long = torch.rand(101, 4)
    crop = long[50:71]
    by_duration = {
        "full": maps_of(*[long] * 4, places=[(0.0, 1.0)] * 4),
        0.2: maps_of(*[crop] * 4, places=[(0.5, 0.7)] * 4),
    }
    (row,) = context_table(task, {"teacher": by_duration}, speakers)
    assert row["duration"] == 0.2 and row["mean"] == pytest.approx(1)
    del by_duration["full"]
    assert context_table(task, {"teacher": by_duration}, speakers) == []


def test_the_gap_is_set_against_the_difference_of_the_scores(task):
    kept = maps_of(*[torch.zeros(2, 2)] * 2)
    kept.clean = torch.tensor([0.9, 0.7])
    kept.empty = torch.tensor([0.1, -0.1])
    kept.gap = torch.tensor([0.02, -0.06])
    (row,) = completeness_table(task, {"teacher": {"full": kept}})
    assert row["mean_absolute_gap"] == pytest.approx(0.04)
    assert row["largest_absolute_gap"] == pytest.approx(0.06)
    assert row["relative_gap"] == pytest.approx(0.08 / 1.6)
    kept.gap[0] = math.nan
    assert completeness_table(task, {"teacher": {"full": kept}}) == []


def test_one_speaker_alone_has_no_interval(task, speakers):
    values = torch.tensor([0.2, 0.4, 0.9]).double()
    two = Similarity("m", "fc", values)
    one = Similarity("m", "fc", values[:2])
    both = sanity_table(task, "teacher", [two, one], speakers)
    assert both[0]["mean"] == pytest.approx(0.5)
    assert both[0]["low"] <= 0.5 <= both[0]["high"]
    assert both[1]["mean"] == pytest.approx(0.3)
    assert math.isnan(both[1]["low"]) and math.isnan(both[1]["high"])
