"""Unit tests of ``imlkd_brain.files``."""

import csv
import json

import pytest

from imlkd_brain.files import append_epoch, cached, write_json


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


def test_a_result_is_computed_again_where_it_is_damaged_or_out_of_date(
    tmp_path,
):
    calls = []

    def result(ingredients):
        return cached(
            tmp_path / "new",
            "sum",
            ingredients,
            lambda: calls.append(1) or sum(ingredients),
        )

    assert [result([1, 2]), result([1, 2]), result([1, 3])] == [3, 3, 4]
    assert len(calls) == 2
    (file,) = (tmp_path / "new").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert [result([1, 3]), len(calls)] == [4, 3]
