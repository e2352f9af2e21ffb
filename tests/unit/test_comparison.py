"""Comparisons: closed forms, planted differences, plans and their options."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import compare
import pandas as pd
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from synthetic import ROOT, TRAIN_SPEAKERS, write_corpus, write_model

import speechbrain as sb
from imlkd_brain import comparison, plots, trained_with
from imlkd_brain.comparison import (
    collect_runs,
    dev_table,
    read_curves,
    relative_differences,
    rewrite_report,
    run_folder,
    score_run,
    summarise,
    write_report,
)
from imlkd_brain.dataio import load_hyperparameters
from imlkd_brain.errors import UserError
from imlkd_brain.trained_with import TrainingRecord

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


def table(values):
    """Rows of a comparison from {(seed, method, duration): (eer, dcf)}."""
    return pd.DataFrame(
        {
            "pair": "p",
            "fold": 0,
            "seed": seed,
            "method": method,
            "duration": duration,
            "group": "all",
            "eer": eer,
            "min_dcf": dcf,
        }
        for (seed, method, duration), (eer, dcf) in values.items()
    )


# Statistics -------------------------------------------------------------


def test_differences_are_of_the_mean_and_the_pooled_figure_apart():
    values = {}
    for seed, level in ((1, 1.0), (2, 1.5), (3, 0.7)):
        for method, eers in (
            ("good", (8.0, 10.0, 18.0)),
            ("base", (11.0, 9.0, 12.0)),
        ):
            for duration, eer in zip(
                ("full", "2s", "pooled"), eers, strict=True
            ):
                values[seed, method, duration] = (level * eer, 0.5)
    rows = table(values)
    rows["fold"] = rows["seed"]

    def compared(duration, **options):
        found = relative_differences(
            rows, "p", ["good", "base"], ["base"], duration, **options
        )
        assert [d["method"] for d in found] == ["good"]
        return found[0]

    assert compared("mean")["relative"] == pytest.approx(-10)
    assert compared("pooled")["relative"] == pytest.approx(50)
    assert compared("full")["relative"] == pytest.approx(100 * (8 / 11 - 1))
    # The levels of the runs are shared, so that they cancel in the ratio.
    assert compared("mean")["high"] == pytest.approx(-10)
    wider = compared(
        "pooled",
        covariance={
            "methods": ["teacher", "base", "good"],
            "covariance": [[9, 9, 9], [9, 1, 0], [9, 0, 1]],
            "degrees": 9,
        },
    )
    assert wider["low"] < 45 < 50 < 55 < wider["high"]


def test_covariances_of_a_report_are_those_of_its_replicates():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(500, generator=generator, dtype=torch.float64)
    replicates = {
        ("p", run, method, duration): 10 + scale * shared
        for run in (0, 1)
        for method, scale in (("teacher", 1.0), ("m", 2.0))
        for duration in ("full", "2s", "pooled")
    }
    who = frozenset("abcde")
    found = comparison.speaker_covariances(replicates, [who, who], [0, 1])
    assert [f["duration"] for f in found] == ["mean", "pooled"]
    variance = 5 / 4 * float(shared.var())
    for entry in found:
        assert entry["methods"] == ["teacher", "m"] and entry["degrees"] == 4
        assert entry["covariance"][0] == pytest.approx([variance, 2 * variance])
        assert entry["covariance"][1] == pytest.approx(
            [2 * variance, 4 * variance]
        )


def test_summarise_by_hand():
    rows = table(
        {
            (1, "m", "full"): (1.0, 0.1),
            (1, "m", "2s"): (3.0, 0.3),
            (1, "m", "pooled"): (40.0, 0.8),
            (2, "m", "full"): (5.0, 0.5),
            (2, "m", "2s"): (11.0, 0.9),
        }
    )
    row = summarise(rows).loc[("p", "all", "m")]
    assert row["eer", "full", "mean"] == 3.0
    # Sample standard deviation of 1 and 5.
    assert row["eer", "full", "std"] == pytest.approx(8**0.5)
    # Per run first (2 and 8), then over the runs.
    assert row["eer", "mean", "mean"] == 5.0
    assert row["eer", "mean", "std"] == pytest.approx(18**0.5)
    assert row["min_dcf", "mean", "mean"] == pytest.approx(0.45)


def test_dev_table_by_hand():
    curves = pd.DataFrame(
        [
            ("p", "early", 0, 1, 10, 1.0, 1.0),
            ("p", "early", 0, 1, 20, 2.0, 8.0),
            ("p", "better", 0, 1, 10, 1.0, 4.0),
            ("p", "better", 0, 1, 20, 3.0, 6.0),
            ("p", "better", 0, 2, 10, 5.0, 2.0),
        ],
        columns=["pair", "method", "fold", "seed", "updates", "minutes", "eer"],
    )
    result = dev_table(curves)
    # By the last epoch, though the lowest of another is lower.
    assert result["method"].tolist() == ["better", "early"]
    assert result["eer"].tolist() == [4.0, 8.0]
    assert result["lowest"].tolist() == [3.0, 1.0]
    assert result["minutes"].tolist() == [4.0, 2.0]
    assert result["std"][0] == pytest.approx(8**0.5)


# From models to a report ------------------------------------------------


def change(folder, seed):
    """Give a model other weights."""
    path = folder / "inference" / "embedding_model.ckpt"
    state = torch.load(path)
    generator = torch.Generator().manual_seed(seed)
    weight = state["fc.conv.weight"]
    weight += 0.3 * torch.randn(weight.shape, generator=generator)
    torch.save(state, path)


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
    output = tmp_path / "out"
    model = write_model(tmp_path / "model", speakers=["nora", "otto"])
    for run in RUNS:
        place = run_folder(output, "p", run)
        for method, seed in (("teacher", 0), ("scratch", run["seed"])):
            shutil.copytree(model, place / method / "inference")
            change(place / method, seed)
            (place / method / "train_stats.csv").write_text(
                "epoch,updates,train seconds,valid EER\n"
                "1,10,60,20\n2,20,30,15\n"
            )
    hparams = {
        "pairs": {"p": {}},
        "runs": RUNS,
        "methods": {"scratch": {}},
        "baselines": ["scratch", "teacher"],
        "durations": [None, 0.3],
        "data_folder": str(data),
        "test_folder": str(data),
        "test_trials": None,
        "output_folder": str(output),
        "report_folder": str(tmp_path / "report"),
        "crop_seed": 1,
        "bootstrap_samples": 50,
        "plots": False,
    }
    return hparams, trials


def test_scores_are_kept_until_model_or_list_changes(finished, monkeypatch):
    hparams, trials = finished
    folder = run_folder(hparams["output_folder"], "p", RUNS[0])
    embedded = []
    embed = comparison.embed_utterances

    def counted(*args):
        embedded.append(args[0].name)
        return embed(*args)

    monkeypatch.setattr(comparison, "embed_utterances", counted)

    def score():
        embedded.clear()
        scores, located = score_run(
            folder,
            ["teacher", "scratch"],
            trials,
            hparams["test_folder"],
            [None, 0.3],
            1,
            "cpu",
        )
        assert all(
            len(values) == len(located.trials.labels)
            for by_duration in scores.values()
            for values in by_duration.values()
        )
        return scores

    first = score()
    assert {"teacher", "scratch"} == set(embedded)
    second = score()
    assert not embedded
    for method, by_duration in first.items():
        assert list(by_duration) == ["full", "0.3s"]
        for duration, values in by_duration.items():
            assert torch.equal(values, second[method][duration])
    change(folder / "scratch", 9)
    third = score()
    assert set(embedded) == {"scratch"}
    assert not torch.equal(first["scratch"]["full"], third["scratch"]["full"])
    # Other trials under the same name, as a corpus built anew leaves.
    lines = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(lines[::-1][3:]))
    fourth = score()
    torch.testing.assert_close(
        fourth["teacher"]["full"], first["teacher"]["full"].flip(0)[3:]
    )


def test_a_report_from_finished_runs(finished, monkeypatch):
    hparams, trials = finished
    rows, replicates, speakers = collect_runs(
        hparams, lambda run: trials, "cpu"
    )
    overall = rows[rows["group"] == "all"]
    pooled = overall["duration"] == "pooled"
    assert len(overall) == 2 * 2 * (2 + 1) and pooled.sum() == 2 * 2
    assert (overall["trials"] == 28 + 28 * pooled).all()
    assert replicates["p", 0, "scratch", "full"].shape == (50,)
    monkeypatch.setattr(
        comparison,
        "bootstrap_over_speakers",
        lambda *args, **kwargs: pytest.fail("drawn again"),
    )
    _, again, _ = collect_runs(hparams, lambda run: trials, "cpu")
    assert set(again) == set(replicates)
    for key, values in replicates.items():
        torch.testing.assert_close(again[key], values, equal_nan=True)
    hparams["bootstrap_samples"] = 51
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        collect_runs(hparams, lambda run: trials, "cpu")
    # One teacher and list in both runs: the same speakers are drawn for both.
    torch.testing.assert_close(
        replicates["p", 0, "teacher", "pooled"],
        replicates["p", 1, "teacher", "pooled"],
        equal_nan=True,  # a draw of one speaker has no nontarget trial
    )
    curves = read_curves(
        hparams["output_folder"], ["p"], RUNS, hparams["methods"]
    )
    assert curves["minutes"].tolist() == [1.0, 1.5] * 2
    assert curves["eer"].tolist() == [20, 15] * 2
    text = write_report(
        hparams, rows, replicates, speakers, curves, {"date": "2024-01-01"}
    )
    folder = Path(hparams["report_folder"])
    assert (folder / "table.md").read_text() == text
    results = json.loads((folder / "results.json").read_text())
    assert results["date"] == "2024-01-01"
    (figure,) = (
        entry
        for entry in results["summary"]
        if (entry["group"], entry["method"]) == ("all", "scratch")
        and (entry["figure"], entry["duration"]) == ("eer", "full")
    )
    chosen = overall[
        (overall["method"] == "scratch") & (overall["duration"] == "full")
    ]
    assert figure["mean"] == pytest.approx(chosen["eer"].mean())
    assert f"{figure['mean']:.2f} ± {figure['std']:.2f}" in text
    assert [d["duration"] for d in results["differences"]] == ["mean", "pooled"]
    for difference in results["differences"]:
        assert difference["baseline"] == "teacher"
        assert f"{difference['relative']:+.1f} (" in text
        assert (
            "over folds and their trainings and over test"
            in (difference["interval"])
        )
    # The report written anew from what it left, figures apart
    assert rewrite_report(folder) == text
    anew = json.loads((folder / "results.json").read_text())
    for before, after in zip(
        results.pop("differences"), anew.pop("differences"), strict=True
    ):
        for key, value in before.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-3)
            assert after[key] == value
    assert anew == results
    with pytest.raises(UserError, match="gone/runs.csv: no such file"):
        rewrite_report(folder / "gone")
    kept = pd.read_csv(folder / "runs.csv")
    assert kept["eer"].tolist() == pytest.approx(rows["eer"].tolist(), 1e-5)


@pytest.mark.parametrize("pairs", [["p"], ["p", "q"]])
def test_every_pair_has_its_figures(finished, pairs):
    image = pytest.importorskip("matplotlib.image")
    hparams, trials = finished
    root = Path(hparams["output_folder"], "runs")
    for pair in pairs[1:]:
        shutil.copytree(root / "p", root / pair)
    hparams = {**hparams, "plots": True, "pairs": dict.fromkeys(pairs, {})}
    rows, replicates, speakers = collect_runs(
        hparams, lambda run: trials, "cpu"
    )
    curves = read_curves(
        hparams["output_folder"], pairs, RUNS, hparams["methods"]
    )
    write_report(hparams, rows, replicates, speakers, curves, {})
    folder = Path(hparams["report_folder"])
    names = ["curves", "methods", "differences"]
    if len(pairs) > 1:
        names = [f"{name}_{pair}" for name in names for pair in pairs]
    assert sorted(names) == sorted(p.stem for p in folder.glob("*.png"))
    for name in names:
        assert image.imread(folder / f"{name}.png")[..., :3].std() > 0.02


@pytest.mark.parametrize("n_baselines, panels", [(1, 1), (4, 4)])
def test_a_panel_a_baseline_and_no_row_for_a_lone_one(
    n_baselines, panels, monkeypatch
):
    """Four panels take two rows of three, and two places stay empty."""
    drawn = []
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: drawn.append(figure)
    )
    methods = ["a", "b", "c", "d"]
    differences = [
        {"method": m, "baseline": b, "relative": 1.0, "low": 0.0, "high": 2.0}
        for m in methods
        for b in methods[:n_baselines]
        if m != b
    ]
    plots.difference_intervals(
        "x.png", differences, methods, methods[:n_baselines], "title"
    )
    axes = drawn[0].axes
    assert len(axes) == panels
    rows = [label.get_text() for label in axes[0].get_yticklabels()]
    assert rows == (["b", "c", "d"] if n_baselines == 1 else methods)
    # A mark and a line for each difference, and the line at zero
    assert [len(panel.lines) for panel in axes] == [7] * panels


def test_curves_of_an_unfinished_comparison(tmp_path):
    with pytest.raises(UserError, match="train_stats.csv: missing"):
        read_curves(tmp_path, ["p"], RUNS, ["m"])


# Plans ------------------------------------------------------------------


@pytest.fixture
def hparams(tmp_path):
    trials = tmp_path / "data" / "trials"
    trials.mkdir(parents=True)
    for fold in (0, 1):
        for part in ("dev", "test"):
            (trials / f"fold{fold}_{part}.txt").write_text("1 a b\n")
    return {
        "output_folder": str(tmp_path / "out"),
        "data_folder": str(tmp_path / "data"),
        "runs": RUNS,
        "train_teacher": "teacher.yaml",
        "train_student": "student.yaml",
        "teacher_overrides": {"number_of_epochs": 3},
        "student_overrides": {"number_of_epochs": 4},
        "pairs": {"p": {"teacher": {"lr": 0.1}, "student": {"lr": 0.2}}},
        "methods": {
            "scratch": {"method": "scratch"},
            "long": {"method": "iml_kd", "number_of_epochs": 9},
        },
        "device": "cpu",
        "teacher_cache": True,
    }


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
    jobs = compare.plan(hparams)
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
    jobs = compare.plan(hparams)
    assert len(jobs) == 2 * (1 + 2 + 2)
    output = hparams["output_folder"]
    compare.link_teachers(hparams)
    for run in RUNS:
        theirs = run_folder(output, "p", run) / "teacher"
        place = run_folder(output, "q", run)
        mine = [job for job in jobs if job["folder"].parent == place]
        assert [job["depends"] for job in mine] == [theirs, theirs]
        assert not (place / "teacher").exists()  # not trained yet
        theirs.mkdir(parents=True)
        assert (place / "teacher").samefile(theirs)
    compare.link_teachers(hparams)
    # A teacher that was trained for this pair is not taken for the other's,
    # nor is a link to one that is still to be trained.
    (place / "teacher").unlink()
    (place / "teacher").mkdir()
    with pytest.raises(UserError, match="q.*has another teacher"):
        compare.link_teachers(hparams)
    (place / "teacher").rmdir()
    (place / "teacher").symlink_to("elsewhere")
    with pytest.raises(UserError, match="q.*has another teacher"):
        compare.link_teachers(hparams)


def test_two_comparisons_do_not_train_the_same_run(hparams):
    jobs = compare.plan(hparams)
    place = run_folder(hparams["output_folder"], "p", RUNS[0])
    with compare.sole_use(jobs):
        with pytest.raises(UserError, match=f"{place}: .*another comparison"):
            with compare.sole_use(jobs[:1]):
                pass
    with compare.sole_use(jobs):
        pass


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
    job = compare.job(
        {"recipe": "x.yaml", "device": "cpu"},
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


def test_a_cache_goes_with_the_last_training_of_its_run(hparams):
    jobs = compare.plan(hparams)
    caches = [
        run_folder(hparams["output_folder"], "p", run) / "teacher_cache"
        for run in RUNS
    ]
    for cache in caches:
        (cache / "ab").mkdir(parents=True)
    compare.drop_caches(hparams, jobs[2:])
    assert all(cache.is_dir() for cache in caches)
    # What is left is of the second run.
    compare.drop_caches(hparams, jobs[-1:])
    assert [cache.is_dir() for cache in caches] == [False, True]
    compare.drop_caches(hparams, [])
    assert not caches[1].exists()


@pytest.fixture
def trained(hparams, tmp_path, monkeypatch):
    """Every run of a comparison as finished, by YAMLs of its own."""
    monkeypatch.setattr(trained_with, "model_identity", lambda _: "before")
    for part in ("teacher", "student"):
        path = tmp_path / f"{part}.yaml"
        yaml = ROOT / "hparams" / "minivox" / "iml_kd.yaml"
        path.write_text(yaml.read_text())
        hparams[f"train_{part}"] = str(path)
    for job in compare.plan(hparams):
        finish(job)
    return hparams


def finish(job):
    """A record of a training and what shows that it is finished."""
    model = job["folder"] / "inference" / "embedding_model.ckpt"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"")
    record = TrainingRecord.of_command(job["command"][2:])
    record.content["data"] = {"teacher": "before"}
    record.write(model.parent)


def test_a_run_of_other_options_is_not_counted_as_done(trained):
    compare.check_trained(compare.plan(trained))
    # Another folder is another record; the same one must have the same.
    trained["methods"]["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError,
        match="long: .*number_of_epochs: 9 before, 5 now.*output_fold",
    ):
        compare.check_trained(compare.plan(trained))
    trained["methods"]["long"]["number_of_epochs"] = 10
    with pytest.raises(UserError, match="number_of_epochs: 9 before, 10 now"):
        compare.check_trained(compare.plan(trained))
    trained["methods"]["long"]["number_of_epochs"] = 9
    trained["teacher_overrides"] = {}
    with pytest.raises(
        UserError, match="teacher: .*number_of_epochs: 3 before, 4 now"
    ):
        compare.check_trained(compare.plan(trained))
    trained["output_folder"] += "2"
    compare.check_trained(compare.plan(trained))


def test_an_edited_training_yaml_is_seen(trained):
    path = Path(trained["train_student"])
    text = path.read_text()
    # What only says where and how to run, or is overridden, does not count.
    path.write_text(
        text.replace("num_workers: 0", "num_workers: 2")
        .replace("lr: 0.01 ", "lr: 0.05 ")
        .replace("seed: 1986", "seed: 5")
    )
    compare.check_trained(compare.plan(trained))
    path.write_text(text.replace("margin: 0.2", "margin: 0.3"))
    with pytest.raises(
        UserError, match="scratch: .*margin: 0.2 before, 0.3 now"
    ):
        compare.check_trained(compare.plan(trained))


def test_a_student_of_another_teacher_is_refused(trained, monkeypatch):
    jobs = compare.plan(trained)
    compare.check_trained(jobs)
    monkeypatch.setattr(trained_with, "model_identity", lambda _: "after")
    with pytest.raises(
        UserError,
        match="scratch: .*teacher: content before before, content aft",
    ):
        compare.check_trained(jobs)


def test_overrides_that_an_earlier_version_kept_are_understood(hparams):
    for job in compare.plan(hparams):
        job["folder"].mkdir(parents=True)
        (job["folder"] / "overrides.json").write_text(
            json.dumps(job["overrides"])
        )
    compare.check_trained(compare.plan(hparams))
    hparams["methods"]["long"]["number_of_epochs"] = 5
    with pytest.raises(
        UserError, match="long: .*number_of_epochs 9 before, 5 now.*output_fold"
    ):
        compare.check_trained(compare.plan(hparams))


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
        compare.check_keys(whole, path)


def test_trainings_end_with_what_started_them(tmp_path):
    # As `nohup ... &` starts it: Ctrl-C is ignored, by the trainings as well.
    said = tmp_path / "pid"
    training = f"""
import os, time
open({str(said)!r}, "w").write(str(os.getpid()))
time.sleep(60)
"""
    job = {
        "folder": tmp_path / "out",
        "command": [sys.executable, "-c", training],
        "depends": None,
        "overrides": {},
    }
    script = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path.insert(0, {str(Path(compare.__file__).parent)!r})
from pathlib import Path, PosixPath
import compare
with compare.one_sentence_errors():
    compare.run_jobs({{"jobs": 1, "threads": 1, "pairs": {{}}}}, [{job!r}])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True
    )
    for _ in range(300):
        if said.is_file() and said.read_text():
            break
        time.sleep(0.1)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: what was finished is kept" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)


def test_folds_are_prepared_at_the_sampling_rate_of_the_trainings(
    hparams, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        compare, "prepare_voxceleb", lambda **options: asked.append(options)
    )
    monkeypatch.setattr(compare, "fold_list", lambda *_: "list.txt")
    compare.prepare_folds(hparams)
    assert asked and not any("sample_rate" in options for options in asked)
    asked.clear()
    hparams["student_overrides"] = {"sample_rate": 8000}
    compare.prepare_folds(hparams)
    assert {options["sample_rate"] for options in asked} == {8000}


def test_a_missing_fold_is_said(hparams):
    hparams["runs"] = [{"fold": 7, "seed": 1}]
    with pytest.raises(UserError, match="fold7_dev.txt: missing.*`runs`"):
        compare.plan(hparams)
