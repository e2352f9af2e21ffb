"""Unit tests of ``imlkd_brain.verification.inputs``."""

import pytest
from helpers.verification import Model
from synthetic import HPARAMS

from imlkd_brain.errors import UserError
from imlkd_brain.settings import load_hyperparameters
from imlkd_brain.verification.inputs import (
    open_cohort,
    open_dev_list,
    open_models,
)
from imlkd_brain.verification.scorer import BackEnd


def test_a_model_without_a_folder_is_left_out(monkeypatch):
    """MiniVox's YAML drops the model `student` of its base so."""
    monkeypatch.setattr(
        "imlkd_brain.verification.inputs.load_speaker_model",
        lambda folder, device: Model(),
    )
    _, hparams, *_ = load_hyperparameters([str(HPARAMS / "eval.yaml")])
    opened = open_models(hparams["models"], "cpu")
    assert list(opened) == ["teacher", "iml_kd", "scratch"]
    with pytest.raises(UserError, match="no model to verify"):
        open_models({"student": None}, "cpu")


def test_minivox_is_evaluated_as_voxceleb_but_for_these_keys():
    (_, own, *_), (_, base, *_) = (
        load_hyperparameters([str(path), "--data_folder=d"])
        for path in (HPARAMS / "eval.yaml", HPARAMS.parent / "eval.yaml")
    )
    assert own.keys() == base.keys()
    assert {key for key in own if own[key] != base[key]} == {
        "output_folder",
        "save_folder",
        "embedding_store",
        "models",
        "trial_lists",
        "decision_list",
        "store_decision",
        "max_batch_seconds",
        "readers",
        "threads",
        "bootstrap_samples",
        "group_separator",
    }
    assert own["embedding_store"].startswith("results/minivox/verification")


def test_no_cohort_is_read_where_none_is_used():
    assert open_cohort(BackEnd(), "none.csv", "none", 9, 0) == {}
    with pytest.raises(UserError, match="cohort_csv: .* need a cohort"):
        open_cohort(BackEnd(mean_subtraction=True), None, "none", 9, 0)


def test_missing_dev_trials_name_their_key(tmp_path):
    """A corpus of one's own has none, and the YAML of MiniVox asks for them."""
    assert open_dev_list("decision_list", None, tmp_path) is None
    says = "decision_list: trials/dev.txt: no such .*--decision_list null"
    with pytest.raises(UserError, match=says):
        open_dev_list("decision_list", "trials/dev.txt", tmp_path)
