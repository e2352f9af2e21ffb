"""Unit tests of ``imlkd_brain.data.shards``."""

import json
import os
import re
import shutil
import tarfile
from types import SimpleNamespace

import pytest
from helpers.killing import is_killed
from helpers.sharded import movable, pack

from imlkd_brain.data.shards import member_name
from imlkd_brain.errors import UserError

# How webdataset 1.0 splits a member's name (tariterators.base_plus_ext)
KEY_AND_EXTENSION = r"^((?:.*/|)[^.]+)[.]([^/]*)$"


@pytest.fixture
def corpus(tmp_path):
    return movable(tmp_path / "corpus")


def content(folder):
    """The bytes of all files in a folder but those of its lock."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".lock")
    }


def files_of(shard):
    """The members of a tar file, by name."""
    with tarfile.open(shard) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}


def test_shards_have_the_bytes_of_the_files_as_webdataset_names_them(
    corpus, tmp_path, capsys
):
    folder = pack(corpus, tmp_path / "shards")
    shards = sorted(folder.glob("*.tar"))
    assert len(shards) > 2
    assert f"8 files in {len(shards)} shards" in capsys.readouterr().out
    members = {}
    for shard in shards:
        members |= files_of(shard)
    assert list(members)[1] == "00000001-anna-s1-1.flac"
    wanted = [
        path
        for path in (corpus / "wav").glob("*/*/*")
        if path.parts[-3] not in ("emil", "fred")
    ]
    assert len(members) == len(wanted) == 8
    for number, name in enumerate(members):
        key, extension = re.match(KEY_AND_EXTENSION, name).groups()
        assert int(key[:8]) == number and extension in ("wav", "flac")
        speaker, session = key.split("-")[1:3]
        path = corpus / "wav" / speaker / session / f"1.{extension}"
        assert members[name] == path.read_bytes()
    # An offset is where a reader of bytes finds the file.
    record = json.loads((folder / "shard-000001.json").read_text())
    for name, offset, size in record["files"]:
        with open(folder / "shard-000001.tar", "rb") as stream:
            stream.seek(offset)
            path = name.replace("$data_root", str(corpus))
            with open(path, "rb") as file:
                assert stream.read(size) == file.read()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("$data_root/wav/a.b/c/1.2.WAV", "00000003-a-b-c-1-2.wav"),
        ("$data_root/1.wav", "00000003-data_root-1.wav"),
    ],
)
def test_a_key_has_no_dot_whatever_the_file_is_called(name, wanted):
    assert member_name(3, name) == wanted


def test_a_file_of_several_rows_is_packed_once(corpus, tmp_path):
    csv = corpus / "train.csv"
    lines = csv.read_text().splitlines()
    again = [line.replace("--1,", "--2,") for line in lines[1:]]
    csv.write_text("\n".join([*lines, *again]) + "\n")
    folder = pack(corpus, tmp_path / "shards", 1e9)
    assert len(files_of(folder / "shard-000000.tar")) == 8
    assert not (folder / "shard-000001.tar").exists()


def test_a_long_name_is_found_as_well(corpus, tmp_path):
    """Of more than 100 bytes, for which tar has a header more."""
    long = "x" * 120
    csv = corpus / "train.csv"
    os.rename(corpus / "wav" / "anna", corpus / "wav" / long)
    csv.write_text(csv.read_text().replace("wav/anna", f"wav/{long}"))
    folder = pack(corpus, tmp_path / "shards", 1e9)
    record = json.loads((folder / "shard-000000.json").read_text())
    name, offset, size = record["files"][0]
    whole = (folder / "shard-000000.tar").read_bytes()
    assert long in name
    assert (
        whole[offset : offset + size]
        == (corpus / "wav" / long / "s0" / "1.wav").read_bytes()
    )


def test_a_build_that_is_killed_goes_on_to_the_same_bytes(corpus, tmp_path):
    """Killed at every fifth write, again and again in one folder."""
    wanted = content(pack(corpus, tmp_path / "wanted"))
    folder = tmp_path / "shards"
    for number in range(0, 100, 5):
        killed = is_killed(number, lambda: pack(corpus, folder))
        if not killed:
            break
    assert number >= 15 and not killed
    assert content(folder) == wanted


def test_only_what_is_missing_or_damaged_is_written_again(corpus, tmp_path):
    folder = pack(corpus, tmp_path / "shards")
    wanted = content(folder)
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.tar")}
    with open(folder / "shard-000000.tar", "r+b") as stream:
        stream.seek(700)
        stream.write(b"damaged")
    (folder / "shard-000001.tar").unlink()
    pack(corpus, folder)
    assert content(folder) == wanted
    changed = {
        path.name
        for path in folder.glob("*.tar")
        if path.stat().st_mtime_ns != stamps[path.name]
    }
    assert changed == {"shard-000000.tar", "shard-000001.tar"}


def test_a_folder_of_something_else_is_refused(corpus, tmp_path):
    folder = pack(corpus, tmp_path / "shards")
    before = content(folder)
    with pytest.raises(UserError, match="of another --shard_size; give"):
        pack(corpus, folder, 1e9)
    assert content(folder) == before
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "shard-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=f"^{theirs}: holds shards of other"):
        pack(corpus, theirs)
    assert content(theirs) == {"shard-000000.tar": b"somebody's"}


def test_missing_audio_is_named_before_anything_is_written(corpus, tmp_path):
    path = corpus / "wav" / "dora" / "s1" / "1.wav"
    path.unlink()
    with pytest.raises(UserError, match=f"^{path}: is missing, but .*csv"):
        pack(corpus, tmp_path / "shards")
    path.mkdir()
    with pytest.raises(UserError, match=f"^{path}: is no file, but"):
        pack(corpus, tmp_path / "shards")
    assert content(tmp_path / "shards") == {}


def test_a_disk_without_room_is_told_before_anything_is_packed(
    corpus, tmp_path, monkeypatch
):
    folder = tmp_path / "shards"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        with pytest.raises(UserError, match=f"^{folder}: 0.0 GB are free and"):
            pack(corpus, folder)
    assert not list(folder.glob("*.tar"))
    # With what is needed to the byte, the shards fit.
    pack(corpus, folder)


def test_a_shard_size_of_nothing_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="^--shard_size is 0, but must be"):
        pack(corpus, tmp_path / "shards", 0)
