"""Fixtures that several test files of this folder share."""

import numpy as np
import pytest
import soundfile

RATE = 16000


@pytest.fixture
def corpus(tmp_path):
    """Noise of 3 speakers in 2 packs, 2 utterances each, 1 to 2 seconds."""
    rng = np.random.default_rng(0)
    for index, speaker in enumerate(("x-a", "x-b", "y-c")):
        for utterance in range(2):
            path = tmp_path / "wav" / speaker / "s1" / f"0000{utterance}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = rng.uniform(-0.5, 0.5, RATE + 4000 * (index % 2))
            soundfile.write(path, samples.astype(np.float32), RATE)
    (tmp_path / "list.txt").write_text(
        "1 x-a/s1/00000.wav x-a/s1/00001.wav\n"
        "0 x-a/s1/00000.wav x-b/s1/00001.wav\n"
        "1 x-b/s1/00000.wav x-b/s1/00001.wav\n"
        "0 y-c/s1/00000.wav x-a/s1/00001.wav\n"
    )
    return tmp_path
