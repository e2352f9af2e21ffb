"""Unit tests of ``imlkd_brain.data.dev_split``."""

import pytest
from helpers.prepared import rows_of, speakers_of, write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.errors import UserError


@pytest.mark.parametrize("by_speaker", [False, True])
def test_split_is_seeded_disjoint_and_of_the_ratio(
    voxceleb, tmp_path, by_speaker
):
    for place, seed in (("one", 1), ("two", 1), ("three", 2)):
        prepare_voxceleb(
            str(voxceleb),
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
    voxceleb, tmp_path
):
    def dev_sessions():
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), None, ["train", "dev"], seed=3
        )
        return sessions_of(tmp_path / "dev.csv")

    first = dev_sessions()
    for session in "xy":
        write_wav(voxceleb / "wav" / "0" / session / "1.wav", 7)
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


def test_dev_has_no_speaker_whose_training_rows_are_lost(voxceleb, tmp_path):
    # Its two files of session x are too short, so that one session is left.
    for name in "12":
        write_wav(voxceleb / "wav" / "a" / "x" / f"{name}.wav", 1)
        (voxceleb / "wav" / "a" / "x" / f"{name}0.wav").write_bytes(
            (voxceleb / "wav" / "a" / "x" / f"{name}.wav").read_bytes()
        )
    # Dev takes y, which has half as many files as x.
    prepare_voxceleb(
        str(voxceleb), str(tmp_path), None, ["train", "dev"], [90, 10]
    )
    assert speakers_of(tmp_path / "train.csv") == set("bcdef")
    assert speakers_of(tmp_path / "dev.csv") == set("bcdef")
