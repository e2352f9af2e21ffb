"""Unit tests of ``imlkd_brain.data.presence``."""

import pytest

from imlkd_brain.data.presence import check_sources
from imlkd_brain.errors import UserError
from imlkd_brain.schema import Made


@pytest.fixture
def values(tmp_path):
    """Of a training on a corpus that is there."""
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "dev.txt").write_text("1 a b\n")
    return {
        "data_folder": f"{tmp_path}, {tmp_path / 'trials'}",
        "skip_prep": False,
        # Known by its name, in the data folder, and to be downloaded.
        "verification_file": "Vox1-O,dev.txt,https://example.org/list.txt",
        "valid_trials": str(tmp_path / "trials" / "dev.txt"),
    }


def test_what_is_there_passes(values):
    check_sources(values)
    check_sources({**values, "valid_trials": None, "verification_file": None})
    check_sources({**values, "data_folder": "none", "skip_prep": True})
    check_sources({**values, "data_folder": None})


@pytest.mark.parametrize(
    "key", ["data_folder", "verification_file", "valid_trials"]
)
def test_what_a_function_of_the_yaml_returns_is_not_known_yet(values, key):
    """``data_folder: !apply:os.getenv [VOX]``, a reference, any other tag."""
    check_sources({**values, key: Made("apply:os.getenv", [], {}, True)})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("data_folder", "none", "none: there is no such folder"),
        ("verification_file", "no.txt", "verification_file: no.txt: there is"),
        ("valid_trials", "dev.txt", "valid_trials: dev.txt: .*valid_trials nu"),
    ],
)
def test_what_is_not_there_is_named(values, key, value, says):
    with pytest.raises(UserError, match=says):
        check_sources({**values, key: value})
