"""Unit tests of ``imlkd_brain.comparison.plan``."""

import json
from pathlib import Path

import compare
import pytest
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from imlkd_brain.comparison.plan import (
    check_keys,
    link_teachers,
    plan,
    run_folder,
)
from imlkd_brain.comparison.plan import job as plan_job
from imlkd_brain.errors import UserError
from imlkd_brain.settings import load_hyperparameters

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


def options(job):
    """A training's options, as its YAML will have them."""
    script, yaml, *rest = job["command"][1:]
    assert Path(script).name == "train_kd.py" and Path(script).is_file()
    file, run_opts, overrides = sb.parse_arguments([yaml, *rest])
    assert run_opts.noprogressbar and run_opts.device == "cpu"
    # HyperPyYAML puts a mapping into a mapping, anything else in its place.
    blank = "".join(
        f"{line.split(':')[0]}: {'{}' if ': {' in line else 'null'}\n"
        for line in overrides.splitlines()
    )
    return file, load_hyperpyyaml(blank, overrides)


def test_methods_of_a_run_differ_in_their_overrides_alone(
    hparams, monkeypatch, tmp_path
):
    # Wherever it is run from.
    monkeypatch.chdir(tmp_path)
    jobs = plan(hparams)
    assert len(jobs) == 2 * (1 + 2)
    assert len({job["folder"] for job in jobs}) == len(jobs)
    for run, (teacher, *students) in zip(
        RUNS, (jobs[:3], jobs[3:]), strict=True
    ):
        place = run_folder(hparams["output_folder"], "p", run)
        yaml, taught = options(teacher)
        assert yaml == "teacher.yaml" and teacher["depends"] is None
        assert taught == {
            "seed": run["seed"],
            "data_folder": hparams["data_folder"],
            "train_annotation": str(place / "csv" / "train.csv"),
            "valid_annotation": str(place / "csv" / "dev.csv"),
            "valid_trials": str(
                tmp_path / "data" / "trials" / f"fold{run['fold']}_dev.txt"
            ),
            "skip_prep": True,
            "number_of_epochs": 3,
            "lr": 0.1,
            "output_folder": str(place / "teacher"),
        }
        for name, job in zip(hparams["methods"], students, strict=True):
            yaml, student = options(job)
            assert yaml == "student.yaml"
            assert job["depends"] == teacher["folder"] == place / "teacher"
            assert job["folder"] == place / name
            assert student == {
                **taught,
                "number_of_epochs": 4,
                "lr": 0.2,
                "teacher_folder": str(place / "teacher"),
                "teacher_cache": str(place / "teacher_cache"),
                "output_folder": str(place / name),
                **hparams["methods"][name],
            }


def test_a_teacher_of_two_pairs_is_trained_once(hparams):
    hparams["pairs"]["q"] = {"student": {"lr": 0.3}, "teacher_of": "p"}
    jobs = plan(hparams)
    assert len(jobs) == 2 * (1 + 2 + 2)
    output = hparams["output_folder"]
    link_teachers(hparams)
    for run in RUNS:
        theirs = run_folder(output, "p", run) / "teacher"
        place = run_folder(output, "q", run)
        mine = [job for job in jobs if job["folder"].parent == place]
        assert [job["depends"] for job in mine] == [theirs, theirs]
        assert not (place / "teacher").exists()  # not trained yet
        theirs.mkdir(parents=True)
        assert (place / "teacher").samefile(theirs)
    link_teachers(hparams)
    # A teacher that was trained for this pair is not taken for the other's,
    # nor is a link to one that is still to be trained.
    (place / "teacher").unlink()
    (place / "teacher").mkdir()
    with pytest.raises(UserError, match="q.*has another teacher"):
        link_teachers(hparams)
    (place / "teacher").rmdir()
    (place / "teacher").symlink_to("elsewhere")
    with pytest.raises(UserError, match="q.*has another teacher"):
        link_teachers(hparams)


@pytest.mark.parametrize(
    "value",
    [
        [None, 2.0, 1.0],
        {"iml_kd": {"raw": {"embedding": 10.0}, "integrated": {}}},
        None,
        True,
        0.25,
        1e-8,
        1.5e20,
        -3,
        "iml_kd",
        "two words",
        "a: b # c",
        "null",
        "1e3",
        "a=b",
        "--odd",
        "größe 𝛼",
        "",
        Path("/some where/a=b"),
    ],
)
def test_options_survive_the_command_line(value):
    job = plan_job(
        {
            "recipe": "x.yaml",
            "device": "cpu",
            "train_script": Path(compare.__file__).with_name("train_kd.py"),
        },
        "recipe",
        Path("out"),
        {"first": value},
        {"second": value, "last": 1},
        None,
    )
    expected = str(value) if isinstance(value, Path) else value
    _, found = options(job)
    assert found == {"first": expected, "second": expected, "last": 1}
    assert type(found["first"]) is type(expected)


def test_a_run_of_other_options_is_not_counted_as_done(trained):
    compare.check_trained(plan(trained))
    # Another folder is another record; the same one must have the same.
    trained["methods"]["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError,
        match="long: .*number_of_epochs: 9 before, 5 now.*output_fold",
    ):
        compare.check_trained(plan(trained))
    trained["methods"]["long"]["number_of_epochs"] = 10
    with pytest.raises(UserError, match="number_of_epochs: 9 before, 10 now"):
        compare.check_trained(plan(trained))
    trained["methods"]["long"]["number_of_epochs"] = 9
    trained["teacher_overrides"] = {}
    with pytest.raises(
        UserError, match="teacher: .*number_of_epochs: 3 before, 4 now"
    ):
        compare.check_trained(plan(trained))
    trained["output_folder"] += "2"
    compare.check_trained(plan(trained))


def test_an_edited_training_yaml_is_seen(trained):
    path = Path(trained["train_student"])
    text = path.read_text()
    # What only says where and how to run, or is overridden, does not count.
    path.write_text(
        text.replace("num_workers: 0", "num_workers: 2")
        .replace("lr: 0.01 ", "lr: 0.05 ")
        .replace("seed: 1986", "seed: 5")
    )
    compare.check_trained(plan(trained))
    path.write_text(text.replace("margin: 0.2", "margin: 0.3"))
    with pytest.raises(
        UserError, match="scratch: .*margin: 0.2 before, 0.3 now"
    ):
        compare.check_trained(plan(trained))


def test_overrides_that_an_earlier_version_kept_are_understood(hparams):
    for job in plan(hparams):
        job["folder"].mkdir(parents=True)
        (job["folder"] / "overrides.json").write_text(
            json.dumps(job["overrides"])
        )
    compare.check_trained(plan(hparams))
    hparams["methods"]["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError, match="long: .*number_of_epochs 9 before, 5 now.*output_fold"
    ):
        compare.check_trained(plan(hparams))


def test_a_key_left_out_is_named(tmp_path):
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("output_folder: out\nmethods: {}\n")
    with pytest.raises(UserError, match="mine.yaml: .*pairs.* left out"):
        compare.main([str(yaml)])
    # The recipe's own have them all.
    for name in (
        "compare",
        "unseen",
        "small_student",
        "long",
        "tuning",
        "variants",
        "ablation",
    ):
        path = Path(compare.__file__).parent / f"hparams/minivox/{name}.yaml"
        _, whole, _, _ = load_hyperparameters([str(path)])
        check_keys(whole, path)


def test_a_missing_fold_is_said(hparams):
    hparams["runs"] = [{"fold": 7, "seed": 1}]
    with pytest.raises(UserError, match="fold7_dev.txt: missing.*`runs`"):
        plan(hparams)
