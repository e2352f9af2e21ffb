"""The Brain where segments are cut from a share of the batch's chunks."""

from functools import partial

import pytest
import torch
from helpers.brains import fit, spy
from helpers.states import copy_of, same
from synthetic import TRAIN_SPEAKERS

from imlkd_brain.distillation import parts
from imlkd_brain.distillation.guidance import Guidance, Outputs, View
from imlkd_brain.distillation.integrated_inputs import IntegratedInputs
from imlkd_brain.distillation.teacher import load_teacher
from speechbrain.core import Stage

MIXED = {"integrated": {"decoupled": 1.0, "relation": 2.0}}


@pytest.fixture
def first_batch(make):
    """``first_batch(method, **overrides)``: Brain, batch and its outputs."""

    def forward(method, **overrides):
        brain = make(method, **overrides)
        brain.on_fit_start()
        brain.on_stage_start(Stage.TRAIN, 1)
        options = brain.hparams.train_dataloader_options
        loader = brain.make_dataloader(brain.data[0], Stage.TRAIN, **options)
        batch = next(iter(loader))
        brain.modules.train()
        return brain, batch, brain.compute_forward(batch, Stage.TRAIN)

    return forward


@pytest.mark.parametrize(
    "method", ["iml_kd", "iml_kd_plus", "segments_kd", "mixed"]
)
def test_the_objective_is_that_of_the_rows_by_hand(
    first_batch, teacher_folder, tmp_path, method
):
    options = {"segment_share": 0.5, "batchnorm": "running", "eta": 0.7}
    if method == "mixed":
        # With and without labels; two terms, of which one needs labels
        path = tmp_path / "labelled.txt"
        path.write_text("\n".join(TRAIN_SPEAKERS[:3]) + "\n")
        options |= {
            "labelled_speakers": str(path),
            "teacher": load_teacher(teacher_folder, TRAIN_SPEAKERS[:3]),
            "attribution_target": "own_embedding",
            "methods": {method: MIXED},
        }
    brain, batch, predictions = first_batch(method, **options)
    loss = brain.compute_objectives(predictions, batch, Stage.TRAIN)

    objective, guidance = brain.hparams.objective, brain.guidance
    rows = parts.draw_rows(4, 0.5, brain._step_seed())
    assert len(rows) == 2
    target = batch.spk_id_encoded.data.squeeze(1)
    labelled = [i for i in range(4) if target[i] >= 0]
    raw = predictions["raw"]
    assert len(raw.student) == 4
    expected = brain._speaker_loss(raw.student, target, torch.tensor(labelled))

    feats = brain.modules.mean_var_norm(
        brain.modules.compute_features(batch.sig.data), batch.sig.lengths
    )
    view = View(batch.sig.data[rows], feats[rows], target[rows])
    segments = guidance.of_segments(
        view, brain._seeds(), integrated=objective.integrates
    )
    given = segments.student if objective.integrates else segments.plain
    on_rows = guidance.answer(feats[rows])
    if objective.needs("integrated"):
        on_rows = guidance.of_integrated(segments)
    student = brain._on_segments(given, on_rows, None)
    outputs = {
        "raw": Outputs(
            raw.student, raw.student_embeddings, *guidance.answer(feats)
        ),
        **dict.fromkeys(("integrated", "cross", "segment"), student),
    }
    within = torch.tensor([i for i, t in enumerate(target[rows]) if t >= 0])
    for name, weight in objective.weights.items():
        branch, term = name.split("/")
        whole = branch == "raw"
        value = objective.branch_terms(
            branch,
            outputs[branch].scaled(30.0),
            target if whole else target[rows],
            labelled=torch.tensor(labelled) if whole else within.long(),
        )[name]
        expected = expected + 0.7 * weight * value
    assert objective.weights
    # The same numbers, added up in batches of other sizes
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share, rows", [(1.0, 4), (0.5, 2)])
def test_attribution_and_the_second_pass_have_the_share_of_the_rows(
    first_batch, monkeypatch, share, rows
):
    attributed = spy(monkeypatch, IntegratedInputs, "__call__")
    brain, _, predictions = first_batch("iml_kd", segment_share=share)
    ((_, logits, feats, target, *_), _, _) = attributed[0]
    assert len(feats) == len(target) == rows
    sizes = [
        len(value)
        for value in vars(predictions["integrated"]).values()
        if value is not None
    ]
    assert sizes == [rows] * 4
    assert len(predictions["raw"].student) == 4


def test_a_teacher_of_segments_alone_is_asked_about_them_alone(
    first_batch, monkeypatch
):
    """A method with no term on whole chunks, but with the teacher on them."""
    asked = spy(monkeypatch, Guidance, "answer")
    methods = {"far": {"segment": {"embedding": 1.0}}}
    first_batch("far", methods=methods, segment_share=0.5)
    assert [len(feats) for (_, feats, *_), _, _ in asked] == [2]


def test_a_share_of_one_trains_the_same_weights_as_none(make, monkeypatch):
    """Down to the last bit, whatever would be drawn."""
    monkeypatch.setattr(parts, "draw_rows", None)
    one, other = (
        copy_of(fit(make("iml_kd_plus", **given)).modules)
        for given in ({}, {"segment_share": 1.0})
    )
    assert same(one, other)
    monkeypatch.setattr(parts, "draw_rows", partial(_last, 2))
    half = fit(make("iml_kd_plus", segment_share=0.5)).modules
    assert not same(one, copy_of(half))


def _last(n_drawn, n_rows, share, seed):
    """The last rows, instead of drawn ones."""
    return list(range(n_rows))[-n_drawn:]
