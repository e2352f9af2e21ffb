"""Unit tests of ``imlkd_brain.explanation.scores``."""

from types import SimpleNamespace

import pytest
import torch
from synthetic import write_model, write_wav

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.scores import (
    Subject,
    enrolment_score,
    features_of,
    load_models,
)
from imlkd_brain.explanation.tasks import Task, Utterance
from imlkd_brain.models.folder import load_speaker_model


def test_an_enrolment_score_is_the_cosine_and_spares_the_enrolment():
    feats = torch.randn(5, 60, 16)
    enrolments = torch.randn(3, 16, requires_grad=True)
    score = enrolment_score(lambda x: x.mean(1), enrolments)
    expected = torch.nn.functional.cosine_similarity(
        feats.mean(1)[:, None], enrolments[None], dim=-1
    )
    scores = score(feats.requires_grad_())
    assert torch.allclose(scores, expected, atol=1e-6)
    scores.sum().backward()
    assert enrolments.grad is None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "one")
    return load_speaker_model(folder)


@pytest.fixture
def utterances(tmp_path):
    return [
        Utterance(
            name, write_wav(tmp_path / f"{name}.wav", seconds, pitch, 0), name
        )
        for name, seconds, pitch in (("anna", 0.6, 100), ("bert", 0.5, 180))
    ]


@pytest.mark.parametrize("ms", [10, 20, 30])
def test_an_enrolment_too_short_for_the_network_is_named(model, tmp_path, ms):
    """Leftovers of a voice activity detector."""
    path = str(write_wav(tmp_path / "short.wav", ms / 1000, 100, 0))
    short = [Utterance("short", path, "anna")]
    task = Task("verification", short, enrolments=short, own=[0])
    with pytest.raises(UserError, match=rf"short.wav: {ms} ms of speech are"):
        Subject("teacher", model, task)


def test_a_training_speaker_is_scored_by_its_own_column(model, utterances):
    subject = Subject("teacher", model, Task("identification", utterances))
    assert subject.enrolled is None
    assert [model.speakers[i] for i in subject.target] == ["anna", "bert"]
    features, places = features_of(subject, "full")
    assert places == [(0.0, 0.6), (0.0, 0.5)]
    (first, one), (second, other) = subject.batches(features, 1000)
    assert (first, second) == ([0], [1])
    for batch in (one, other):
        scores = batch.score(batch.feats)
        assert torch.equal(scores, model.cosines(batch.feats))
    assert torch.equal(torch.cat((one.target, other.target)), subject.target)


def test_a_lone_utterance_is_enrolled_with_the_mean_of_its_halves(
    model, utterances
):
    lone = Utterance("anna#halves", utterances[0].path, "anna")
    task = Task("verification", utterances[:1], [utterances[1], lone], [1])
    subject = Subject("teacher", model, task)
    features, _ = features_of(subject, "full")
    (_, batch), *_ = subject.batches(features, 1000)
    score = batch.score(batch.feats)[0]
    # Against itself as a whole it would be exactly 1.
    assert 0.3 < float(score[1]) < 1 - 1e-4
    assert score.shape == (2,) and batch.target.tolist() == [1]
    assert subject.enrolled.shape == (2, 8)


def test_models_of_two_sampling_rates_are_one_sentence(monkeypatch):
    monkeypatch.setattr(
        "imlkd_brain.explanation.scores.load_speaker_model",
        lambda source, device: SimpleNamespace(sample_rate=int(source)),
    )
    models = load_models({"a": "8000", "teacher": "8000", "b": None}, "cpu")
    assert list(models) == ["teacher", "a"]
    with pytest.raises(UserError, match=r"differ \(\[8000, 16000\] Hz\)"):
        load_models({"a": "8000", "teacher": "16000"}, "cpu")
