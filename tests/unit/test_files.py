"""Unit tests of ``imlkd_brain.files``."""

import csv
import json

import pytest

from imlkd_brain.files import append_epoch, write_json


def test_append_epoch_replaces_what_is_repeated(tmp_path):
    path = str(tmp_path / "stats.csv")
    append_epoch(path, {"epoch": 1, "loss": 3.0})
    append_epoch(path, {"epoch": 2, "loss": 2.0})
    append_epoch(path, {"epoch": 3, "loss": 9.0})
    append_epoch(path, {"epoch": 2, "loss": 1.0, "new": 5})
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [
        {"epoch": "1", "loss": "3.0", "new": ""},
        {"epoch": "2", "loss": "1.0", "new": "5"},
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["stats.csv"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    """Half a file is never in the place of a whole one."""
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
