"""Unit tests of ``imlkd_brain.comparison.checks``."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic import HPARAMS

from imlkd_brain.comparison.checks import (
    check_baselines,
    check_options,
    check_scored,
    check_trained,
    check_unseen,
)
from imlkd_brain.comparison.keys import SCHEMA
from imlkd_brain.comparison.trainings import TEACHER, Training
from imlkd_brain.errors import UserError
from imlkd_brain.settings import load_hyperparameters


def test_a_run_of_other_options_is_not_counted_as_done(trained, tmp_path):
    check_trained(trained.trainings())
    # Another folder is another record; the same one must have the same.
    trained.methods["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError,
        match="long: .*number_of_epochs: 9 before, 5 now.*output_fold",
    ):
        check_trained(trained.trainings())
    trained.methods["long"]["number_of_epochs"] = 10
    with pytest.raises(UserError, match="number_of_epochs: 9 before, 10 now"):
        check_trained(trained.trainings())
    trained.methods["long"]["number_of_epochs"] = 9
    trained.teacher_overrides = {}
    with pytest.raises(
        UserError, match="teacher: .*number_of_epochs: 3 before, 4 now"
    ):
        check_trained(trained.trainings())
    trained.output = tmp_path / "out2"
    check_trained(trained.trainings())


def test_an_edited_training_yaml_is_seen(trained):
    path = Path(trained.recipe.student_yaml)
    text = path.read_text()
    # What only says where and how to run, or is overridden, does not count.
    path.write_text(f"{text}num_workers: 2\nlr: 0.05\nseed: 5\n")
    check_trained(trained.trainings())
    path.write_text(f"{text}margin: 0.3\n")
    with pytest.raises(
        UserError, match="scratch: .*margin: 0.2 before, 0.3 now"
    ):
        check_trained(trained.trainings())


def test_overrides_that_an_earlier_version_kept_are_understood(comparison):
    for training in comparison.trainings():
        training.folder.mkdir(parents=True)
        (training.folder / "overrides.json").write_text(
            json.dumps(training.overrides)
        )
    check_trained(comparison.trainings())
    comparison.methods["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError, match="long: .*number_of_epochs 9 before, 5 now.*output_fold"
    ):
        check_trained(comparison.trainings())


def test_a_student_of_another_teacher_is_refused(trained, monkeypatch):
    trainings = trained.trainings()
    check_trained(trainings)
    monkeypatch.setattr(
        "imlkd_brain.trained_with.model_identity", lambda _: "after"
    )
    with pytest.raises(
        UserError,
        match="scratch: .*teacher: content before before, content aft",
    ):
        check_trained(trainings)


def test_another_choice_of_the_checkpoint_is_another_model(trained):
    """`export` changes the model of a training that is done."""
    trained.student_overrides = {"export": "best"}
    with pytest.raises(UserError, match="export: last before, best now"):
        check_trained(trained.trainings())


def test_trials_without_audio_are_refused_before_the_trainings(finished):
    check_scored(finished.runs, finished.scoring.data_folder)
    with pytest.raises(UserError, match="no_corpus: there is no such folder"):
        check_scored(finished.runs, "no_corpus")


def test_a_training_speaker_in_the_trials_is_refused(finished):
    for run, speakers in zip(finished.runs, (["nora"], ["otto"]), strict=True):
        run.annotations.mkdir()
        pd.DataFrame({"spk_id": speakers}).to_csv(run.annotations / "train.csv")
    folder = finished.scoring.data_folder
    check_unseen(finished.runs, folder)
    speaker = Path(folder, "trials.txt").read_text().split()[1].split("/")[0]
    pd.DataFrame({"spk_id": ["nora", speaker]}).to_csv(
        finished.runs[1].annotations / "train.csv"
    )
    with pytest.raises(UserError, match=f"{speaker} is a training speaker of"):
        check_unseen(finished.runs, folder)


def test_a_baseline_without_a_model_is_named_before_hours_of_training():
    check_baselines(["a", "teacher"], ["teacher", "a", "b"])
    with pytest.raises(UserError, match="baselines: 'c' is no.*teacher, a"):
        check_baselines(["a", "c"], ["teacher", "a"])


COMPARISONS = [
    path
    for path in sorted(HPARAMS.parent.rglob("*.yaml"))
    # Every comparison has a report of its own.
    if re.search("^report_folder:", path.read_text(), re.M)
]


@pytest.mark.parametrize(
    "path", COMPARISONS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_comparison_has_the_models_of_its_baselines(path):
    comparison = load_hyperparameters([str(path)], SCHEMA)[1]
    methods = [k for k, v in comparison["methods"].items() if v is not None]
    check_baselines(comparison["baselines"], [TEACHER, *methods])


def test_overrides_are_checked_before_the_first_training():
    command = ["python", "train_kd.py", str(HPARAMS / "iml_kd.yaml")]
    good = Training("good", Path("a"), [*command, "--eta", "2.0"])
    check_options([good])
    bad = Training(
        "mine", Path("b"), [*command, "--eta", "-1"], overrides={"eta": -1}
    )
    with pytest.raises(UserError, match="^mine: eta is -1"):
        check_options([good, good, bad])
