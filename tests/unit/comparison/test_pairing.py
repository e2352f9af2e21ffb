"""Runs of several reports: who is paired with whom, and the interval."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imlkd_brain.comparison.differences import correct_family
from imlkd_brain.comparison.pairing import (
    join_runs,
    joint_covariance,
    main,
    read_reports,
)
from imlkd_brain.comparison.tables import as_text
from imlkd_brain.errors import UserError
from imlkd_brain.metrics.intervals import relative_difference


def report(folder, seed, eers):
    """A runs.csv of one run: {method: pooled EER}, and rows to leave out."""
    folder.mkdir()
    rows = [
        ("p", seed, seed, method, duration, group, eer + shift)
        for method, eer in eers.items()
        for duration, group, shift in (
            ("full", "all", 50),
            ("pooled", "all", 0),
            ("pooled", "pack", 50),
        )
    ]
    columns = ["pair", "fold", "seed", "method", "duration", "group", "eer"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "runs.csv", index=False)
    return str(folder)


def test_methods_of_all_runs_are_paired_by_run(tmp_path, capsys):
    first = report(tmp_path / "a", 1, {"base": 20.0, "ours": 18.0, "once": 1.0})
    second = report(tmp_path / "b", 2, {"base": 30.0, "ours": 29.0, "x_b": 9.0})
    third = report(tmp_path / "c", 1, {"x": 7.0})
    table = join_runs(read_reports([first, second, third + ":_b"]))
    assert table.to_dict("list") == {
        "base": [20.0, 30.0],
        "ours": [18.0, 29.0],
        "x_b": [7.0, 9.0],
    }
    main([first, second, "--methods", "ours"])
    said = capsys.readouterr().out
    assert "2 runs" in said
    # -3 of 50 in two runs, and both are lower
    assert "| base | 25.00 ± 7.07 | -6.0 (" in said
    assert said.splitlines()[4].endswith("| 2 |")


def test_a_model_more_than_twice_as_good_is_not_drawn(tmp_path, monkeypatch):
    eers = {"teacher": 4.0, "base": 10.0, "ours": 9.0}
    folders = [report(tmp_path / str(seed), seed, eers) for seed in (1, 2)]
    drawn = []
    monkeypatch.setattr(
        "imlkd_brain.comparison.pairing.paired_intervals",
        lambda path, differences, methods, baselines, title: drawn.append(
            (methods, baselines)
        ),
    )
    main([*folders, "--methods", "ours", "--figure", "x.png"])
    # 125 % above the teacher, 10 % below base
    assert drawn == [(["ours"], ["base"])]


def test_what_cannot_be_paired_is_named(tmp_path):
    first = report(tmp_path / "a", 1, {"base": 20.0, "ours": 18.0})
    with pytest.raises(UserError, match="base, p, fold 1, seed 1: in two"):
        read_reports([first, first])
    with pytest.raises(UserError, match="gone/runs.csv: no such file"):
        read_reports([str(tmp_path / "gone")])
    with pytest.raises(UserError, match="'theirs' is not in every run"):
        main([first, "--methods", "theirs"])
    (tmp_path / "a" / "runs.csv").write_text("pair,fold\n")
    with pytest.raises(UserError, match="column 'seed' is missing"):
        read_reports([first])


def test_a_pairing_and_a_report_say_the_same(tmp_path, capsys):
    eers = {"base": [20.0, 30.0, 22.0], "ours": [18.0, 29.0, 21.0]}
    eers["other"] = [19.0, 33.0, 20.0]
    folders = [
        report(
            tmp_path / str(i), i, {m: values[i] for m, values in eers.items()}
        )
        for i in range(3)
    ]
    main([*folders, "--methods", "ours"])
    expected = correct_family(
        [
            {
                "method": "ours",
                "baseline": name,
                **relative_difference(eers["ours"], eers[name], [0, 1, 2]),
            }
            for name in ("base", "other")
        ]
    )
    said = capsys.readouterr().out
    for difference in expected:
        assert f"| {as_text(difference)} |" in said


def test_a_run_alone_has_a_difference_and_no_interval(tmp_path, capsys):
    first = report(tmp_path / "a", 1, {"base": 20.0, "ours": 18.0})
    main([first, "--methods", "ours"])
    assert "| -10.0 | 1 |" in capsys.readouterr().out


def with_speakers(folder, methods, variances):
    """Add the covariance of independent methods to a report."""
    entry = {
        "pair": "p",
        "duration": "pooled",
        "methods": methods,
        "covariance": np.diag(variances).tolist(),
        "degrees": 9,
    }
    path = Path(folder, "results.json")
    path.write_text(json.dumps({"speakers": [entry]}))


def test_test_speakers_that_folds_share_widen_intervals(tmp_path, capsys):
    eers = {"base": [20.0, 30.0, 22.0], "ours": [18.0, 29.0, 21.0]}
    folders = [
        report(tmp_path / str(i), i, {m: v[i] for m, v in eers.items()})
        for i in range(3)
    ]
    third = report(tmp_path / "third", 0, {"x": 17.0, "y": 25.0})
    for folder, variance in zip(folders, (1.0, 4.0, 4.0), strict=True):
        with_speakers(folder, ["ours", "base"], [variance, 2 * variance])
    main([*folders, "--methods", "ours"])
    said = capsys.readouterr().out
    assert "trainings and over test speakers\n" in said
    # The mean of three reports, one run each
    widened = relative_difference(
        *(eers["ours"], eers["base"], [0, 1, 2]),
        covariance=np.diag([3.0, 6.0]),
        degrees=9,
    )
    (expected,) = correct_family(
        [{"method": "ours", "baseline": "base", **widened}]
    )
    assert f"| {as_text(expected)} | 3 |" in said
    # The suffix is not part of the names in the report.
    with_speakers(third, ["x", "y"], [1.0, 1.0])
    (alone,) = read_reports([third + ":_b"])
    assert joint_covariance([alone], "y_b", "x_b")["degrees"] == 9
    # No report tells how the speakers move methods of two reports together.
    main([folders[0], third + ":_b", "--methods", "ours"])
    said = capsys.readouterr().out
    assert "; * without test speakers that folds share" in said
    marked = {
        line.split(" | ")[0].strip("| "): "*" in line
        for line in said.splitlines()[4:]
    }
    assert marked == {"base": False, "ours": False, "x_b": True, "y_b": True}
