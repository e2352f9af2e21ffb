"""Makes noises to train with: babble of a corpus' voices, and coloured noise.

Where no corpus of noises can be had, these are made from what is there. Babble
is several voices at once, each at the same power. Coloured noise has a power
spectrum of 1 / f^c, from white (c = 0) over pink (1) to brown (2).

The command::

    python -m imlkd_brain.corpora.noises --data_folder data/noise \\
        --voices data/voice_clips

Authors
 * IML-KD contributors
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from imlkd_brain.corpora.building import (
    finish,
    finished,
    keep_or_drop,
    need_space,
    sole_build,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.files import walk

NAME = "noises"
FORMAT = 1  # raised whenever the same voices would give other noises
PARTS = ("wav",)
RATE = 16000  # Hz
SECONDS = 10
N_BABBLE, N_COLOURED = 80, 40
FEWEST_VOICES, MOST_VOICES = 3, 8
SEED = 1986
LEVEL = 0.05  # root mean square; the loudest sample stays below 1


def coloured(rng, exponent, n_samples):
    """Return noise with a power spectrum of 1 / f^exponent.

    Arguments
    ---------
    rng : numpy.random.Generator
        Where numbers come from.
    exponent : float
        0 is white, 1 pink, 2 brown.
    n_samples : int
        Of the noise.

    Returns
    -------
    numpy.ndarray
        (n_samples,), float64, at the level of all noises.

    Example
    -------
    >>> noise = coloured(np.random.default_rng(1), 1.0, 16000)
    >>> round(float(np.sqrt(np.mean(noise**2))), 3)
    0.05
    """
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequencies = np.fft.rfftfreq(n_samples)
    # Without the mean, and with nothing below 20 Hz, which nobody hears.
    lowest = 20 / RATE
    gains = np.where(
        frequencies < lowest,
        0.0,
        np.maximum(frequencies, lowest) ** (-exponent / 2),
    )
    return levelled(np.fft.irfft(spectrum * gains, n_samples))


def babble(rng, files, n_samples):
    """Return several voices at once.

    Arguments
    ---------
    rng : numpy.random.Generator
        Where numbers come from.
    files : list of list of pathlib.Path
        Recordings of each voice.
    n_samples : int
        Of the babble.

    Returns
    -------
    numpy.ndarray
        (n_samples,), float64, at the level of all noises.
    """
    most = min(MOST_VOICES, len(files))
    n_voices = rng.integers(FEWEST_VOICES, most + 1)
    total = np.zeros(n_samples)
    for voice in rng.choice(len(files), n_voices, replace=False):
        recordings = files[voice]
        signal = _read(recordings[rng.integers(len(recordings))])
        # Of one voice as much as is needed, from anywhere in it on
        signal = np.roll(signal, -rng.integers(len(signal)))
        total += levelled(np.resize(signal, n_samples))
    return levelled(total)


def levelled(signal):
    """Return a signal at the level of all noises, without clipping."""
    scaled = signal * (LEVEL / np.sqrt(np.mean(signal**2)))
    return scaled / max(1.0, np.abs(scaled).max() / 0.99)


def build(data_folder, voices):
    """Make the noises, or do nothing where they are made already.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``wav`` and ``manifest.json`` go.
    voices : str or pathlib.Path
        A corpus laid out as VoxCeleb. Give one without test speakers.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        If there are too few voices, or a recording has another rate.

    Example
    -------
    >>> build("data/noise", "data/voice_clips")  # doctest: +SKIP
    """
    data_folder, voices = Path(data_folder), Path(voices)
    recordings = _recordings(voices)
    options = {
        "corpus": NAME,
        "format": FORMAT,
        "voices": sorted(recordings),
    }
    with sole_build(data_folder):
        manifest = finished(data_folder, options, PARTS)
        if manifest:
            return manifest
        work = keep_or_drop(data_folder, options, PARTS)
        number = N_BABBLE + N_COLOURED
        need_space(work, number * SECONDS * RATE * 2, "make the noises")
        files, n_samples = list(recordings.values()), SECONDS * RATE
        for index in tqdm(range(number), desc="noises", unit="file"):
            # One stream for each: an interrupted build makes the same ones.
            rng = np.random.default_rng([SEED, index])
            if index < N_BABBLE:
                name, noise = "babble", babble(rng, files, n_samples)
            else:
                name = "coloured"
                noise = coloured(rng, rng.uniform(0, 2), n_samples)
            path = work / "wav" / name / f"{name}{index:03d}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, noise, RATE, subtype="PCM_16")
        manifest = {"options": options, "seed": SEED, "files": number}
        finish(data_folder, PARTS, manifest)
        return manifest


def _recordings(voices):
    """Recordings of each voice of a corpus, by names, sorted."""
    root = voices / "wav"
    found = {}
    for place, _, names in sorted(walk(root)):
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix in (".wav", ".flac"):
                speaker = path.relative_to(root).parts[0]
                found.setdefault(speaker, []).append(path)
    if len(found) < FEWEST_VOICES:
        raise UserError(
            f"--voices {voices}: {len(found)} speakers below {root}, and babble "
            f"takes at least {FEWEST_VOICES}; give a corpus laid out as "
            "VoxCeleb, wav/SPEAKER/SESSION/UTTERANCE.wav."
        )
    return found


def _read(path):
    """The samples (n,) of a recording's first channel."""
    try:
        samples, rate = soundfile.read(path, always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore it, or take it out of "
            "the corpus."
        ) from None
    if rate != RATE:
        raise UserError(
            f"{path}: {rate} Hz, and noises have {RATE} Hz; give voices of that "
            "rate."
        )
    samples = samples[:, 0]
    if not np.any(samples):
        raise UserError(f"{path}: has no sound; take it out of the corpus.")
    return samples


def main(arguments=None):
    """Parse the command line, make the noises, and say what is where."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name if __spec__ else __name__}",
        description="Make babble and coloured noise to train with.",
    )
    parser.add_argument(
        "--data_folder", required=True, help="where the noises go"
    )
    parser.add_argument(
        "--voices",
        required=True,
        help="a corpus laid out as VoxCeleb, of whose voices babble is made",
    )
    chosen = parser.parse_args(arguments)
    manifest = build(chosen.data_folder, chosen.voices)
    print(
        f"{manifest['files']} noises of {SECONDS} s in {chosen.data_folder}; "
        f"train with --data_folder_noise {chosen.data_folder}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
