"""Unit tests of ``imlkd_brain.options``."""

from imlkd_brain.options import differences


def test_a_key_that_a_later_version_adds_as_null_is_no_difference():
    assert differences(
        {"hyperparameters": {"eta": 1.0}},
        {"hyperparameters": {"eta": 1.0, "new": None}},
    ) == []  # fmt: skip
