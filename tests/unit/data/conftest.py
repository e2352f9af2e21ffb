"""Fixtures that several test files of this folder share."""

import pytest
from helpers.prepared import write_wav


@pytest.fixture
def voxceleb(tmp_path):
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
