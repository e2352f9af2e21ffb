"""Runs of several reports: who is paired with whom, and the interval."""

import pandas as pd
import pytest

from imlkd_brain.comparison.differences import as_text, correct_family
from imlkd_brain.comparison.pairing import main, read_runs
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
    table = read_runs([first, second, third + ":_b"])
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
    assert said.splitlines()[3].endswith("| 2 |")


def test_what_cannot_be_paired_is_named(tmp_path):
    first = report(tmp_path / "a", 1, {"base": 20.0, "ours": 18.0})
    with pytest.raises(UserError, match="base, p, fold 1, seed 1: in two"):
        read_runs([first, first])
    with pytest.raises(UserError, match="gone/runs.csv: no such file"):
        read_runs([str(tmp_path / "gone")])
    with pytest.raises(UserError, match="'theirs' is not in every run"):
        main([first, "--methods", "theirs"])
    (tmp_path / "a" / "runs.csv").write_text("pair,fold\n")
    with pytest.raises(UserError, match="column 'seed' is missing"):
        read_runs([first])


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
