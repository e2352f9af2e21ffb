"""decision.json goes with one model, and is checked."""

import json
import math

import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.decision import (
    DECISION_FILE,
    Decision,
    fingerprint,
    read_decision,
    write_decision,
)
from imlkd_brain.models.folder import load_speaker_model


@pytest.fixture
def model(tmp_path):
    write_model(tmp_path / "a")
    return load_speaker_model(tmp_path / "a")


@pytest.fixture
def folder(tmp_path, model):
    """A model's folder with its decision."""
    folder = tmp_path / "a" / "inference"
    write_decision(
        folder,
        Decision(0.4, 8.0, -3.0, 0.1, 9, "dev", "full", fingerprint(model)),
    )
    return folder


def test_the_decision_is_read_as_it_was_written(folder, model):
    decision = read_decision(folder, model)
    assert decision.threshold == 0.4 and decision.list == "dev"
    assert decision.accepts(0.41) and not decision.accepts(0.4)
    # Bayes: odds are the prior's times exp(8 * 0.5 - 3).
    odds = math.exp(1) * 0.2 / 0.8
    found = decision.probability(0.5, prior=0.2)
    assert found == pytest.approx(odds / (1 + odds), rel=1e-12)
    assert Decision(0, 1e9, 0, 0, 0, "", "", "").probability(-1.0) == 0.0


def test_a_model_without_one(folder, model):
    (folder / DECISION_FILE).unlink()
    assert read_decision(folder, model) is None


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"slope": -1.0},
        {"offset": None},
        None,
    ],
)
def test_a_damaged_one_is_refused(folder, model, change):
    path = folder / DECISION_FILE
    if change is None:
        path.write_text("{")
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match="not a readable decision.*--decision"):
        read_decision(folder, model)


def test_one_of_another_model_is_refused(folder, tmp_path):
    write_model(tmp_path / "b", seed=1)
    other = load_speaker_model(tmp_path / "b")
    with pytest.raises(UserError, match="another model"):
        read_decision(folder, other)


def test_the_fingerprint_is_of_what_makes_embeddings(model, tmp_path):
    before = fingerprint(model)
    model.classifier = None
    assert fingerprint(model) == before
    with torch.no_grad():
        next(model.embedding_model.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(model) != before
