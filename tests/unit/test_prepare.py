"""Data preparation: the CSVs against what was put into small wav folders."""

import csv
import json
import zipfile

import numpy as np
import pytest
import soundfile
import voxceleb_prepare
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.errors import UserError

RATE = 16000


def write_wav(path, seconds, rate=RATE, channels=1, level=0.1):
    """A wav file of noise (of zeros at level 0)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(round(seconds * rate)), channels)
    noise = np.random.default_rng(0).uniform(-level, level, shape)
    soundfile.write(path, noise, rate, "PCM_16")


def rows_of(path):
    """The rows of a CSV as dicts."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def speakers_of(path):
    """The speakers of a CSV."""
    return {row["spk_id"] for row in rows_of(path)}


@pytest.fixture
def corpus(tmp_path):
    """Six speakers of two sessions of two utterances of 7 s; two lists."""
    data = tmp_path / "data"
    for speaker in "abcdef":
        for session in "xy":
            for utterance in "12":
                write_wav(
                    data / "wav" / speaker / session / f"{utterance}.wav", 7
                )
    (data / "test.txt").write_text(
        "1 a/x/1.wav a/y/2.wav\n0 a/x/1.wav b/x/2.wav\n"
    )
    (data / "dev.txt").write_text("1 c/x/1.wav c/y/1.wav\n")
    return data


def test_columns_ids_and_chunks_are_upstreams(corpus, tmp_path):
    prepare_voxceleb(
        str(corpus), str(tmp_path), None, ["train", "dev"], [100, 0]
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
    assert rows[1]["wav"] == str(corpus / "wav" / "a" / "x" / "1.wav")
    assert len(rows) == 6 * 4 * 2
    assert rows_of(tmp_path / "dev.csv") == []


def test_lists_hold_speakers_out_and_name_whole_files(corpus, tmp_path):
    prepare_voxceleb(
        str(corpus),
        str(tmp_path),
        str(corpus / "test.txt"),
        dev_pairs_file=str(corpus / "dev.txt"),
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


def test_several_lists_are_separated_by_commas(corpus, tmp_path):
    lists = f"{corpus / 'test.txt'}, {corpus / 'dev.txt'}"
    prepare_voxceleb(str(corpus), str(tmp_path), lists)
    assert speakers_of(tmp_path / "train.csv") == set("def")
    assert speakers_of(tmp_path / "enrol.csv") == set("ac")


@pytest.mark.parametrize("by_speaker", [False, True])
def test_split_is_seeded_disjoint_and_of_the_ratio(
    corpus, tmp_path, by_speaker
):
    for place, seed in (("one", 1), ("two", 1), ("three", 2)):
        prepare_voxceleb(
            str(corpus),
            str(tmp_path / place),
            None,
            ["train", "dev"],
            [50, 50],
            split_speaker=by_speaker,
            seed=seed,
        )
    read = {
        place: [
            (tmp_path / place / name).read_text()
            for name in ("train.csv", "dev.csv")
        ]
        for place in ("one", "two", "three")
    }
    assert read["one"] == read["two"] != read["three"]
    key = "spk_id" if by_speaker else "wav"
    train, dev = (
        {row[key] for row in rows_of(tmp_path / "one" / name)}
        for name in ("train.csv", "dev.csv")
    )
    assert not train & dev
    assert len(train) == len(dev) == (3 if by_speaker else 12)


def sessions_of(path):
    """Speaker and session of each row of a CSV."""
    return {tuple(row["wav"].split("/")[-3:-1]) for row in rows_of(path)}


def test_dev_shares_no_session_with_training(tmp_path):
    sizes = {"a": "xxxyyz", "b": "xxxxxxxxxyz", "c": "xy", "d": "x"}
    for speaker, sessions in sizes.items():
        for number, session in enumerate(sessions):
            place = tmp_path / "wav" / speaker / session
            write_wav(place / f"{number}.wav", 1)
    prepare_voxceleb(
        str(tmp_path), str(tmp_path), None, ["train", "dev"], [90, 10], 1.0
    )
    train, dev = (
        sessions_of(tmp_path / f"{split}.csv") for split in ("train", "dev")
    )
    assert not train & dev
    assert len(train | dev) == 3 + 3 + 2 + 1
    # One session of each speaker with two, the nearest to a tenth; d has one.
    assert sorted(speaker for speaker, _ in dev) == ["a", "b", "c"]
    assert ("a", "z") in dev and ("b", "x") in train
    assert {speaker for speaker, _ in train} == set("abcd")


def test_another_speaker_leaves_the_dev_sessions_of_the_others(
    corpus, tmp_path
):
    def dev_sessions():
        prepare_voxceleb(
            str(corpus), str(tmp_path), None, ["train", "dev"], seed=3
        )
        return sessions_of(tmp_path / "dev.csv")

    first = dev_sessions()
    for session in "xy":
        write_wav(corpus / "wav" / "0" / session / "1.wav", 7)
    later = dev_sessions()
    assert first < later and len(later - first) == 1


def test_a_dev_split_of_speakers_with_one_session_is_refused(tmp_path):
    for speaker in "ab":
        for name in "12":
            write_wav(tmp_path / "wav" / speaker / "x" / f"{name}.wav", 3)
    arguments = (str(tmp_path), str(tmp_path), None)
    with pytest.raises(UserError, match="all 2 speakers have one.*trials"):
        prepare_voxceleb(*arguments, ["train", "dev"], [90, 10])
    # Nothing is asked of dev here.
    prepare_voxceleb(*arguments, ["train", "dev"], [100, 0])
    prepare_voxceleb(*arguments, ["train"], [90, 10])
    assert len(rows_of(tmp_path / "train.csv")) == 4


def test_dev_has_no_speaker_whose_training_rows_are_lost(corpus, tmp_path):
    # Its two files of session x are too short, so that one session is left.
    for name in "12":
        write_wav(corpus / "wav" / "a" / "x" / f"{name}.wav", 1)
        (corpus / "wav" / "a" / "x" / f"{name}0.wav").write_bytes(
            (corpus / "wav" / "a" / "x" / f"{name}.wav").read_bytes()
        )
    # Dev takes y, which has half as many files as x.
    prepare_voxceleb(
        str(corpus), str(tmp_path), None, ["train", "dev"], [90, 10]
    )
    assert speakers_of(tmp_path / "train.csv") == set("bcdef")
    assert speakers_of(tmp_path / "dev.csv") == set("bcdef")


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


def test_lengths_come_from_headers(corpus, tmp_path, monkeypatch):
    def refuse(path, sample_rate):
        raise AssertionError(f"decoded {path}")

    monkeypatch.setattr(voxceleb_prepare, "read_audio", refuse)
    prepare_voxceleb(
        str(corpus),
        str(tmp_path),
        str(corpus / "test.txt"),
        dev_pairs_file=str(corpus / "dev.txt"),
        random_segment=True,
    )


def test_two_data_folders_and_a_file_in_both(tmp_path):
    write_wav(tmp_path / "one" / "wav" / "a" / "x" / "1.wav", 3)
    write_wav(tmp_path / "two" / "wav" / "b" / "x" / "1.wav", 3)
    both = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    prepare_voxceleb(both, str(tmp_path), None, ["train"])
    assert speakers_of(tmp_path / "train.csv") == {"a", "b"}
    write_wav(tmp_path / "two" / "wav" / "a" / "x" / "1.wav", 3)
    with pytest.raises(UserError, match="one data folder"):
        prepare_voxceleb(both, str(tmp_path / "again"), None, ["train"])


def test_done_once_and_again_when_a_list_changes(corpus, tmp_path):
    def prepare():
        prepare_voxceleb(str(corpus), str(tmp_path), str(corpus / "test.txt"))
        return (tmp_path / "train.csv").stat().st_mtime_ns

    first = prepare()
    assert prepare() == first
    (corpus / "test.txt").write_text("1 f/x/1.wav f/y/1.wav\n")
    assert prepare() != first
    assert "f" not in speakers_of(tmp_path / "train.csv")


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are opened, in a list that grows."""
    names = []
    for function in ("check_audio", "read_audio"):
        whole = getattr(voxceleb_prepare, function)

        def watched(path, sample_rate, whole=whole):
            names.append("/".join(path.split("/")[-3:]))
            return whole(path, sample_rate=sample_rate)

        monkeypatch.setattr(voxceleb_prepare, function, watched)
    return names


def test_files_that_come_change_or_go_are_noticed(corpus, tmp_path, decoded):
    """And no file is read that is as it was."""

    def prepare():
        decoded.clear()
        prepare_voxceleb(str(corpus), str(tmp_path), str(corpus / "test.txt"))
        found = sum(
            (rows_of(tmp_path / f"{name}.csv") for name in ("train", "dev")),
            [],
        )
        return {row["wav"].split("wav/", 1)[1] for row in found}

    first = prepare()
    assert first >= {"c/x/1.wav", "f/y/2.wav"}
    prepare()
    assert decoded == []
    # Speakers and files come.
    for session in "xy":
        write_wav(corpus / "wav" / "g" / session / "1.wav", 7)
    write_wav(corpus / "wav" / "c" / "x" / "3.wav", 7)
    more = {"g/x/1.wav", "g/y/1.wav", "c/x/3.wav"}
    assert prepare() == first | more
    assert set(decoded) == more
    # A file gets another content.
    write_wav(corpus / "wav" / "d" / "y" / "1.wav", 4)
    prepare()
    assert decoded == ["d/y/1.wav"]
    rows = rows_of(tmp_path / "train.csv") + rows_of(tmp_path / "dev.csv")
    (row,) = (row for row in rows if row["wav"].endswith("d/y/1.wav"))
    assert float(row["duration"]) == 4
    # They go again.
    for name in more:
        (corpus / "wav" / name).unlink()
    assert prepare() == first
    assert decoded == []


def test_an_edited_file_of_equal_size_is_noticed(corpus, tmp_path):
    place = corpus / "wav" / "c" / "x" / "1.wav"
    arguments = (str(corpus), str(tmp_path), None, ["train"], [100, 0])
    prepare_voxceleb(*arguments)
    n_rows = len(rows_of(tmp_path / "train.csv"))
    write_wav(place, 7, level=0)
    prepare_voxceleb(*arguments)
    assert len(rows_of(tmp_path / "train.csv")) == n_rows - 2


def test_changed_options_are_noticed(corpus, tmp_path, decoded):
    def rows(**options):
        decoded.clear()
        prepare_voxceleb(
            str(corpus), str(tmp_path), None, ["train"], [100, 0], **options
        )
        return len(rows_of(tmp_path / "train.csv"))

    assert rows(seg_dur=3.0) == 24 * 2
    assert rows(seg_dur=2.0) == 24 * 3
    assert len(decoded) == 24
    # Levels are kept, so another threshold reads nothing.
    assert rows(seg_dur=2.0, amp_th=0) == 24 * 3
    assert rows(seg_dur=2.0, random_segment=True) == 24
    assert decoded == []


def test_what_an_interrupted_preparation_has_read_is_kept(
    corpus, tmp_path, decoded, monkeypatch
):
    arguments = (str(corpus), str(tmp_path), None, ["train"], [100, 0])
    samples = voxceleb_prepare.read_audio

    def interrupt(path, sample_rate):
        if path.endswith("d/x/1.wav"):
            raise KeyboardInterrupt
        return samples(path, sample_rate=sample_rate)

    monkeypatch.setattr(voxceleb_prepare, "read_audio", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_voxceleb(*arguments, n_jobs=1)
    monkeypatch.setattr(voxceleb_prepare, "read_audio", samples)
    # A line that was being written is cut short.
    kept = tmp_path / voxceleb_prepare.MEASURED_FILE
    text = kept.read_text()
    assert text.count("\n") == 12
    kept.write_text(text[:-4])
    decoded.clear()
    prepare_voxceleb(*arguments)
    assert len(decoded) == 24 - 12 + 1
    again = tmp_path / "again"
    prepare_voxceleb(str(corpus), str(again), None, ["train"], [100, 0])
    assert rows_of(again / "train.csv") == rows_of(tmp_path / "train.csv")


def test_a_training_that_has_begun_keeps_its_utterances(corpus, tmp_path):
    def prepare(data=corpus, save="save", **options):
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
    (corpus / "wav" / "a" / "x" / "1.wav").touch()
    assert prepare(begun=True) == first
    moved = corpus.rename(tmp_path / "moved")
    assert prepare(moved, begun=True) == first.replace(str(corpus), str(moved))
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


def test_another_sampling_rate_is_counted_or_refused(tmp_path):
    """Though the files were read before, at their own rate."""
    write_wav(tmp_path / "wav" / "a" / "x" / "1.wav", 7, rate=8000)
    write_wav(tmp_path / "wav" / "b" / "x" / "1.wav", 1, rate=8000)
    arguments = (str(tmp_path), str(tmp_path), None, ["train"], [100, 0])
    prepare_voxceleb(*arguments, sample_rate=8000)
    places = [
        (row["duration"], row["start"], row["stop"])
        for row in rows_of(tmp_path / "train.csv")
    ]
    # Two chunks of 3 s; what has 1 s is less than half of one.
    assert places == [("7.0", "0", "24000"), ("7.0", "24000", "48000")]
    with pytest.raises(UserError, match="mono audio at 16000 Hz, .*8000 Hz"):
        prepare_voxceleb(*arguments)


def test_new_speakers_do_not_undo_the_test_split(corpus, tmp_path):
    arguments = (str(corpus), str(tmp_path), str(corpus / "test.txt"))
    prepare_voxceleb(*arguments)
    first = (tmp_path / "test.csv").stat().st_mtime_ns
    for session in "xy":
        write_wav(corpus / "wav" / "g" / session / "1.wav", 7)
    prepare_voxceleb(*arguments)
    assert "g" in speakers_of(tmp_path / "train.csv")
    assert (tmp_path / "test.csv").stat().st_mtime_ns == first
    write_wav(corpus / "wav" / "b" / "x" / "2.wav", 5)
    prepare_voxceleb(*arguments)
    assert rows_of(tmp_path / "test.csv")[1]["stop"] == str(5 * RATE)


def test_test_split_alone_does_not_undo_train(corpus, tmp_path):
    lists = str(corpus / "test.txt")
    prepare_voxceleb(str(corpus), str(tmp_path), lists, ["train", "dev"])
    first = (tmp_path / "train.csv").stat().st_mtime_ns
    prepare_voxceleb(str(corpus), str(tmp_path), lists, ["test"])
    prepare_voxceleb(str(corpus), str(tmp_path), lists, ["train", "dev"])
    assert (tmp_path / "train.csv").stat().st_mtime_ns == first


def test_interrupted_preparation_is_not_taken_for_done(
    corpus, tmp_path, monkeypatch
):
    whole = voxceleb_prepare._write_csv

    def interrupt(path, rows):
        if path.endswith("dev.csv"):
            raise KeyboardInterrupt
        whole(path, rows)

    arguments = (str(corpus), str(tmp_path), str(corpus / "test.txt"))
    monkeypatch.setattr(voxceleb_prepare, "_write_csv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_voxceleb(*arguments)
    assert not (tmp_path / "dev.csv").exists()
    done = json.loads((tmp_path / voxceleb_prepare.OPT_FILE).read_text())
    assert done == {}
    monkeypatch.setattr(voxceleb_prepare, "_write_csv", whole)
    prepare_voxceleb(*arguments)
    assert rows_of(tmp_path / "dev.csv")


def test_source_archive_is_unpacked_once(corpus, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "vox1_test_wav.zip", "w") as archive:
        archive.write(
            corpus / "wav" / "a" / "x" / "1.wav", "wav/id10270/x/1.wav"
        )
    for _ in range(2):
        prepare_voxceleb(
            str(corpus), str(tmp_path), None, ["train"], source=str(source)
        )
    assert "id10270" in speakers_of(tmp_path / "train.csv")
    assert not (corpus / ".unpacking").exists()


def test_bad_audio_is_named(corpus, tmp_path):
    place = corpus / "wav" / "f" / "x"
    write_wav(place / "rate.wav", 3, rate=8000)
    write_wav(place / "stereo.wav", 3, channels=2)
    write_wav(place / "void.wav", 0)
    (place / "broken.wav").write_bytes(b"no audio")
    soundfile.write(place / "nan.wav", [0.0, np.nan] * 24000, 16000, "FLOAT")
    with pytest.raises(UserError) as error:
        prepare_voxceleb(str(corpus), str(tmp_path), None, ["train"], [100, 0])
    message = str(error.value)
    assert message.startswith("5 of ")
    for reason in (
        "broken.wav: this audio file is broken",
        "nan.wav: sample 1 is NaN or infinite",
        "rate.wav: expected mono audio at 16000 Hz, found 1 channel(s) at "
        "8000 Hz",
        "found 2 channel(s) at 16000 Hz",
        "void.wav: the audio file is empty",
    ):
        assert reason in message


def test_mistakes_are_one_sentence(corpus, tmp_path):
    def refused(match, data=corpus, lists=None, **options):
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
        prepare_voxceleb(str(corpus), str(tmp_path / "file"), None, ["train"])
    refused("cannot be read", lists=str(tmp_path / "none.txt"))
    refused("empty", lists=trial_list("\n"))
    refused("line 2: expected", lists=trial_list("1 a/x/1 b/x/1\n1 a/x/1\n"))
    refused(
        r"1 utterances .* line 1: a/x/9.wav",
        lists=trial_list("1 a/x/9.wav a/x/1.wav\n"),
        splits=["test"],
    )
    everyone = "".join(f"1 {s}/x/1.wav {s}/y/1.wav\n" for s in "abcdef")
    refused("none is left to train", lists=trial_list(everyone))
