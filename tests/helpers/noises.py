"""Small noises, and the rows of their CSVs."""

import io

import numpy as np
import soundfile

RATE = 16000
NAMES = ["n.0.wav", "n.1.wav", "n.2.wav"]


def wav(seconds=0.5, rate=RATE, channels=1):
    """A wav file of noise as bytes."""
    samples = np.random.default_rng(0).uniform(
        -0.1, 0.1, (int(seconds * rate), channels)
    )
    file = io.BytesIO()
    soundfile.write(file, samples, rate, "PCM_16", format="WAV")
    return file.getvalue()
