"""Unit tests of ``imlkd_brain.verification.report``."""

import numpy as np
import pytest
import torch
from helpers.verification import write

from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.metrics.likelihood_ratios import min_cllr, rocch_eer
from imlkd_brain.verification.report import (
    CONVENTIONS,
    format_tables,
    measure,
    summary,
    write_scores,
)


def test_summary_names_the_figures():
    """The summary holds what the single functions return."""
    generator = torch.Generator().manual_seed(2)
    positive = torch.randn(80, generator=generator) + 1
    negative = torch.randn(90, generator=generator)
    figures = summary(positive, negative, [0.01, 0.05])
    assert (figures["eer"], figures["eer_threshold"]) == EER(positive, negative)
    assert figures["rocch_eer"] == rocch_eer(positive, negative)
    assert figures["min_cllr"] == min_cllr(positive, negative)
    # float32 rates in SpeechBrain's minDCF against float64 ones.
    assert figures["min_dcf_0.05"] == pytest.approx(
        figures["min_dcf_speechbrain_0.05"] / 0.05, rel=1e-6
    )


@pytest.fixture
def measured(corpus):
    """A list with its scores at two durations, and their rows."""
    lines, draw = [], np.random.default_rng(6)
    names = [f"{s}/s1/0000{u}" for s in ("x-a", "x-b", "y-c") for u in (0, 1)]
    for enrol in names:
        for test in names:
            label = enrol.split("/")[0] == test.split("/")[0]
            lines.append(f"{int(label)} {enrol} {test}")
    path = write(corpus / "all.txt", "\n".join(lines))
    located = locate_trials(read_trials(path), corpus)
    labels = located.trials.labels
    scores = {
        duration: torch.from_numpy(draw.normal(size=36)).float() + labels
        for duration in ("full", "1s")
    }
    rows = measure(
        located,
        "m",
        scores,
        {name: 3 * values for name, values in scores.items()},
        p_targets=[0.05],
        group_separator="-",
        bootstrap_samples=20,
    )
    return located, scores, rows


def test_figures_of_durations_groups_and_all_together(measured):
    """Each row is the metric on its own trials."""
    located, scores, rows = measured
    labels = located.trials.labels
    found = {(row["duration"], row["group"]): row for row in rows}
    # The group y has one speaker, so no nontarget trials: it is left out.
    assert set(found) == {
        (duration, group)
        for duration in ("full", "1s", "pooled")
        for group in ("all", "x")
    }
    for duration in scores:
        values = scores[duration]
        assert (
            found[duration, "all"]["eer"]
            == EER(values[labels], values[~labels])[0]
        )
        inside = torch.tensor(
            [
                enrol[0] == test[0] == "x"
                for enrol, test in zip(
                    located.trials.enrol, located.trials.test, strict=True
                )
            ]
        )
        assert (
            found[duration, "x"]["eer"]
            == EER(values[inside & labels], values[inside & ~labels])[0]
        )
        assert found[duration, "x"]["trials"] == 16
    together = torch.cat(list(scores.values()))
    assert (
        found["pooled", "all"]["eer"]
        == EER(together[labels.repeat(2)], together[~labels.repeat(2)])[0]
    )
    row = found["full", "all"]
    assert row["eer_low"] <= row["eer_high"]
    assert {"cllr", "actual_dcf_0.05", "min_dcf_0.05"} <= set(row)


def test_every_figure_has_its_convention(measured):
    """A reader of results.json finds what each name means."""
    *_, rows = measured
    described = " ".join(CONVENTIONS).replace("<p>", "0.05")
    labels = {"model", "list", "group", "trials", "targets", "eer_threshold"}
    for row in rows:
        for name in set(row) - labels:
            assert name in described.replace(",", " ").split(), name


def test_tables_and_score_files(measured, tmp_path):
    """What is printed and written can be read back."""
    located, scores, rows = measured
    table = format_tables(rows, {"m": (1200000, 45 * 10**6)}, 0.05)
    line = next(x for x in table.splitlines() if x.startswith("m "))
    assert "1.20 M" in line and "0.045 G" in line
    assert f"{100 * rows[0]['eer']:.2f}" in line
    assert f"{rows[0]['min_dcf_0.05']:.3f}" in line
    keyed = {("all", "m 1", name): values for name, values in scores.items()}
    write_scores(tmp_path, [located], keyed)
    header, *lines = (tmp_path / "scores.txt").read_text().splitlines()
    assert header == "list enrol test label m_1@full m_1@1s"
    assert len(lines) == 36
    fields = lines[7].split()
    assert fields[:4] == ["all", "x-a/s1/00001", "x-a/s1/00001", "1"]
    # Six decimals are written.
    assert float(fields[4]) == pytest.approx(float(scores["full"][7]), abs=1e-6)
    single = (tmp_path / "scores/all/m_1/1s.txt").read_text().splitlines()
    assert single[7].split() == [*fields[1:4], fields[5]]
    assert not list(tmp_path.glob("*.tmp"))
