"""Reads audio files: whole, a part, or only the length and the format.

Authors: IML-KD contributors
"""

import os

import numpy as np
import soundfile
import torch
import torchaudio

from imlkd_brain.errors import UserError


def seconds_of(path):
    """Duration of an audio file, from its header."""
    try:
        return soundfile.info(path).duration
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error


def read_waveform(path, sample_rate):
    """Samples (N,) of a file, mixed to mono and resampled where needed."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error
    check_samples(samples, path)
    signal = torch.from_numpy(samples).mean(1)
    if rate != sample_rate:
        signal = torchaudio.functional.resample(signal, rate, sample_rate)
    return signal


def read_audio(wav, start=0, n_samples=-1, sample_rate=16000):
    """Read samples of a mono file.

    Arguments
    ---------
    wav : str
        Path of the file.
    start : int
        First sample.
    n_samples : int
        Number of samples; -1 for all.
    sample_rate : int
        The rate the file must have, in Hz.

    Returns
    -------
    signal : torch.Tensor
        (samples,), float32.

    Raises
    ------
    UserError
        If the file is missing, unreadable, empty, not mono, of another
        sampling rate, or holds NaN or infinity.
    """
    try:
        signal, rate = soundfile.read(
            wav, start=start, frames=n_samples, dtype="float32"
        )
    except (soundfile.LibsndfileError, RuntimeError) as error:
        state = "broken" if os.path.exists(wav) else "missing"
        raise UserError(
            f"{wav}: this audio file is {state}; restore it, or prepare the "
            "data again with `--skip_prep False` in a new save_folder."
        ) from error
    if rate != sample_rate or signal.ndim != 1:
        raise UserError(
            f"{wav}: expected mono audio at {sample_rate} Hz, found "
            f"{1 if signal.ndim == 1 else signal.shape[1]} channel(s) at "
            f"{rate} Hz; convert the file, or give the corpus's sample_rate."
        )
    if not len(signal):
        raise UserError(
            f"{wav}: no samples from {start} on; the CSV does not fit the "
            "file, prepare the data again."
        )
    check_samples(signal, wav, start)
    return torch.from_numpy(signal)


def repeat_to(signal, n_samples):
    """Repeat a signal (samples,) until it has ``n_samples`` samples.

    Example
    -------
    >>> repeat_to(torch.tensor([1, 2, 3]), 5)
    tensor([1, 2, 3, 1, 2])
    """
    if len(signal) >= n_samples:
        return signal[:n_samples]
    return signal.repeat(-(-n_samples // len(signal)))[:n_samples]


def check_audio(path, sample_rate):
    """Number of samples by the header; UserError where it is of no use."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(
            f"{path}: not a readable audio file ({error}); restore it, or "
            "take its trials out of the list."
        ) from error
    if info.samplerate != sample_rate or info.channels != 1:
        raise UserError(
            f"{path}: expected one channel at {sample_rate} Hz, as the model "
            f"was trained, but found {info.channels} at {info.samplerate} Hz; "
            "convert the file."
        )
    if info.frames == 0:
        raise UserError(
            f"{path}: the audio file is empty; restore it, or take its trials "
            "out of the list."
        )
    return info.frames


def check_samples(samples, path, start=0):
    """Refuse audio with NaN or infinite samples, which a float file can hold.

    Arguments
    ---------
    samples : numpy.ndarray
        What was read, (samples,) or (samples, channels).
    path : str
        The file, for the message.
    start : int
        Where in the file it was read from, in samples.

    Raises
    ------
    UserError
        Naming the file and its first bad sample.

    Example
    -------
    >>> check_samples(np.array([0.5, np.nan]), "a.wav", start=100)
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: a.wav: sample 101 is NaN or infinite; \
restore the file, or take it out of the list or CSV that names it.
    """
    finite = np.isfinite(samples)
    if finite.all():
        return
    bad = ~finite.reshape(len(samples), -1).all(1)
    raise UserError(
        f"{path}: sample {start + int(np.argmax(bad))} is NaN or infinite; "
        "restore the file, or take it out of the list or CSV that names it."
    )
