"""Unit tests of ``imlkd_brain.comparison.report``."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from imlkd_brain.comparison.report import (
    dev_table,
    read_curves,
    rewrite_report,
    write_report,
)
from imlkd_brain.comparison.scores import collect_runs
from imlkd_brain.errors import UserError

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


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
        "imlkd_brain.comparison.scores.bootstrap_over_speakers",
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


def test_curves_of_an_unfinished_comparison(tmp_path):
    with pytest.raises(UserError, match="train_stats.csv: missing"):
        read_curves(tmp_path, ["p"], RUNS, ["m"])
