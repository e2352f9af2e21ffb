"""A folder of audio becomes a CSV."""

import logging

import numpy as np
import pytest
import soundfile
from synthetic import RATE, write_wav

from imlkd_brain.data.annotations import read_annotation
from imlkd_brain.data.datasets import train_dataset
from imlkd_brain.data.measured import MeasuredFiles
from imlkd_brain.data.unlabelled_folder import prepare_unlabelled
from imlkd_brain.errors import UserError


def prepare(folder, place, held_out=(), shortest=0.25):
    return prepare_unlabelled(str(folder), place, RATE, shortest, {*held_out})


def rows_of(path):
    return read_annotation(path, "")


@pytest.fixture
def folder(tmp_path):
    """Files of any layout and format; one is too short."""
    folder = tmp_path / "heap"
    write_wav(folder / "anna" / "a" / "1.wav", 0.5, 100, 1)
    write_wav(folder / "bert" / "1.wav", 0.75, 150, 2)
    write_wav(folder / "loose.wav", 1.0, 200, 3)
    write_wav(folder / "bert" / "short.wav", 0.2, 150, 4)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    for name in ("cleo/1.flac", "cleo/2.ogg", "cleo/3.AIFF"):
        (folder / "cleo").mkdir(exist_ok=True)
        soundfile.write(folder / name, noise, RATE)
    (folder / "cleo" / "notes.txt").write_text("no audio")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "1.wav").write_bytes(b"no audio")
    return folder


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "save")


def test_every_format_and_layout_is_found(folder, place, caplog):
    with caplog.at_level(logging.WARNING):
        rows = rows_of(prepare(folder, place))
    assert {key: row["spk_id"] for key, row in rows.items()} == {
        "unlabelled--anna--a--1.wav": "anna",
        "unlabelled--bert--1.wav": "bert",
        "unlabelled--cleo--1.flac": "cleo",
        "unlabelled--cleo--2.ogg": "cleo",
        "unlabelled--cleo--3.AIFF": "cleo",
        "unlabelled--loose.wav": "",
    }
    assert rows["unlabelled--bert--1.wav"]["duration"] == 0.75
    assert "1 of 7 files are shorter" in caplog.text
    assert "short.wav" in caplog.text
    assert caplog.text.count("nobody can say") == 1
    assert "loose.wav" in caplog.text


def test_speakers_of_trial_lists_are_left_out(folder, place, caplog):
    with caplog.at_level(logging.WARNING):
        rows = rows_of(prepare(folder, place, held_out=["bert", "zoe"]))
    assert {row["spk_id"] for row in rows.values()} == {"anna", "cleo", ""}
    assert "1 of its speakers are in the trial lists" in caplog.text


def test_it_is_made_once_for_each_state(folder, place, monkeypatch):
    path = prepare(folder, place)
    before = rows_of(path)

    def refuse(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(MeasuredFiles, "measure", refuse)
        assert rows_of(prepare(folder, place)) == before
    write_wav(folder / "dora" / "1.wav", 0.5, 100, 5)
    assert len(rows_of(prepare(folder, place))) == len(before) + 1


def test_files_that_cannot_be_used_are_named(folder, place):
    (folder / "anna" / "broken.wav").write_bytes(b"RIFF, but no audio")
    (folder / "anna" / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "anna" / "none.wav", np.zeros(0), RATE)
    with pytest.raises(UserError) as caught:
        prepare(folder, place)
    said = str(caught.value)
    assert "3 of 10 audio files" in said
    assert all(name in said for name in ("broken.wav", "empty.wav", "none.wav"))


def test_files_of_any_rate_and_channels_are_converted_as_they_are_read(
    folder, place
):
    """A tone of 44.1 kHz in two channels is the same tone at 16 kHz."""
    times = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * times)
    soundfile.write(
        folder / "anna" / "cd.flac", np.stack([tone, tone / 3], 1), 44100
    )
    rows = rows_of(prepare(folder, place))
    key = "unlabelled--anna--cd.flac"
    assert rows[key]["duration"] == 1.0
    dataset, _ = train_dataset(f"{place}/unlabelled.csv", "", 0.5, RATE, seed=3)
    signal = next(i["sig"] for i in dataset if i["id"] == key).numpy()
    assert len(signal) == RATE // 2
    # Away from the ends it is the mean of the channels, at some phase.
    phase = 2 * np.pi * 440 * np.arange(RATE // 2) / RATE
    base = np.stack([np.sin(phase), np.cos(phase)], 1)[50:-50]
    weights, (error,), *_ = np.linalg.lstsq(base, signal[50:-50], rcond=None)
    assert np.hypot(*weights) == pytest.approx(0.2, rel=0.01)
    assert error < 1e-4 * (signal**2).sum()


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda folder: None, "is no folder"),
        (lambda folder: folder.mkdir(), "no audio files"),
        (
            lambda folder: write_wav(folder / "a.wav", 0.1, 100, 1),
            "no utterance is left of 1 files",
        ),
    ],
)
def test_folders_without_anything_to_train_on(tmp_path, place, make, expected):
    folder = tmp_path / "other"
    make(folder)
    with pytest.raises(UserError, match=expected):
        prepare(folder, place)
