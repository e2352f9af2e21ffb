"""Runs of several reports: who is paired with whom, and the interval."""

import pandas as pd
import pytest
from scipy.stats import t

from imlkd_brain.errors import UserError
from imlkd_brain.pairing import main, paired_difference, read_runs


def report(folder, seed, eers, fold=None):
    """A runs.csv of one run: {method: pooled EER}, and rows to leave out."""
    folder.mkdir()
    rows = [
        (
            "p",
            seed if fold is None else fold,
            seed,
            method,
            duration,
            group,
            eer + shift,
        )
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


def test_the_interval_is_student_s():
    folds = pd.Index([0, 1, 2], name="fold")
    ours = pd.Series([18.0, 29.0, 9.5], index=folds)
    base = pd.Series([20.0, 30.0, 10.0], index=folds)
    d = paired_difference(ours, base)
    spread = (ours - base).std() / 3**0.5
    half = t.ppf(0.975, 2) * spread
    mean = -3.5 / 3
    assert d["relative"] == pytest.approx(100 * mean / 20)
    assert d["low"] == pytest.approx(100 * (mean - half) / 20)
    assert d["high"] == pytest.approx(100 * (mean + half) / 20)
    assert d["p_value"] == pytest.approx(2 * t.cdf(mean / spread, 2))
    assert d["lower"] == 3
    # A second seed that says just what the first has said is no news.
    twice = paired_difference(pd.concat([ours] * 2), pd.concat([base] * 2))
    assert twice == pytest.approx({**d, "lower": 6})


def test_what_cannot_be_paired_is_named(tmp_path):
    first = report(tmp_path / "a", 1, {"base": 20.0, "ours": 18.0})
    with pytest.raises(UserError, match="base, p, fold 1, seed 1: in two"):
        read_runs([first, first])
    with pytest.raises(UserError, match="gone/runs.csv: no such file"):
        read_runs([str(tmp_path / "gone")])
    with pytest.raises(UserError, match="'theirs' is not in every run"):
        main([first, "--methods", "theirs"])
    with pytest.raises(UserError, match="two folds or more .* {1: 1}"):
        main([first, "--methods", "ours"])
    other = report(tmp_path / "b", 2, {"base": 20.0, "ours": 18.0})
    more = report(tmp_path / "c", 3, {"base": 20.0, "ours": 18.0}, fold=2)
    with pytest.raises(UserError, match="{1: 1, 2: 2}"):
        main([first, other, more, "--methods", "ours"])
    (tmp_path / "a" / "runs.csv").write_text("pair,fold\n")
    with pytest.raises(UserError, match="column 'seed' is missing"):
        read_runs([first])
