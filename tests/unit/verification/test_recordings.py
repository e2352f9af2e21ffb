"""Recordings as people bring them: any format, or a sentence that says why not."""

import os

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from helpers.verification import Model

from imlkd_brain.errors import UserError
from imlkd_brain.verification import recordings
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.recordings import (
    embed_recording,
    embed_recordings,
    find_recordings,
    seconds_of_sound,
)
from imlkd_brain.verification.scoring import unit_length

RATE = 16000


def sound(seconds=1.0, rate=RATE, seed=0):
    """A hum below 2 kHz, so that resampling keeps it."""
    time = np.arange(int(seconds * rate)) / rate
    phases = np.random.default_rng(seed).uniform(0, 6, 9)
    return 0.05 * sum(
        np.sin(2 * np.pi * 200 * (k + 1) * time + phase)
        for k, phase in enumerate(phases)
    )


def embedding(path):
    return embed_recording(Model(), path).embedding


@pytest.fixture
def plain(tmp_path):
    """The embedding of a mono file at the model's rate."""
    path = str(tmp_path / "plain.wav")
    soundfile.write(path, sound(), RATE, "FLOAT")
    return embedding(path)


# Moments of the samples: what rounding to 8 bits (1/256, beside an amplitude of
# about 0.1) or MP3 changes is a few percent.
@pytest.mark.parametrize(
    "name, subtype, rate, channels, close",
    [
        ("a.wav", "PCM_16", RATE, 1, 1e-3),
        ("a.wav", "PCM_U8", RATE, 1, 5e-2),
        ("a.wav", "PCM_24", 96000, 2, 2e-2),
        ("a.flac", "PCM_16", 44100, 2, 2e-2),
        ("a.wav", "ULAW", 8000, 1, 5e-2),
        ("a.ogg", "VORBIS", 48000, 1, 5e-2),
        ("a.mp3", "MPEG_LAYER_III", 44100, 2, 1e-1),
        ("a.aiff", "PCM_16", RATE, 3, 1e-3),
        ("a.WAV.backup", "PCM_16", RATE, 1, 1e-3),
    ],
)
def test_any_format_rate_and_channels(
    tmp_path, plain, name, subtype, rate, channels, close
):
    path = tmp_path / name
    samples = np.stack([sound(rate=rate)] * channels, axis=1)
    kind = name.split(".")[1].upper()
    soundfile.write(path, samples, rate, subtype, format=kind)
    found = embedding(str(path))
    assert float((found - plain).norm() / plain.norm()) < close


def test_the_embedding_is_that_of_verify(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sound(1.5), RATE, "PCM_16")
    stored, seconds = Embedder(tmp_path / "store")(Model(), [path])
    found = embed_recording(Model(), path)
    assert torch.equal(found.embedding, stored[0])
    assert found.seconds == pytest.approx(float(seconds[0]))


def test_a_long_recording_is_embedded_in_equal_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "BLOCK_SECONDS", 1.0)
    path = str(tmp_path / "a.wav")
    samples = sound(2.4).astype(np.float32)
    samples[: RATE // 4] = 0
    soundfile.write(path, samples, RATE, "FLOAT")
    model = Model()
    found = embed_recording(model, path)
    third = int(0.8 * RATE)
    assert model.batches == [[third]] * 3
    assert found.seconds == pytest.approx(2.4)
    parts = [
        model.embed(torch.from_numpy(part)[None], torch.ones(1))[0]
        for part in samples.reshape(3, third)
    ]
    expected = unit_length(torch.stack(parts)).mean(0)
    assert torch.allclose(found.embedding, expected, atol=1e-6)


def write_bad(folder, kind):
    """A bad file, and a word of the sentence that refuses it."""
    path = folder / f"{kind}.wav"
    if kind == "missing":
        return path, "no such file"
    if kind == "folder":
        path.mkdir()
        return path, "is a folder"
    if kind == "pipe":
        os.mkfifo(path)
        return path, "no regular file"
    if kind == "empty":
        path.touch()
        return path, "is empty"
    if kind == "text":
        path.write_text("this is text\n" * 100)
        return path, "no recording that can be read"
    if kind == "video":
        path = folder / "video.mp4"
        path.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" * 40)
        return path, "ffmpeg"
    if kind == "raw":
        path = folder / "headerless.raw"
        path.write_bytes(bytes(range(256)) * 300)
        return path, "no recording that can be read"
    if kind == "no-samples":
        soundfile.write(path, np.zeros(0), RATE)
        return path, "recording is empty"
    samples, word = sound(), kind
    if kind == "cut":
        soundfile.write(path, samples, RATE)
        path.write_bytes(path.read_bytes()[:30])
        return path, "no recording that can be read"
    if kind == "short":
        samples, word = sound(0.29), "too short .0.29 s"
    if kind == "two-samples":
        samples, word = sound(2 / RATE), "too short"
    if kind == "silent":
        samples = np.zeros(RATE)
    if kind == "constant":
        samples, word = np.full(RATE, 0.5), "silent"
    if kind == "click":
        samples = np.zeros(RATE)
        samples[:1600] = sound(0.1)
        word = "only 0.10 s of its 1.00 s"
    if kind == "nan":
        samples[700], word = np.nan, "sample 700 is NaN"
    soundfile.write(path, samples, RATE, "FLOAT")
    return path, word


BAD = (
    "missing folder pipe empty text video raw no-samples cut short two-samples "
    "silent constant click nan"
).split()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_recording_is_refused_in_a_sentence(tmp_path, kind):
    path, word = write_bad(tmp_path, kind)
    with pytest.raises(UserError, match=word) as raised:
        embed_recording(Model(), str(path))
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    good = [str(tmp_path / f"{i}.wav") for i in range(2)]
    for seed, path in enumerate(good):
        soundfile.write(path, sound(seed=seed), RATE)
    bad = [str(write_bad(tmp_path, kind)[0]) for kind in BAD]
    embedded, reasons = embed_recordings(
        Model(), [good[0], *bad, good[1]], progress=False
    )
    assert [one.path for one in embedded] == good
    assert list(reasons) == bad


def test_an_embedding_that_is_not_finite_is_refused(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sound(), RATE)
    model = Model()
    model.embed = lambda wavs, lens: torch.full((1, 3), torch.nan)
    with pytest.raises(UserError, match="NaN or infinity"):
        embed_recording(model, path)


def test_folders_and_patterns_stand_for_files(tmp_path, monkeypatch):
    for name in ("b/2.wav", "b/1.FLAC", "b/c/3.mp3", "b/notes.txt", "x.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    (tmp_path / "[odd].wav").touch()
    monkeypatch.chdir(tmp_path)
    assert find_recordings(["b"]) == ["b/1.FLAC", "b/2.wav", "b/c/3.mp3"]
    assert find_recordings(["*.wav", "x.wav"]) == ["[odd].wav", "x.wav"]
    assert find_recordings(["[odd].wav", "no.wav"]) == ["[odd].wav", "no.wav"]
    with pytest.raises(UserError, match="no file fits"):
        find_recordings(["*.flac"])
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no recording in this folder"):
        find_recordings(["none"])


def test_sound_is_what_is_near_the_loudest():
    signal = torch.from_numpy(sound(1.0))
    signal[:4800] *= 1e-4
    assert seconds_of_sound(signal, RATE) == pytest.approx(0.7, abs=0.02)
    assert seconds_of_sound(1e-6 * signal, RATE) == 0.0
    low = torchaudio.functional.resample(signal.float(), RATE, 8000)
    assert seconds_of_sound(low, 8000) == pytest.approx(0.7, abs=0.02)
