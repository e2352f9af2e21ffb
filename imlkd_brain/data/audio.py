"""Reads audio files: whole, a part, or only the length and the format.

Authors: IML-KD contributors
"""

import os
import stat
from contextlib import contextmanager

import numpy as np
import soundfile
import torch
import torchaudio

from imlkd_brain.errors import UserError

FULL_SCALE = 0.9999  # 32764 of 16 bits
CLIPPED_SHARE = 0.01


@contextmanager
def opened(path):
    """Open an audio file for reading.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Yields
    ------
    file : soundfile.SoundFile

    Raises
    ------
    UserError
        If the file is missing, or cannot be opened or read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            # Opening a named pipe waits until someone writes to it.
            raise UserError(
                f"{path}: this audio file is broken; restore it, it is a pipe, "
                "a device or a folder, or take it out of the folder, list or "
                "CSV that names it."
            )
        with soundfile.SoundFile(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        state = "broken" if os.path.exists(path) else "missing"
        raise UserError(
            f"{path}: this audio file is {state}; restore it, or take it out "
            "of the folder, list or CSV that names it."
        ) from error


def seconds_of(path):
    """Return the duration of an audio file, from its header."""
    with opened(path) as file:
        return file.frames / file.samplerate


def read_waveform(path, sample_rate):
    """Read a file of any rate and number of channels.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    sample_rate : int
        The rate to resample to, in Hz.

    Returns
    -------
    torch.Tensor
        (samples,), float32, the mean of the channels.

    Raises
    ------
    UserError
        If the file is missing or broken, or holds NaN or infinity.
    """
    with opened(path) as file:
        samples = file.read(dtype="float32", always_2d=True)
        rate = file.samplerate
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
        If the file is missing, broken, empty, not mono, of another sampling
        rate, or holds NaN or infinity, or ends before ``start``.
    """
    with opened(wav) as file:
        _check_format(file, wav, sample_rate)
        file.seek(min(start, file.frames))
        signal = file.read(n_samples, dtype="float32")
    if not len(signal):
        raise UserError(
            f"{wav}: no samples from {start} on; the CSV does not fit the "
            "file, prepare the data again."
        )
    check_samples(signal, wav, start)
    return torch.from_numpy(signal)


def read_converted(path, start, n_samples, sample_rate):
    """Read samples of a file of any rate and number of channels.

    Arguments
    ---------
    path : str
        The file.
    start, n_samples : int
        First sample and number of samples, at ``sample_rate``.
    sample_rate : int
        The rate to resample to, in Hz.

    Returns
    -------
    torch.Tensor
        (samples,), float32, the mean of the channels. A few samples at the
        ends of a resampled part may differ from those of the whole file.

    Raises
    ------
    UserError
        If the file is missing or broken, ends before ``start``, or holds NaN
        or infinity.
    """
    with opened(path) as file:
        rate, n_channels = file.samplerate, file.channels
        if (rate, n_channels) != (sample_rate, 1):
            first = start * rate // sample_rate
            file.seek(min(first, file.frames))
            n_read = -(-n_samples * rate // sample_rate)
            samples = file.read(n_read, dtype="float32", always_2d=True)
    if (rate, n_channels) == (sample_rate, 1):
        return read_audio(path, start, n_samples, sample_rate)
    if not len(samples):
        raise UserError(
            f"{path}: ends before sample {first}, where it did not before; "
            "restore it, or prepare the data again."
        )
    check_samples(samples, path, first)
    signal = torch.from_numpy(samples).mean(1)
    if rate != sample_rate:
        signal = torchaudio.functional.resample(signal, rate, sample_rate)
    return signal[:n_samples]


def samples_of(path, sample_rate):
    """Return how many samples a file has at a rate, from its header.

    Arguments
    ---------
    path : str
        A file of any rate and number of channels.
    sample_rate : int
        In Hz.

    Returns
    -------
    int

    Raises
    ------
    UserError
        If the file is missing, broken or empty.
    """
    with opened(path) as file:
        if not file.frames:
            raise UserError(
                f"{path}: the audio file is empty; restore it, or take it out "
                "of the folder, list or CSV that names it."
            )
        return file.frames * sample_rate // file.samplerate


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
    """Check the format of a mono file without reading its samples.

    Arguments
    ---------
    path : str
        The file.
    sample_rate : int
        The rate the file must have, in Hz.

    Returns
    -------
    int
        Its number of samples.

    Raises
    ------
    UserError
        If the file is missing, broken, empty, not mono or of another rate.
    """
    with opened(path) as file:
        _check_format(file, path, sample_rate)
        return file.frames


def flaw_of(samples):
    """Say what makes speech useless though it can be computed with.

    Arguments
    ---------
    samples : numpy.ndarray
        Finite, (samples,).

    Returns
    -------
    str
        ``silent``, ``constant``, ``clipped``, or empty. Clipped are those
        with a hundredth of their samples or more at full scale.

    Example
    -------
    >>> flaw_of(np.zeros(9)), flaw_of(np.ones(9) / 2), flaw_of(np.eye(9)[0] / 2)
    ('silent', 'constant', '')
    """
    if not samples.any():
        return "silent"
    if samples.min() == samples.max():
        return "constant"
    if np.mean(np.abs(samples) >= FULL_SCALE) >= CLIPPED_SHARE:
        return "clipped"
    return ""


def _check_format(file, path, sample_rate):
    """Refuse a file that is empty, not mono or of another sampling rate."""
    if file.samplerate != sample_rate or file.channels != 1:
        raise UserError(
            f"{path}: expected mono audio at {sample_rate} Hz, found "
            f"{file.channels} channel(s) at {file.samplerate} Hz; convert the "
            "file, or give the corpus's sample_rate."
        )
    if file.frames == 0:
        raise UserError(
            f"{path}: the audio file is empty; restore it, or take it out of "
            "the folder, list or CSV that names it."
        )


def check_samples(samples, path, start=0):
    """Refuse NaN and infinite samples, which a float file can hold.

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
