"""Audio clips on disk."""

import numpy as np
import soundfile


def write_clips(folder, count, suffix="wav", seconds=1.5, rate=22050):
    """Clips of noise, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = np.random.default_rng(index).uniform(
            -0.3, 0.3, int(seconds * rate)
        )
        soundfile.write(folder / f"{index:02d}.{suffix}", noise, rate)
    return [(str(path), None) for path in sorted(folder.iterdir())]
