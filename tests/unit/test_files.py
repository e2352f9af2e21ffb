"""Unit tests of ``imlkd_brain.files``."""

import csv
import json

import pytest
import torch

from imlkd_brain.files import (
    append_epoch,
    cached,
    load_whole,
    replace_folder,
    sha256_of,
    write_json,
    zip_damage,
)


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


def torch_file(path):
    """A file of torch with one tensor; return its bytes."""
    torch.save({"rows": torch.arange(1000.0)}, path)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    "damage",
    ["number", "method", "encrypted", "cut", "empty", "text", "missing"],
)
def test_a_damaged_file_of_torch_is_none(tmp_path, damage):
    path = tmp_path / "kept.pt"
    content = torch_file(path)
    assert load_whole(path)["rows"].equal(torch.arange(1000.0))
    assert zip_damage(path) == ""
    # Places in the directory of a ZIP file, after its mark PK 1 2
    directory = content.index(b"PK\x01\x02")
    local = content.index(b"PK\x03\x04")
    if damage == "number":
        content[len(content) // 2] ^= 1
    elif damage == "method":
        content[directory + 10] = content[local + 8] = 97
    elif damage == "encrypted":
        content[directory + 8] |= 1
        content[local + 6] |= 1
    path.write_bytes(
        {"cut": content[:700], "empty": b"", "text": b"rows"}.get(
            damage, content
        )
    )
    if damage == "missing":
        path.unlink()
    else:
        assert zip_damage(path)
    assert load_whole(path) is None


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    building, folder = tmp_path / "new", tmp_path / "model"
    for number in (1, 2):
        building.mkdir()
        (building / f"{number}").touch()
        replace_folder(building, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_the_hash_of_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # The example of FIPS 180-4.
    assert sha256_of(path).startswith("ba7816bf8f01cfea414140de5dae2223")
