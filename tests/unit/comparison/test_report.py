"""Unit tests of ``imlkd_brain.comparison.report``."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

from imlkd_brain.comparison.report import (
    About,
    model_sizes,
    read_curves,
    rewrite_report,
    write_report,
)
from imlkd_brain.comparison.scores import collect_runs
from imlkd_brain.errors import UserError

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


def about(runs):
    """The head of a report."""
    return About(
        date="2024-01-01",
        machine="m",
        command="python compare.py",
        runs=RUNS,
        baselines=["scratch", "teacher"],
        sizes=model_sizes(runs, ["teacher", "scratch"]),
        corpus="uqm",
    )


def test_a_report_from_finished_runs(finished, monkeypatch, tmp_path):
    runs, scoring = finished.runs, finished.scoring
    rows, draws = collect_runs(runs, finished.models, scoring)
    overall = rows[rows["group"] == "all"]
    pooled = overall["duration"] == "pooled"
    assert len(overall) == 2 * 2 * (2 + 1) and pooled.sum() == 2 * 2
    assert (overall["trials"] == 28 + 28 * pooled).all()
    (found,) = draws
    assert found.eers.shape == (2, 2, 3, 50)  # runs, methods, durations, draws
    assert found.durations == ["full", "0.3s", "pooled"]
    monkeypatch.setattr(
        "imlkd_brain.comparison.scores.bootstrap_over_speakers",
        lambda *args, **kwargs: pytest.fail("drawn again"),
    )
    _, (again,) = collect_runs(runs, finished.models, scoring)
    torch.testing.assert_close(again.eers, found.eers, equal_nan=True)
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        collect_runs(
            runs, finished.models, replace(scoring, bootstrap_samples=51)
        )
    # One teacher and list in both runs: the same speakers are drawn for both.
    torch.testing.assert_close(
        found.eers[0, 0, 2],
        found.eers[1, 0, 2],
        equal_nan=True,  # a draw of one speaker has no nontarget trial
    )
    curves = read_curves(runs, ["scratch"])
    assert curves["minutes"].tolist() == [1.0, 1.5] * 2
    assert curves["eer"].tolist() == [20, 15] * 2
    folder = tmp_path / "report"
    text = write_report(folder, about(runs), rows, draws, curves)
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
def test_every_pair_has_its_figures(finished, pairs, tmp_path):
    image = pytest.importorskip("matplotlib.image")
    root = tmp_path / "out" / "runs"
    runs = []
    for pair in pairs:
        if pair != "p":
            shutil.copytree(root / "p", root / pair)
        runs += [
            replace(run, pair=pair, folder=root / pair / run.folder.name)
            for run in finished.runs
        ]
    rows, draws = collect_runs(runs, finished.models, finished.scoring)
    curves = read_curves(runs, ["scratch"])
    folder = tmp_path / "report"
    write_report(folder, about(runs), rows, draws, curves, plots=True)
    names = ["curves", "methods", "differences"]
    if len(pairs) > 1:
        names = [f"{name}_{pair}" for name in names for pair in pairs]
    assert sorted(names) == sorted(p.stem for p in folder.glob("*.png"))
    for name in names:
        assert image.imread(folder / f"{name}.png")[..., :3].std() > 0.02


def test_curves_of_an_unfinished_comparison(finished):
    with pytest.raises(UserError, match="m/train_stats.csv: missing"):
        read_curves(finished.runs, ["m"])
