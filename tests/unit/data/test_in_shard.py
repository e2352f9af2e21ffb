"""Unit tests of ``imlkd_brain.data.in_shard``."""

import io
import json
import os
import pickle
import shutil

import pytest
import torch
from helpers.sharded import movable, pack

from imlkd_brain.data.audio import check_audio, read_audio, read_waveform
from imlkd_brain.data.datasets import train_dataset
from imlkd_brain.data.in_shard import InShard, Member, Shards
from imlkd_brain.data.variants import Recipe, VariantSet
from imlkd_brain.errors import UserError
from speechbrain.dataio.dataloader import make_dataloader

SPEEDS = [0.9, 1.0, 1.1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return movable(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def packed(corpus, tmp_path_factory):
    return pack(corpus, tmp_path_factory.mktemp("packed") / "shards")


@pytest.fixture
def shards(packed, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(packed, tmp_path / "shards")


def train(corpus, shards=None, data_folder=None, seconds=0.4):
    """The training set and its chunks, from files without shards."""
    csv, folder = str(corpus / "train.csv"), str(data_folder or corpus)
    return train_dataset(csv, folder, seconds, 16000, 1, SPEEDS, shards=shards)


def batches(dataset, chunks):
    """(IDs, samples) of the batches of two epochs, from two workers."""
    for chunks.epoch in (1, 2):
        for batch in make_dataloader(dataset, batch_size=5, num_workers=2):
            yield batch.id, batch.sig.data


def test_a_trainings_batches_are_those_of_the_files(corpus, packed):
    """Bit for bit: WAV and FLAC, at three speeds, read in part by workers."""
    files = list(batches(*train(corpus)))
    found = list(batches(*train(corpus, packed)))
    assert len(files) == len(found) == 2 * 5
    for (ids, signals), (ids_of_shards, signals_of_shards) in zip(
        files, found, strict=True
    ):
        assert ids == ids_of_shards
        assert torch.equal(signals, signals_of_shards)


def test_files_need_not_be_there_nor_where_they_were(corpus, packed, tmp_path):
    """Also of chunks longer than their files."""
    wanted, chunks = train(corpus, seconds=0.7)
    dataset, moved = train(corpus, packed, tmp_path / "elsewhere", seconds=0.7)
    assert dataset.data["anna--s1--1-sp0.9"]["wav"] == str(
        tmp_path / "elsewhere" / "wav" / "anna" / "s1" / "1.flac"
    )
    chunks.epoch = moved.epoch = 1
    for row in range(len(wanted)):
        assert torch.equal(wanted[row]["sig"], dataset[row]["sig"])


def test_chunks_with_stored_answers_come_out_of_shards(
    corpus, packed, tmp_path
):
    """They read the rows of the training set with readers of their own."""
    recipe = Recipe(7, 0.4, 16000, [0.1, 0.25], 100.0, 41)
    files = VariantSet(train(corpus)[0].data, recipe, 2)
    rows = train(corpus, packed, tmp_path / "elsewhere")[0].data
    found = VariantSet(rows, recipe, 2)
    for index in range(2 * len(files)):
        assert torch.equal(files[index]["sig"], found[index]["sig"])


def test_each_way_to_read_reads_a_file_in_a_shard(corpus, packed):
    for row in train(corpus, packed)[0].data.values():
        path, file = row["wav"], str(row["wav"])
        assert isinstance(path, InShard) and type(file) is str
        assert check_audio(path, 16000) == check_audio(file, 16000)
        wanted = read_waveform(file, 16000)
        assert torch.equal(read_waveform(path, 16000), wanted)
        # The last samples, and from within
        assert torch.equal(read_audio(path, len(wanted) - 7), wanted[-7:])
        assert torch.equal(read_audio(path, 4321, 100), wanted[4321:4421])


def test_a_shard_is_opened_once_for_however_many_chunks(
    corpus, packed, tmp_path, monkeypatch
):
    """No file is there to be opened."""
    dataset, chunks = train(corpus, packed, tmp_path / "elsewhere")
    real, opened = os.open, []

    def count(path, *more, **options):
        opened.append(path)
        return real(path, *more, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", count)
        for chunks.epoch in (1, 2, 3):
            for row in range(len(dataset)):
                dataset[row]["sig"]
    assert sorted(opened) == sorted(packed.glob("*.tar"))


def test_a_part_of_a_file_is_a_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        member = Member(descriptor, 10, 50)
        assert member.read() == bytes(range(10, 60))
        assert member.read(5) == b"" and member.tell() == 50
        assert member.seek(-3, io.SEEK_END) == 47
        assert member.read(9) == bytes([57, 58, 59])
        assert member.seek(2) == 2 and member.seek(3, io.SEEK_CUR) == 5
        assert member.read(2) == bytes([15, 16])
        assert member.seek(70) == 70 and member.read(2) == b""
        # Another one of the same open file has a place of its own.
        assert Member(descriptor, 0, 3).read() == bytes([0, 1, 2])
        cut = Member(descriptor, 90, 50)
        assert cut.read() == bytes(range(90, 100))
        assert "ends too early" in str(cut.error) and member.error is None
    finally:
        os.close(descriptor)


def test_a_worker_that_is_spawned_reads_shards(corpus, packed):
    """It is given a pickle of the dataset, also after shards were opened."""
    dataset, _ = train(corpus, packed)
    wanted = dataset[3]["sig"]
    again = pickle.loads(pickle.dumps(dataset))
    assert isinstance(again.data[again.data_ids[3]]["wav"], InShard)
    assert torch.equal(again[3]["sig"], wanted)


def test_rows_that_the_shards_lack_are_named(corpus, packed, tmp_path):
    other = shutil.copytree(corpus, tmp_path / "other")
    csv = other / "train.csv"
    text = csv.read_text().replace("wav/dora/s1", "wav/dora/new")
    csv.write_text(text)
    path = other / "wav" / "dora" / "new" / "1.wav"
    with pytest.raises(UserError) as told:
        train(other, packed)
    assert f"1 files of {csv} are not in these shards (first: {path})" in str(
        told.value
    )


def test_rows_of_an_unlabelled_folder_keep_their_files(corpus, packed):
    rows = {"unlabelled--a": {"wav": "/b/a.wav"}}
    Shards(packed).in_place_of_files(rows, None, "train.csv")
    assert not isinstance(rows["unlabelled--a"]["wav"], InShard)


def test_no_folder_and_no_index_are_told(corpus, shards, tmp_path):
    with pytest.raises(UserError, match="^train_shards: .*none is not there"):
        train(corpus, tmp_path / "none")
    index = shards / "index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "complete": False}))
    unfinished = f"^{shards}: the build of these shards has not ended"
    with pytest.raises(UserError, match=unfinished):
        train(corpus, shards)
    index.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(UserError, match="is of format 99, expected 1"):
        train(corpus, shards)
    index.unlink()
    with pytest.raises(UserError, match=unfinished):
        train(corpus, shards)


def test_a_shard_that_is_missing_or_cut_is_told_at_the_start(corpus, shards):
    path = shards / "shard-000001.tar"
    os.truncate(path, path.stat().st_size - 512)
    with pytest.raises(UserError, match=f"^{path}: this shard is damaged; run"):
        train(corpus, shards)
    path.unlink()
    with pytest.raises(UserError, match=f"^{path}: this shard is missing; run"):
        train(corpus, shards)


def test_a_shard_that_is_cut_while_training_is_told(corpus, shards):
    """libsndfile would take it for a shorter file."""
    dataset, chunks = train(corpus, shards)
    chunks.epoch = 1
    path = dataset.data[dataset.data_ids[0]]["wav"]
    shard = shards / "shard-000000.tar"
    os.truncate(shard, 1000)
    with pytest.raises(UserError, match=f"^{shard}: {path} cannot be read in"):
        dataset[0]["sig"]


def test_a_damaged_file_in_a_shard_is_told(corpus, shards):
    dataset, _ = train(corpus, shards)
    path = dataset.data[dataset.data_ids[0]]["wav"]
    shard = shards / "shard-000000.tar"
    with open(shard, "r+b") as stream:
        stream.seek(512)
        stream.write(b"no audio is here")
    with pytest.raises(UserError, match=f"^{shard}: {path} cannot be read in"):
        dataset[0]["sig"]
