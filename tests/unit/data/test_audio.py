"""Unit tests of ``imlkd_brain.data.audio``."""

import os

import numpy as np
import pytest
import soundfile
import torch
from synthetic import RATE, write_wav

from imlkd_brain.data.audio import (
    check_audio,
    converted_length,
    read_audio,
    read_converted,
    read_waveform,
    repeat_to,
)
from imlkd_brain.errors import UserError


def test_repeat_to():
    signal = torch.arange(4)
    assert torch.equal(repeat_to(signal, 2), signal[:2])
    assert repeat_to(signal, 9).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_each_broken_file_has_its_sentence(tmp_path):
    good = write_wav(tmp_path / "good.wav", 0.1, 200, 0)
    stereo = write_wav(tmp_path / "stereo.wav", 0.1, 200, 0, channels=2)
    slow = write_wav(tmp_path / "slow.wav", 0.1, 200, 0, rate=8000)
    empty = write_wav(tmp_path / "empty.wav", 0.0, 200, 0)
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    for value in ("nan", "-inf"):
        samples = np.zeros(1600, "float32")
        samples[700] = float(value)
        soundfile.write(tmp_path / f"{value}.wav", samples, RATE, "FLOAT")
    assert read_audio(good).shape == (1600,)
    assert torch.equal(read_audio(good, 100, 50), read_audio(good)[100:150])
    for path, words in {
        str(tmp_path / "none.wav"): "missing; restore",
        str(text): "broken; restore",
        str(tmp_path): "broken; restore",
        stereo: "2 channel.*16000 Hz; convert",
        slow: "1 channel.*8000 Hz; convert",
        empty: "the audio file is empty; restore",
        str(tmp_path / "nan.wav"): "sample 700 is NaN or infinite; restore",
        str(tmp_path / "-inf.wav"): "sample 700 is NaN or infinite; restore",
    }.items():
        with pytest.raises(UserError, match=f"^{path}: .*{words}") as raised:
            read_audio(path)
        assert "\n" not in str(raised.value)
    # Where in the file, also if it is read from another sample on.
    with pytest.raises(UserError, match="nan.wav: sample 700 is NaN"):
        read_audio(str(tmp_path / "nan.wav"), 650, 100)
    with pytest.raises(UserError, match="no samples from 5000 on; the CSV"):
        read_audio(good, 5000, 10)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "a.wav"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = "/dev/zero"
    elif kind == "folder":
        path.mkdir()
    else:
        os.symlink(path, path)
    with pytest.raises(UserError, match=f"^{path}: this "):
        check_audio(path, 16000)


@pytest.mark.parametrize("rate", [44100, 48000, 16000, 8000, 11025])
def test_a_part_of_a_converted_file_is_that_of_the_whole(tmp_path, rate):
    """Read without the rest of the file, at both ends and within."""
    generator = np.random.default_rng(rate)
    path = tmp_path / "a.wav"
    samples = generator.uniform(-0.5, 0.5, (rate + 123, 2))
    soundfile.write(path, samples, rate, subtype="FLOAT")
    whole = read_waveform(path, 16000)
    n_samples, converted = converted_length(path, 16000)
    assert n_samples == len(whole) and converted == f"2 channels at {rate} Hz"
    for start, length in ((0, n_samples), (0, 100), (4321, 5000)):
        part = read_converted(path, start, length, 16000)
        # float32 sums of a few dozen products
        torch.testing.assert_close(
            part, whole[start : start + length], rtol=0, atol=1e-6
        )
    assert len(read_converted(path, n_samples - 10, 50, 16000)) == 10


def test_what_is_too_long_for_the_memory_is_refused(tmp_path):
    """Two hours take no longer to refuse than a second: the header says it."""
    path = write_wav(tmp_path / "a.wav", 2.0, 200, 0)
    assert len(read_waveform(path, RATE, 2)) == 2 * RATE
    with pytest.raises(UserError, match="is 2 s long, and at most 1.5 s"):
        read_waveform(path, RATE, 1.5)
