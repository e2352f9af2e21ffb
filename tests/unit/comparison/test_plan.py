"""Unit tests of ``imlkd_brain.comparison.plan``."""

import json
from dataclasses import replace
from pathlib import Path

import compare
import pytest
from helpers.runs import options

from imlkd_brain.comparison.keys import SCHEMA
from imlkd_brain.comparison.plan import (
    fold_list,
    link_teachers,
    list_runs,
    plan,
    preparation,
    read_pairs,
)
from imlkd_brain.comparison.trainings import (
    TEACHER,
)
from imlkd_brain.errors import UserError
from imlkd_brain.settings import read_command

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


def test_methods_of_a_run_differ_in_their_overrides_alone(
    comparison, monkeypatch, tmp_path
):
    # Wherever it is run from.
    monkeypatch.chdir(tmp_path)
    trainings = comparison.trainings()
    assert len(trainings) == 2 * (1 + 2)
    assert len({t.folder for t in trainings}) == len(trainings)
    for run, (teacher, *students) in zip(
        RUNS, (trainings[:3], trainings[3:]), strict=True
    ):
        place = (
            comparison.output / f"runs/p/fold{run['fold']}_seed{run['seed']}"
        )
        yaml, taught = options(teacher)
        assert yaml == "teacher.yaml" and teacher.waits_for is None
        assert teacher.name == TEACHER
        assert taught == {
            "seed": run["seed"],
            "data_folder": str(comparison.data),
            "train_annotation": str(place / "csv" / "train.csv"),
            "valid_annotation": str(place / "csv" / "dev.csv"),
            "valid_trials": str(
                comparison.data / "trials" / f"fold{run['fold']}_dev.txt"
            ),
            "skip_prep": True,
            "number_of_epochs": 3,
            "lr": 0.1,
            "output_folder": str(place / "teacher"),
        }
        for name, training in zip(comparison.methods, students, strict=True):
            yaml, student = options(training)
            assert yaml == "student.yaml" and training.name == name
            assert training.waits_for == teacher.folder == place / "teacher"
            assert training.folder == place / name
            assert student == {
                **taught,
                "number_of_epochs": 4,
                "lr": 0.2,
                "teacher_folder": str(place / "teacher"),
                "teacher_cache": str(place / "teacher_cache"),
                "output_folder": str(place / name),
                **comparison.methods[name],
            }


def test_a_public_teacher_is_not_trained_and_its_answers_are_shared(comparison):
    comparison.student_overrides["labelled_speakers"] = "few{fold}.txt"
    recipe = replace(
        comparison.recipe,
        teacher_cache=False,
        answers={"answers_variants": 2},
        answers_yaml="teach.yaml",
        answers_folder=comparison.output / "answers",
    )
    pairs = comparison.read_pairs()
    runs = list_runs(
        comparison.output,
        comparison.data,
        pairs,
        comparison.folds,
        public_teacher="campplus",
    )
    trainings = plan(runs, pairs, comparison.methods, recipe)
    assert [t.name for t in trainings] == ["scratch", "long"] * 2
    assert all(training.waits_for is None for training in trainings)
    for training in trainings:
        _, student = options(training)
        assert student["teacher_folder"] == "campplus"
        assert student["teacher_answers"] == str(comparison.output / "answers")
        fold = training.folder.parent.name[len("fold")]
        assert student["labelled_speakers"] == f"few{fold}.txt"
    link_teachers(runs)
    assert not comparison.output.exists()
    for run in runs:
        assert run.source(TEACHER) == "campplus"
        assert run.source("long") == run.folder / "long"
    yaml, *given = recipe.answers_command("campplus")
    assert yaml == "teach.yaml"
    given = dict(zip(given[::2], map(json.loads, given[1:-2:2]), strict=False))
    assert given["--teacher_folder"] == "campplus"
    assert given["--answers_variants"] == 2


def test_a_teacher_of_two_pairs_is_trained_once(comparison):
    comparison.pairs["q"] = {"student": {"lr": 0.3}, "teacher_of": "p"}
    trainings = comparison.trainings()
    assert len(trainings) == 2 * (1 + 2 + 2)
    runs = comparison.runs()
    link_teachers(runs)
    for theirs, mine in zip(runs[:2], runs[2:], strict=True):
        assert (theirs.pair, mine.pair) == ("p", "q")
        place = mine.folder
        own = [t for t in trainings if t.folder.parent == place]
        assert [t.waits_for for t in own] == [theirs.folder / "teacher"] * 2
        assert not (place / "teacher").exists()  # not trained yet
        (theirs.folder / "teacher").mkdir(parents=True)
        assert (place / "teacher").samefile(theirs.folder / "teacher")
    link_teachers(runs)
    # A teacher that was trained for this pair is not taken for the other's,
    # nor is a link to one that is still to be trained.
    (place / "teacher").unlink()
    (place / "teacher").mkdir()
    with pytest.raises(UserError, match="q.*has another teacher"):
        link_teachers(runs)
    (place / "teacher").rmdir()
    (place / "teacher").symlink_to("elsewhere")
    with pytest.raises(UserError, match="q.*has another teacher"):
        link_teachers(runs)


def test_a_pair_or_method_of_the_base_can_be_left_out():
    pairs = read_pairs({"p": None, "q": {"teacher_of": "p"}}, {"lr": 1}, {})
    assert list(pairs) == ["q"] and pairs["q"].teacher_of == "p"
    assert pairs["q"].teacher == {"lr": 1} and pairs["q"].student == {}


def test_folds_are_prepared_at_the_sampling_rate_of_the_trainings(comparison):
    run = comparison.runs()[1]
    pair = comparison.read_pairs()["p"]
    given = preparation(run, pair, comparison.data)
    assert "sample_rate" not in given and given["begun"] is False
    assert given["verification_pairs_file"].endswith("fold1_test.txt")
    assert given["dev_pairs_file"].endswith("fold1_dev.txt")
    pair.student["sample_rate"] = 8000
    assert preparation(run, pair, comparison.data)["sample_rate"] == 8000


def test_a_key_left_out_is_named(tmp_path):
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("output_folder: out\nmethods: {}\n")
    with pytest.raises(UserError, match="mine.yaml: the key .* is missing"):
        compare.main([str(yaml)])
    # The recipe's own have them all.
    for name in ("compare", "unseen", "tuning", "variants"):
        path = Path(compare.__file__).parent / f"hparams/minivox/{name}.yaml"
        read_command([str(path)], SCHEMA)


def test_a_missing_list_is_said_with_the_way_out(comparison, tmp_path):
    with pytest.raises(
        UserError, match="fold7_dev.txt: no such.*folds 0, 1, .*`runs`"
    ):
        fold_list(comparison.data, 7, "dev")
    # Nothing says which corpus was meant.
    with pytest.raises(UserError, match="minivox .*speechocean762 ") as raised:
        fold_list(tmp_path / "elsewhere", 0, "test")
    assert "`data_folder`" in str(raised.value)
    with pytest.raises(UserError, match="odd.txt: .*`test_trials`"):
        list_runs("out", comparison.data, {}, RUNS, tmp_path / "odd.txt")


def test_the_old_null_duration_gets_a_sentence(tmp_path):
    yaml = tmp_path / "mine.yaml"
    base = Path(compare.__file__).parent / "hparams/minivox/compare.yaml"
    yaml.write_text(
        f"base: {base}\noutput_folder: {tmp_path}\ndurations: [null, 1.0]\n"
    )
    with pytest.raises(
        UserError, match=r"durations\[0\] is null, but must be full or"
    ):
        compare.main([str(yaml)])
