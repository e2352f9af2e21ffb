"""Unit tests of ``imlkd_brain.explanation.results``."""

import json

from imlkd_brain.explanation.results import summary, write_results
from imlkd_brain.explanation.tables import TABLES


def results_of(unit):
    areas = [
        {
            "task": "verification",
            "duration": 2,
            "model": "teacher",
            "method": "random",
            "unit": unit,
            "direction": direction,
            "baseline": "zero",
            "metric": "score",
            "mean": mean,
            "low": float("nan"),
        }
        for direction, mean in (("deletion", 0.25), ("insertion", 0.75))
    ]
    return {
        **{table: [] for table in TABLES},
        "options": {"methods": {"random": {}}, "units": [unit]},
        "areas": areas,
        "curves": [{"level": 0.5}],
    }


def test_the_summary_names_the_units_that_it_shows():
    lines = summary(results_of("frames")).splitlines()
    assert (
        "Area under the teacher's curves over frames (baseline zero)" in lines
    )
    assert lines[-1].split() == ["random", "score", "0.250", "0.750"]


def test_points_of_curves_are_in_their_csv_alone(tmp_path):
    write_results(results_of("bins"), tmp_path)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert "curves" not in kept and kept["areas"][0]["low"] is None
    assert (tmp_path / "curves.csv").read_text() == "level\n0.5\n"
    assert not (tmp_path / "sanity.csv").exists()
