"""Voices of public repositories: which are taken, and how they are built."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from imlkd_brain.corpora import building, voice_clips
from imlkd_brain.corpora.voice_clips import build, speakers_of
from imlkd_brain.errors import UserError


def noise(path, seconds, seed):
    """A clip of noise, levelled as speech is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds))
    soundfile.write(path, signal, 16000)


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """Two git repositories with the folders of the real ones."""
    clips, words = tmp_path / "clips", tmp_path / "words"
    noise(
        clips / "audio_data/librispeech_train-clean-100/12-3-0000.flac", 14, 0
    )
    noise(clips / "audio_data/librispeech_test-other/7/7-1-0000.flac", 5, 1)
    noise(clips / "audio_data/librispeech_test-other/7/7-1-0001.flac", 5, 2)
    (clips / "audio_data/other.mp3").write_bytes(b"no clip")
    for number in range(12):
        for speaker in ("aa", "bb"):
            name = f"{speaker}_nohash_{number}.wav"
            seed = 100 + 2 * number + (speaker == "aa")
            if speaker == "aa" or number < 5:
                noise(
                    words / voice_clips.REPOSITORIES[1].folder / "up" / name,
                    1,
                    seed,
                )
    found = []
    for folder, row in zip(
        (clips, words), voice_clips.REPOSITORIES, strict=False
    ):
        git = [
            "git",
            "-C",
            str(folder),
            "-c",
            "user.name=n",
            "-c",
            "user.email=e",
        ]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "clips"], check=True)
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        found.append(replace(row, commit=commit))
    monkeypatch.setattr(voice_clips, "REPOSITORIES", tuple(found))
    return {"librispeech": clips, "commands": words}


def test_speakers_with_few_or_too_many_words_are_left_out():
    words = [f"x/up/aa_nohash_{n}.wav" for n in range(10)]
    few = [f"x/up/bb_nohash_{n}.wav" for n in range(9)]
    many = [f"x/up/cc_nohash_{n}.wav" for n in range(61)]
    silence = ["x/_silence_/1024.wav"]
    found = speakers_of("commands", words + few + many + silence)
    assert {name: len(clips) for name, clips in found.items()} == {
        "commands-aa": 10
    }


def test_clips_become_speakers_of_a_corpus(repositories, tmp_path):
    manifest = build(tmp_path / "corpus", repositories)
    # 14 s are two utterances; two clips of 5 s are one each.
    assert {n: r["utterances"] for n, r in manifest["speakers"].items()} == {
        "librispeech-12": 2,
        "librispeech-7": 2,
        "commands-aa": 3,
    }
    for path in (tmp_path / "corpus" / "wav").rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert 4 <= info.duration <= 8
    # Pairs of a voice's utterances, and those of the two voices of a pack.
    assert manifest["trials"] == {"unseen.txt": [1 + 1 + 3, 2 * 2]}
    lines = (tmp_path / "corpus/trials/unseen.txt").read_text("utf-8")
    for label, enrolment, test in map(str.split, lines.splitlines()):
        voices = [side.split("/")[0] for side in (enrolment, test)]
        assert (label == "1") == (voices[0] == voices[1])
        assert len({voice.split("-")[0] for voice in voices}) == 1
        assert enrolment != test
        for side in (enrolment, test):
            assert (tmp_path / "corpus/wav" / side).is_file()
    assert build(tmp_path / "corpus") == json.loads(
        (tmp_path / "corpus" / "manifest.json").read_text("utf-8")
    )


def test_a_folder_that_is_no_clone_is_refused(repositories, tmp_path):
    other = tmp_path / "empty"
    other.mkdir()
    with pytest.raises(
        UserError, match="--librispeech .*empty: is no clone of"
    ):
        build(tmp_path / "corpus", {**repositories, "librispeech": other})


def test_too_small_a_disk_is_said_before_decoding(
    repositories, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        building.shutil, "disk_usage", lambda _: SimpleNamespace(free=100)
    )
    with pytest.raises(UserError, match="are needed to decode the clips"):
        build(tmp_path / "corpus", repositories)
    assert not list((tmp_path / "corpus").rglob("*.wav"))
