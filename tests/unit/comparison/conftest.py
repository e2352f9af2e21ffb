"""Comparisons that several test files of this folder share."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import compare
import pytest
from helpers.runs import change, finish
from synthetic import ROOT, TRAIN_SPEAKERS, write_corpus, write_model

from imlkd_brain.comparison.plan import (
    Run,
    list_runs,
    plan,
    read_pairs,
    run_folder,
)
from imlkd_brain.comparison.scores import Scoring
from imlkd_brain.comparison.trainings import Recipe

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


@dataclass
class Comparison:
    """What a YAML says, and the runs and trainings that come of it."""

    output: Path
    data: Path
    recipe: Recipe
    pairs: dict
    methods: dict
    teacher_overrides: dict
    student_overrides: dict
    folds: list

    def runs(self):
        return list_runs(self.output, self.data, self.read_pairs(), self.folds)

    def read_pairs(self):
        return read_pairs(
            self.pairs, self.teacher_overrides, self.student_overrides
        )

    def trainings(self):
        return plan(self.runs(), self.read_pairs(), self.methods, self.recipe)


@pytest.fixture
def comparison(tmp_path):
    """Two runs of a teacher and two students; nothing is trained."""
    data = tmp_path / "data"
    (data / "trials").mkdir(parents=True)
    for fold in (0, 1):
        for part in ("dev", "test"):
            path = data / "trials" / f"fold{fold}_{part}.txt"
            path.write_text("1 a b\n")
    return Comparison(
        output=tmp_path / "out",
        data=data,
        recipe=Recipe(
            script=Path(compare.__file__).with_name("train_kd.py"),
            teacher_yaml="teacher.yaml",
            student_yaml="student.yaml",
            data_folder=str(data),
            device="cpu",
            teacher_cache=True,
        ),
        pairs={"p": {"teacher": {"lr": 0.1}, "student": {"lr": 0.2}}},
        methods={
            "scratch": {"method": "scratch"},
            "long": {"method": "iml_kd", "number_of_epochs": 9},
        },
        teacher_overrides={"number_of_epochs": 3},
        student_overrides={"number_of_epochs": 4},
        folds=list(RUNS),
    )


@pytest.fixture
def trained(comparison, tmp_path, monkeypatch):
    """The comparison as finished, by YAMLs of its own."""
    monkeypatch.setattr(
        "imlkd_brain.trained_with.model_identity", lambda _: "before"
    )
    yaml = ROOT / "hparams" / "minivox" / "iml_kd.yaml"
    for part in ("teacher", "student"):
        (tmp_path / f"{part}.yaml").write_text(f"base: {yaml}\n")
    comparison.recipe = replace(
        comparison.recipe,
        teacher_yaml=str(tmp_path / "teacher.yaml"),
        student_yaml=str(tmp_path / "student.yaml"),
    )
    for training in comparison.trainings():
        finish(training)
    return comparison


@dataclass
class Finished:
    """Runs that are trained, and how they are scored."""

    runs: list
    scoring: Scoring
    models = ("teacher", "scratch")


@pytest.fixture
def finished(tmp_path):
    """Two runs of a teacher and a student, and a list over four speakers."""
    data = write_corpus(tmp_path / "data")
    names = [f"{s}/s{i}/1.wav" for s in TRAIN_SPEAKERS for i in range(2)]
    lines = [
        f"{int(a[:4] == b[:4])} {a} {b}\n"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    trials = data / "trials.txt"
    trials.write_text("".join(lines))
    model = write_model(tmp_path / "model", speakers=["nora", "otto"])
    runs = []
    for run in RUNS:
        place = run_folder(tmp_path / "out", "p", **run)
        for method, seed in (("teacher", 0), ("scratch", run["seed"])):
            shutil.copytree(model, place / method / "inference")
            change(place / method, seed)
            (place / method / "train_stats.csv").write_text(
                "epoch,updates,train seconds,valid EER\n"
                "1,10,60,20\n2,20,30,15\n"
            )
        runs.append(
            Run(
                "p",
                **run,
                folder=place,
                teacher_folder=place / "teacher",
                dev_trials=trials,
                test_trials=trials,
                scored_trials=trials,
            )
        )
    scoring = Scoring(str(data), {"full": None, "0.3s": 0.3}, 1, 50)
    return Finished(runs, scoring)
