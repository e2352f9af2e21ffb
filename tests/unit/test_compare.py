"""Unit tests of ``imlkd_brain.compare``."""

import compare
import pytest

from imlkd_brain.comparison.plan import plan
from imlkd_brain.errors import UserError


def test_a_student_of_another_teacher_is_refused(trained, monkeypatch):
    jobs = plan(trained)
    compare.check_trained(jobs)
    monkeypatch.setattr(
        "imlkd_brain.trained_with.model_identity", lambda _: "after"
    )
    with pytest.raises(
        UserError,
        match="scratch: .*teacher: content before before, content aft",
    ):
        compare.check_trained(jobs)


def test_another_choice_of_the_checkpoint_is_another_model(trained):
    """`export` changes the model of a training that is done."""
    trained["student_overrides"] = {"export": "best"}
    with pytest.raises(UserError, match="export: last before, best now"):
        compare.check_trained(plan(trained))


def test_folds_are_prepared_at_the_sampling_rate_of_the_trainings(
    hparams, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        "compare.prepare_voxceleb", lambda **options: asked.append(options)
    )
    monkeypatch.setattr("compare.fold_list", lambda *_: "list.txt")
    monkeypatch.setattr(
        "imlkd_brain.comparison.plan.fold_list", lambda *_: "list.txt"
    )
    compare.prepare_folds(hparams)
    assert asked and not any("sample_rate" in options for options in asked)
    asked.clear()
    hparams["student_overrides"] = {"sample_rate": 8000}
    compare.prepare_folds(hparams)
    assert {options["sample_rate"] for options in asked} == {8000}
