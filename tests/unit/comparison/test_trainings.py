"""Unit tests of ``imlkd_brain.comparison.trainings``."""

from pathlib import Path

import compare
import pytest
from helpers.runs import options

from imlkd_brain.comparison.trainings import Recipe, make_training


@pytest.mark.parametrize(
    "value",
    [
        [None, 2.0, 1.0],
        {"iml_kd": {"raw": {"embedding": 10.0}, "integrated": {}}},
        None,
        True,
        0.25,
        1e-8,
        1.5e20,
        -3,
        "iml_kd",
        "two words",
        "a: b # c",
        "null",
        "1e3",
        "a=b",
        "--odd",
        "größe 𝛼",
        "",
        Path("/some where/a=b"),
    ],
)
def test_options_survive_the_command_line(value):
    script = Path(compare.__file__).with_name("train_kd.py")
    training = make_training(
        "method",
        Recipe(script, "teacher.yaml", "x.yaml", "data", "cpu"),
        {"first": value, "output_folder": Path("out")},
        {"second": value, "last": 1},
    )
    expected = str(value) if isinstance(value, Path) else value
    _, found = options(training)
    assert found == {
        "first": expected,
        "output_folder": "out",
        "second": expected,
        "last": 1,
    }
    assert type(found["first"]) is type(expected)
