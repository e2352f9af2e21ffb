"""Unit tests of ``imlkd_brain.distillation.answer_store``."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from imlkd_brain.distillation import answer_store
from imlkd_brain.distillation.answer_store import FORMAT, AnswerStore
from imlkd_brain.errors import UserError

CONTENT = {
    "format": FORMAT,
    "teacher": "a" * 64,
    "options": {"gate": 0.5, "durations": (1.0, 1.5)},
    "fields": ["chunk", "weights"],
    "precision": "float16",
    "dimension": 3,
    "weights": [4, 6],
}
UTTERANCES = {f"u{i}": ("anna", 1.5 + i) for i in range(5)}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Five rows in blocks of two."""
    monkeypatch.setattr(answer_store, "BLOCK_ROWS", 2)
    return AnswerStore.create(tmp_path / "answers", CONTENT, UTTERANCES)


def fill(store, n_variants=2):
    """Write blocks whose numbers say where they belong."""
    for block in store.missing(n_variants):
        records = np.zeros(len(block), store.record_type(block.variant))
        for place in range(len(block)):
            records["chunk"][place] = 10 * block.variant + block.start + place
        store.write(block, records)


def test_what_was_written_is_read(store):
    assert [len(b) for b in store.missing(2)] == [2, 2, 1] * 2
    assert store.n_complete() == 0
    fill(store)
    again = AnswerStore.open(store.folder)
    again.check_files(2)
    assert again.n_complete() == 2
    for variant in range(2):
        for row, name in enumerate(UTTERANCES):
            record = again.record(name, variant)
            assert record["chunk"].tolist() == [10 * variant + row] * 3
            assert record["weights"].shape == ([4, 6][variant],)
            assert record["chunk"].dtype == np.float16
    assert again.utterances == UTTERANCES


def test_the_size_is_that_of_the_files(store):
    """Levels of 4 numbers, 3 + 4 or 3 + 6 numbers of two bytes."""
    needed = store.n_bytes(store.blocks(2))
    assert needed == 5 * (16 + 2 * 7) + 5 * (16 + 2 * 9)
    fill(store)
    files = [b.path.stat().st_size for b in store.blocks(2)]
    # NumPy's header tells the fields of each file.
    assert needed < sum(files) <= needed + 256 * len(files)


def test_the_same_walk_goes_on_and_another_does_not(store):
    AnswerStore.create(store.folder, CONTENT, UTTERANCES)
    for change, words in (
        ({"teacher": "b" * 64}, "teacher: content aaaaaaaa there, content bb"),
        ({"precision": "float32"}, "precision: float16 there, float32 here"),
        ({"options": {"gate": 1.0}}, "options.gate: 0.5 there, 1.0 here"),
    ):
        with pytest.raises(UserError) as caught:
            AnswerStore.create(store.folder, {**CONTENT, **change}, UTTERANCES)
        assert words in str(caught.value)
        assert str(store.folder) in str(caught.value)
    fewer = dict(list(UTTERANCES.items())[1:])
    with pytest.raises(
        UserError, match="over 5 rows and this one over 4; u0 is"
    ):
        AnswerStore.create(store.folder, CONTENT, fewer)


@pytest.mark.parametrize("damage", ["cut", "other", "empty", "text"])
def test_a_damaged_file_is_named(store, damage):
    fill(store)
    path = store.blocks(2)[1].path
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "other":
        shutil.copy(store.blocks(2)[3].path, path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"no numbers")
    for read in (
        lambda: store.check_files(2),
        lambda: AnswerStore.open(store.folder).record("u3", 0),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(path) in str(caught.value)


def test_a_folder_that_is_none_is_named(store, tmp_path):
    with pytest.raises(UserError, match="no stored answers of a teacher"):
        AnswerStore.open(tmp_path)
    path = store.folder / "answers.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 0}))
    with pytest.raises(UserError, match="format 0, not"):
        AnswerStore.open(store.folder)
    path.write_text(json.dumps(content)[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        AnswerStore.open(store.folder)
    path.write_text(json.dumps(content))
    (store.folder / "utterances.csv").write_text("id,speaker,seconds\n")
    with pytest.raises(UserError, match="another walk's"):
        AnswerStore.open(store.folder)


def test_an_unfinished_walk_says_what_is_complete(store):
    fill(store, 1)
    with pytest.raises(UserError, match=r"3 of 6 .* \(1 are complete\)"):
        store.check_files(2)
    store.check_files(1)


def test_a_disk_without_room_stops_before_the_walk(store, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: SimpleNamespace(free=100)
    )
    with pytest.raises(UserError, match="the answers take .* make room"):
        store.check_room(store.missing(2))
    store.check_room([])


def test_a_block_is_one_process_to_make(store):
    block, other = store.missing(1)[:2]
    with store.claimed(block) as mine:
        assert mine
        with AnswerStore.open(store.folder).claimed(block) as second:
            assert not second
        with AnswerStore.open(store.folder).claimed(other) as second:
            assert second
        store.write(block, np.zeros(2, store.record_type(0)))
    with store.claimed(block) as again:
        assert not again
    left = [name for _, _, names in os.walk(store.folder) for name in names]
    block_files = ["00000.npy", "00000.sha256"]
    assert sorted(left) == [*block_files, "answers.json", "utterances.csv"]


def test_what_fails_while_a_block_is_made_is_heard(store):
    block = store.missing(1)[0]
    with pytest.raises(UserError, match="not finite"):
        with store.claimed(block):
            raise UserError("not finite")
    with store.claimed(block) as mine:
        assert mine
