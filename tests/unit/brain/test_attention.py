"""The Brain: attention drawn to the teacher's time weights, plain segments."""

import pytest
import torch
from helpers.brains import fit, spy, stats_of
from helpers.front_ends import other_teacher, taught_by
from helpers.states import copy_of, same

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.distillation.integrated_inputs import IntegratedInputs
from imlkd_brain.errors import UserError
from speechbrain.lobes.models.Xvector import Xvector

ON_ALL = {
    "on_all": {
        "integrated": {"attention": 0.5, "embedding": 1.0},
        "cross": {"attention": 0.5},
        "segment": {"attention": 0.5, "embedding": 1.0},
    }
}


def test_segments_are_plain_whatever_the_mode_is(make, monkeypatch):
    segments = spy(monkeypatch, Guidance, "of_segments")
    shaped = spy(monkeypatch, IntegratedInputs, "__call__")
    brain = make("iml_kd_attention", mode="mask", measure_interval=1)
    seen = spy(monkeypatch, type(brain), "_student")
    fit(brain)
    assert segments and not shaped
    inputs = [args[1] for args, _, _ in seen]
    for _, _, made in segments:
        assert made.student is None and made.teacher is None
        assert any(made.plain is feats for feats in inputs)
        # Mean-normalised, as every segment; float32 of features of order 10.
        assert made.plain.mean(1).abs().max() < 1e-4
    row = stats_of(brain)
    for name in ("raw/embedding", "segment/embedding", "segment/attention"):
        assert float(row[f"train {name}"]) > 0
        assert 0 < float(row[f"train {name} gradient_share"]) < 1
    assert abs(float(row["train completeness_gap"])) > 0


def test_weights_are_those_of_the_attribution(make, teacher, monkeypatch):
    segments = spy(monkeypatch, Guidance, "of_segments")
    options = {"rule": "gauss_legendre", "n_steps": 3, "max_weight": 2.0}
    fit(make("iml_kd_attention", **options))
    for (_, view, _), _, made in segments:
        attribution, _ = integrated_gradients(
            teacher.cosines,
            made.plain,
            view.target,
            rule="gauss_legendre",
            n_steps=3,
        )
        saliency = attribution.abs().sum(2)
        expected = saliency / saliency.mean(1, keepdim=True)
        torch.testing.assert_close(
            made.weights, expected.clamp(max=2.0), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("mode", ["time_gate", "gate", "identity"])
def test_one_attribution_serves_all_branches(make, monkeypatch, mode):
    attributed = spy(monkeypatch, IntegratedInputs, "_attribute")
    segments = spy(monkeypatch, Guidance, "of_segments")
    brain = make("on_all", mode=mode, methods=ON_ALL)
    fit(brain)
    assert len(attributed) == len(segments) == 2
    for _, _, made in segments:
        assert same({"": made.student}, {"": made.plain}) == (
            mode == "identity"
        )
        assert made.weights.shape == made.plain.shape[:2]
    row = stats_of(brain)
    for branch in ON_ALL["on_all"]:
        assert float(row[f"train {branch}/attention"]) > 0


def test_segments_without_attention_ask_for_no_attribution(make, monkeypatch):
    attributed = spy(monkeypatch, IntegratedInputs, "_attribute")
    methods = {"short": {"segment": {"embedding": 1.0, "relation": 1.0}}}
    fit(make("short", methods=methods))
    assert not attributed


@pytest.mark.parametrize("name", ["half the frame rate", "8 kHz"])
def test_weights_of_other_features_are_carried_over(make, monkeypatch, name):
    segments = spy(monkeypatch, Guidance, "of_segments")
    teacher = other_teacher(name)
    # Single mel bands do not carry over, time weights do.
    brain = taught_by(make, "iml_kd_attention", teacher, mode="gate")
    before = copy_of(brain.modules.embedding_model)
    fit(brain)
    assert not same(before, copy_of(brain.modules.embedding_model))
    for _, _, made in segments:
        assert made.weights.shape == made.plain.shape[:2]
        own = made.teacher_weights
        torch.testing.assert_close(made.weights.mean(1), own.mean(1))


@pytest.mark.parametrize("own_features", [False, True])
def test_the_utterances_own_embedding_needs_no_classes(
    make, monkeypatch, teacher, own_features
):
    options = {"attribution_target": "own_embedding"}
    chunks = spy(monkeypatch, Guidance, "answer")
    if own_features:
        teacher = other_teacher("40 mels")
    brain = taught_by(make, "iml_kd_attention", teacher, **options)
    # A teacher without classes.
    monkeypatch.setattr(
        type(teacher), "classify", lambda self, e: e.new_zeros(len(e), 0)
    )
    segments = spy(monkeypatch, Guidance, "of_segments")
    fit(brain)
    # The chunk is embedded once for its answer and for the attribution.
    assert len(chunks) == len(segments) == 2
    for (_, view, _), _, made in segments:
        feats = made.segment if own_features else made.plain
        weights = made.teacher_weights if own_features else made.weights
        _, own = view.answer

        def cosine(points, own=own):
            """Of each segment to its own chunk, nobody else's."""
            embedded = teacher.embed_features(points)
            # Once, and once more for the baseline of the gap.
            own = own.repeat(len(points) // len(own), 1)
            return torch.nn.functional.cosine_similarity(embedded, own)[:, None]

        attribution, gap = integrated_gradients(
            cosine, feats, torch.zeros(len(feats), dtype=torch.long)
        )
        saliency = attribution.abs().sum(2)
        expected = saliency / saliency.mean(1, keepdim=True)
        torch.testing.assert_close(
            weights, expected.clamp(max=3.0), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(made.gap, gap, rtol=1e-4, atol=1e-5)


def test_a_student_without_attention_is_said_before_training(make):
    def other(hparams):
        hparams["embedding_model"] = Xvector(in_channels=20, lin_neurons=8)

    with pytest.raises(UserError, match=r"\(Xvector\) has none"):
        make("iml_kd_attention", edit=other)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_eta_falls_over_the_training_without_counting_updates(make, schedule):
    brain = make("relation_kd", eta_schedule=schedule, number_of_epochs=2)
    objective = brain.hparams.objective
    # 8 utterances in batches of 4, twice.
    assert objective.training_steps == 4
    assert objective.eta_at(0) == 1 and objective.eta_at(4) == 0
    assert objective.eta_at(2) == pytest.approx(0.5)
    fit(brain)
    assert brain.optimizer_step == 4
