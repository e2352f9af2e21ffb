"""Unit tests of ``imlkd_brain.data.preparation``."""

import json
import zipfile

import pytest
from helpers.prepared import RATE, rows_of, speakers_of, write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.data import preparation
from imlkd_brain.errors import UserError


def test_columns_ids_and_chunks_are_upstreams(voxceleb, tmp_path):
    prepare_voxceleb(
        str(voxceleb), str(tmp_path), None, ["train", "dev"], [100, 0]
    )
    rows = rows_of(tmp_path / "train.csv")
    columns = ["ID", "duration", "wav", "start", "stop", "spk_id"]
    assert list(rows[0]) == columns
    # 7 s hold two chunks of 3 s; the last second is left over.
    assert [row["ID"] for row in rows[:2]] == [
        "a--x--1_0.0_3.0",
        "a--x--1_3.0_6.0",
    ]
    assert (rows[1]["start"], rows[1]["stop"]) == ("48000", "96000")
    assert float(rows[1]["duration"]) == 7.0
    assert rows[1]["wav"] == str(voxceleb / "wav" / "a" / "x" / "1.wav")
    assert len(rows) == 6 * 4 * 2
    assert rows_of(tmp_path / "dev.csv") == []


def test_lists_hold_speakers_out_and_name_whole_files(voxceleb, tmp_path):
    prepare_voxceleb(
        str(voxceleb),
        str(tmp_path),
        str(voxceleb / "test.txt"),
        dev_pairs_file=str(voxceleb / "dev.txt"),
        random_segment=True,
    )
    # Both columns of the verification list count, not its first alone.
    assert speakers_of(tmp_path / "train.csv") == set("def")
    assert len(rows_of(tmp_path / "train.csv")) == 3 * 4
    train = rows_of(tmp_path / "train.csv")[0]
    assert (train["ID"], train["start"], train["stop"]) == (
        "d--x--1",
        "0",
        str(7 * RATE),
    )
    ids = {
        name: [row["ID"] for row in rows_of(tmp_path / f"{name}.csv")]
        for name in ("dev", "enrol", "test")
    }
    assert ids == {
        "dev": ["c/x/1", "c/y/1"],
        "enrol": ["a/x/1"],
        "test": ["a/y/2", "b/x/2"],
    }
    assert rows_of(tmp_path / "dev.csv")[0]["stop"] == str(7 * RATE)


@pytest.mark.parametrize("whole", [False, True])
def test_short_files_make_a_row_or_are_left_out(tmp_path, whole):
    for name, seconds in (("long", 3.5), ("short", 2.0), ("tiny", 1.4)):
        write_wav(tmp_path / "wav" / "a" / "x" / f"{name}.wav", seconds)
    prepare_voxceleb(
        str(tmp_path),
        str(tmp_path),
        None,
        ["train"],
        [100, 0],
        random_segment=whole,
    )
    found = {
        row["ID"]: int(row["stop"]) for row in rows_of(tmp_path / "train.csv")
    }
    if whole:
        assert found == {"a--x--long": 56000, "a--x--short": 32000}
    else:
        assert found == {
            "a--x--long_0.0_3.0": 48000,
            "a--x--short_0.0_2.0": 32000,
        }


def test_quiet_chunks_are_left_out_unless_told_not_to(tmp_path):
    write_wav(tmp_path / "wav" / "a" / "x" / "loud.wav", 3)
    write_wav(tmp_path / "wav" / "a" / "x" / "quiet.wav", 3, level=0)
    for amp_th, count in ((5e-4, 1), (0, 2)):
        prepare_voxceleb(
            str(tmp_path), str(tmp_path), None, ["train"], amp_th=amp_th
        )
        assert len(rows_of(tmp_path / "train.csv")) == count


def test_done_once_and_again_when_a_list_changes(voxceleb, tmp_path):
    def prepare():
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), str(voxceleb / "test.txt")
        )
        return (tmp_path / "train.csv").stat().st_mtime_ns

    first = prepare()
    assert prepare() == first
    (voxceleb / "test.txt").write_text("1 f/x/1.wav f/y/1.wav\n")
    assert prepare() != first
    assert "f" not in speakers_of(tmp_path / "train.csv")


def test_a_training_that_has_begun_keeps_its_utterances(voxceleb, tmp_path):
    def prepare(data=voxceleb, save="save", **options):
        prepare_voxceleb(
            str(data),
            str(tmp_path / save),
            None,
            ["train", "dev"],
            [90, 10],
            **options,
        )
        return (tmp_path / save / "train.csv").read_text()

    first = prepare()
    # A file that was touched, or a corpus that has moved, is no other.
    (voxceleb / "wav" / "a" / "x" / "1.wav").touch()
    assert prepare(begun=True) == first
    moved = voxceleb.rename(tmp_path / "moved")
    assert prepare(moved, begun=True) == first.replace(
        str(voxceleb), str(moved)
    )
    # Other files or options stop, and the CSVs stay.
    for name in "123456789":
        write_wav(moved / "wav" / "a" / "x" / f"{name}.wav", 7)
    kept = (tmp_path / "save" / "train.csv").read_text()
    for options in ({}, {"seg_dur": 2.0}, {"random_segment": True}):
        with pytest.raises(UserError, match="train.csv: .*began.*skip_prep"):
            prepare(moved, begun=True, **options)
        assert (tmp_path / "save" / "train.csv").read_text() == kept
    # The answer does not depend on how often it is asked.
    with pytest.raises(UserError, match="would come"):
        prepare(moved, begun=True)
    assert prepare(moved, begun=False) != kept


def test_new_speakers_do_not_undo_the_test_split(voxceleb, tmp_path):
    arguments = (str(voxceleb), str(tmp_path), str(voxceleb / "test.txt"))
    prepare_voxceleb(*arguments)
    first = (tmp_path / "test.csv").stat().st_mtime_ns
    for session in "xy":
        write_wav(voxceleb / "wav" / "g" / session / "1.wav", 7)
    prepare_voxceleb(*arguments)
    assert "g" in speakers_of(tmp_path / "train.csv")
    assert (tmp_path / "test.csv").stat().st_mtime_ns == first
    write_wav(voxceleb / "wav" / "b" / "x" / "2.wav", 5)
    prepare_voxceleb(*arguments)
    assert rows_of(tmp_path / "test.csv")[1]["stop"] == str(5 * RATE)


def test_test_split_alone_does_not_undo_train(voxceleb, tmp_path):
    lists = str(voxceleb / "test.txt")
    prepare_voxceleb(str(voxceleb), str(tmp_path), lists, ["train", "dev"])
    first = (tmp_path / "train.csv").stat().st_mtime_ns
    prepare_voxceleb(str(voxceleb), str(tmp_path), lists, ["test"])
    prepare_voxceleb(str(voxceleb), str(tmp_path), lists, ["train", "dev"])
    assert (tmp_path / "train.csv").stat().st_mtime_ns == first


def test_interrupted_preparation_is_not_taken_for_done(
    voxceleb, tmp_path, monkeypatch
):
    whole = preparation.write_rows

    def interrupt(path, rows):
        if path.endswith("dev.csv"):
            raise KeyboardInterrupt
        whole(path, rows)

    arguments = (str(voxceleb), str(tmp_path), str(voxceleb / "test.txt"))
    monkeypatch.setattr(preparation, "write_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_voxceleb(*arguments)
    assert not (tmp_path / "dev.csv").exists()
    done = json.loads((tmp_path / preparation.OPT_FILE).read_text())
    assert done == {}
    monkeypatch.setattr(preparation, "write_rows", whole)
    prepare_voxceleb(*arguments)
    assert rows_of(tmp_path / "dev.csv")


def test_mistakes_are_one_sentence(voxceleb, tmp_path):
    def refused(match, data=voxceleb, lists=None, **options):
        options = {"splits": ["train"], **options}
        with pytest.raises(UserError, match=match):
            prepare_voxceleb(str(data), str(tmp_path / "out"), lists, **options)

    def trial_list(text):
        (tmp_path / "list.txt").write_text(text)
        return str(tmp_path / "list.txt")

    (tmp_path / "vox2" / "dev").mkdir(parents=True)
    (tmp_path / "vox2" / "dev" / "1.m4a").touch()
    (tmp_path / "void").mkdir()
    refused("ffmpeg", data=tmp_path / "vox2")
    refused("no wav/", data=tmp_path / "void")
    refused("no such folder", data=tmp_path / "nowhere")
    refused("trial list and none was given", splits=["test"])
    refused("some of 'train'", splits=["trian"])
    refused("split_ratio", split_ratio=[0, 10])
    refused("seg_dur", seg_dur=0)
    refused("missing or no zip", source=str(tmp_path))
    with zipfile.ZipFile(tmp_path / "vox1_test_wav.zip", "w") as archive:
        archive.writestr("elsewhere/1.wav", "")
    refused("holds no folder `wav`", source=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: the CSVs cannot be kept"):
        prepare_voxceleb(str(voxceleb), str(tmp_path / "file"), None, ["train"])
    refused("no such trial list", lists=str(tmp_path / "none.txt"))
    refused("empty", lists=trial_list("\n"))
    refused("line 2: .*expected", lists=trial_list("1 a/x/1 b/x/1\n1 a/x/1\n"))
    refused(
        r"1 utterances .* line 1: a/x/9\)",
        lists=trial_list("1 a/x/9.wav a/x/1.wav\n"),
        splits=["test"],
    )
    everyone = "".join(f"1 {s}/x/1.wav {s}/y/1.wav\n" for s in "abcdef")
    refused("none is left to train", lists=trial_list(everyone))
