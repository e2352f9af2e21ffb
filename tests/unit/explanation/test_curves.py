"""Unit tests of ``imlkd_brain.explanation.curves``."""

from types import SimpleNamespace

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.curves import (
    CurvePlan,
    baselines_differ,
    compute_curves,
    metrics_of,
)
from imlkd_brain.explanation.map_sets import MapPlan, MapSet
from imlkd_brain.explanation.scores import Subject
from imlkd_brain.explanation.tasks import Task


def plan_of(**more):
    maps = MapPlan({"m": {}}, ["full", 1], 6400, 1, False, "save")
    options = {
        "durations": [1],
        "units": ["frames"],
        "n_levels": 3,
        "baselines": {"deletion": ["zero", "band_mean"], "insertion": ["zero"]},
        "blur_sigma": 2.0,
        "posterior_scale": 30.0,
        **more,
    }
    return CurvePlan(maps, **options)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"durations": [2]}, "curve_durations: 2 is not one of the durations"),
        ({"units": ["words"]}, r"units\[0\] is 'words'"),
        ({"n_levels": 1}, "n_levels is 1"),
        (
            {"baselines": {"deletion": ["grey"]}},
            r"deletion_baselines\[0\] is 'grey'",
        ),
    ],
)
def test_mistakes_are_found_before_the_work(more, words):
    with pytest.raises(UserError, match=words):
        plan_of(**more)


class Means:
    """A model whose embedding is the mean over frames."""

    speakers = ["anna", "bert"]

    def embed_features(self, feats):
        return feats.mean(1)

    def parameters(self):
        yield torch.zeros(1)


@pytest.fixture
def subject(monkeypatch):
    """Two utterances with the enrolments (1, 0) and (0, 1)."""
    monkeypatch.setattr(
        "imlkd_brain.explanation.scores.embed_enrolments",
        lambda task, model: torch.eye(2),
    )
    utterances = [SimpleNamespace(speaker=s) for s in Means.speakers]
    trials = [(0, 0, True), (1, 0, False), (1, 1, True)]
    task = Task("verification", utterances, utterances, [0, 1], trials)
    return Subject("teacher", Means(), task)


def test_deletion_and_insertion_of_frames_in_closed_form(subject):
    # Two frames: the first is for speaker anna, the second for bert.
    feats = torch.tensor([[3.0, -3.0], [-3.0, 3.0]])
    attribution = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    map_set = MapSet(
        [feats, feats], [], {"m": [attribution, attribution]}, *[None] * 4
    )
    curves = compute_curves(subject, map_set, "m", plan_of())
    # The mean of each band over the frames is zero, so it is left out.
    assert [
        (curve.unit, curve.direction, curve.baseline, curve.metric)
        for curve in curves
    ] == [
        ("frames", direction, "zero", metric)
        for direction in ("deletion", "insertion")
        for metric in ("score", "eer")
    ]
    half = 0.5**0.5
    anna_without_first, anna_with_first = (1 - half) / 2, (1 + half) / 2
    deletion, _, insertion, trials = (curve.values for curve in curves)
    # Both ends are the mean (0, 0): a cosine of 0.
    for values, middle in (
        (deletion[0], anna_without_first),
        (insertion[0], anna_with_first),
    ):
        expected = torch.tensor([0.5, middle, 0.5])
        assert torch.allclose(values, expected, atol=1e-6)
    expected = torch.tensor([[0, half, 0], [0, -half, 0], [0, -half, 0]])
    assert torch.allclose(trials, expected, atol=1e-6)


def test_without_trials_there_is_no_eer(subject):
    subject.task.trials = []
    metrics = metrics_of(subject, torch.randn(2, 3, 2), 30.0)
    assert list(metrics) == ["score"]


def test_the_band_mean_differs_from_zero_where_features_have_a_mean():
    feats = torch.randn(50, 4)
    assert baselines_differ([feats + 1], "band_mean")
    assert not baselines_differ([feats - feats.mean(0)], "band_mean")
    assert baselines_differ([feats - feats.mean(0)], "blur")
    assert not baselines_differ([feats + 1], "zero")
