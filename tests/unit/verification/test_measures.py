"""Unit tests of ``imlkd_brain.verification.measures``."""

import pytest
import torch

from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.metrics.likelihood_ratios import min_cllr, rocch_eer
from imlkd_brain.verification.measures import CONVENTIONS, summary


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


def test_figures_of_durations_groups_and_all_together(measured):
    """Each row is the metric on its own trials."""
    scored, rows = measured
    located, scores = scored.located, scored.scores
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
