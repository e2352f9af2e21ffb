"""Small corpora of noise, and the rows of their CSVs."""

import csv

import numpy as np
import soundfile

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
