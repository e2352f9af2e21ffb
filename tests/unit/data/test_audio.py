"""Unit tests of ``imlkd_brain.data.audio``."""

import os

import numpy as np
import pytest
import soundfile
import torch
from synthetic import RATE, write_wav

from imlkd_brain.data.audio import check_audio, read_audio, repeat_to
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
