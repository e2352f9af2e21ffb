"""Unit tests of ``imlkd_brain.comparison.differences``."""

import numpy as np
import pandas as pd
import pytest
import torch

from imlkd_brain.comparison.differences import (
    SpeakerCovariance,
    correct_family,
    relative_differences,
    speaker_covariances,
    summarise,
)
from imlkd_brain.comparison.scores import Draws
from imlkd_brain.metrics.intervals import holm


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
        covariance=SpeakerCovariance(
            "p",
            "pooled",
            methods=["teacher", "base", "good"],
            covariance=[[9, 9, 9], [9, 1, 0], [9, 0, 1]],
            degrees=9,
        ),
    )
    assert wider["low"] < 45 < 50 < 55 < wider["high"]


def test_covariances_of_a_report_are_those_of_its_replicates():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(500, generator=generator, dtype=torch.float64)
    # Two runs of a teacher and a method, at full length, 2 s and pooled
    of_method = torch.stack([10 + scale * shared for scale in (1.0, 2.0)])
    eers = of_method[None, :, None].expand(2, 2, 3, 500)
    who = frozenset("abcde")
    found = speaker_covariances(
        [
            Draws(
                pair="p",
                folds=[0, 1],
                speakers=[who, who],
                methods=["teacher", "m"],
                durations=["full", "2s", "pooled"],
                eers=eers,
            )
        ]
    )
    assert [f.duration for f in found] == ["mean", "pooled"]
    variance = 5 / 4 * float(shared.var())
    for entry in found:
        assert entry.methods == ["teacher", "m"] and entry.degrees == 4
        expected = [[variance, 2 * variance], [2 * variance, 4 * variance]]
        assert entry.of("teacher", "m") == pytest.approx(np.array(expected))
        expected = [[4 * variance, 2 * variance], [2 * variance, variance]]
        assert entry.of("m", "teacher") == pytest.approx(np.array(expected))


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


def test_a_family_is_corrected_once_for_both_directions():
    pairs = [("a", "b", 0.01), ("b", "a", 0.01), ("a", "c", 0.03)]
    found = correct_family(
        [{"method": m, "baseline": b, "p_value": p} for m, b, p in pairs]
    )
    assert [d["p_holm"] for d in found] == [0.02, 0.02, 0.03]
    assert holm({"a": None}) == {"a": None}
