"""Unit tests of ``imlkd_brain.verification.report``."""

import re

import pytest

from imlkd_brain.verification.report import format_tables, write_scores


def test_tables_and_score_files(measured, tmp_path):
    """What is printed and written can be read back."""
    scored, rows = measured
    scores = scored.scores
    table = format_tables(rows, {"m 1": (1200000, 45 * 10**6)}, 0.05)
    line = next(x for x in table.splitlines() if x.startswith("m "))
    assert "1.20 M" in line and "0.045 G" in line
    assert f"{100 * rows[0]['eer']:.2f}" in line
    # What a score is compared with to decide.
    assert f" {rows[0]['eer_threshold']:.3f} " in line
    assert f"{rows[0]['min_dcf_0.05']:.3f}" in line
    header, rule, *cells = table.splitlines()[2:6]
    # All columns begin where their rule does.
    for column in re.finditer("-+", rule):
        assert all(line[column.start()] != " " for line in (header, *cells))
    write_scores(tmp_path, [scored])
    header, *lines = (tmp_path / "scores.txt").read_text().splitlines()
    assert header == "list enrol test label m_1@full m_1@1s"
    assert len(lines) == 36
    fields = lines[7].split()
    assert fields[:4] == ["all", "x-a/s1/00001", "x-a/s1/00001", "1"]
    # Six decimals are written.
    assert float(fields[4]) == pytest.approx(float(scores["full"][7]), abs=1e-6)
    single = (tmp_path / "scores/all/m_1/1s.txt").read_text().splitlines()
    ratio = float(scored.ratios["1s"][7])
    assert single[7].split() == [*fields[1:4], fields[5], f"{ratio:.6f}"]
    assert not list(tmp_path.glob("*.tmp"))
