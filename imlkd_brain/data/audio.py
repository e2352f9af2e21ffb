"""Reads audio files: whole, a part, or only the length and the format.

Authors: IML-KD contributors
"""

import math
import os
import stat
from contextlib import contextmanager

import numpy as np
import soundfile
import torch
import torchaudio

from imlkd_brain.data.in_shard import InShard
from imlkd_brain.errors import UserError

FULL_SCALE = 0.9999  # 32764 of 16 bits
CLIPPED_SHARE = 0.01
LONGEST_SECONDS = 600  # of audio that goes through a network at once


@contextmanager
def opened(path):
    """Open an audio file for reading.

    Arguments
    ---------
    path : str or pathlib.Path
        The file; of an :class:`imlkd_brain.data.in_shard.InShard` that in its
        shard.

    Yields
    ------
    file : soundfile.SoundFile

    Raises
    ------
    UserError
        If the file is missing, or cannot be opened or read.
    """
    if isinstance(path, InShard):
        with path.opened() as file:
            yield file
        return
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


def read_waveform(path, sample_rate, longest=math.inf):
    """Read a file of any rate and number of channels.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    sample_rate : int
        The rate to resample to, in Hz.
    longest : float, optional
        Seconds that memory is there for.

    Returns
    -------
    torch.Tensor
        (samples,), float32, the mean of the channels.

    Raises
    ------
    UserError
        If the file is missing, broken or too long, or holds NaN or infinity.
    """
    with opened(path) as file:
        seconds = file.frames / file.samplerate
        if seconds > longest:
            raise UserError(
                f"{path}: is {seconds:.0f} s long, and at most {longest:g} s "
                "are read at once here; cut it, or take it out of the list."
            )
        samples = file.read(dtype="float32", always_2d=True)
        rate = file.samplerate
    check_samples(samples, path)
    signal = torch.from_numpy(samples).mean(1)
    if rate != sample_rate:
        signal = torchaudio.functional.resample(signal, rate, sample_rate)
    return signal


def converted_length(path, sample_rate):
    """Return how long a file of any rate and channels is when it is converted.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    sample_rate : int
        The rate to resample to, in Hz.

    Returns
    -------
    n_samples : int
        At that rate.
    converted : str
        What it is converted from, such as ``2 channels at 44100 Hz``; empty
        if it is mono and of that rate.

    Raises
    ------
    UserError
        If the file is missing, broken or empty.
    """
    with opened(path) as file:
        rate, channels, frames = file.samplerate, file.channels, file.frames
    if not frames:
        raise UserError(
            f"{path}: the audio file is empty; restore it, or take it out of "
            "the folder, list or CSV that names it."
        )
    fits = rate == sample_rate and channels == 1
    return (
        -(-frames * sample_rate // rate),
        "" if fits else f"{channels} channels at {rate} Hz",
    )


def read_converted(path, start, n_samples, sample_rate):
    """Read a part of a file of any rate and number of channels.

    Only that part is read, so that long files take little memory. It is
    resampled on the grid of the whole file, with some of what is around it.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.
    start : int
        First sample, at ``sample_rate``.
    n_samples : int
        Samples to return; fewer where the file ends before.
    sample_rate : int
        The rate to resample to, in Hz.

    Returns
    -------
    torch.Tensor
        (n_samples,), float32, the mean of the channels; the same samples as
        of :func:`read_waveform`.

    Raises
    ------
    UserError
        If the file is missing or broken, ends before ``start``, or holds NaN
        or infinity.
    """
    with opened(path) as file:
        common = math.gcd(file.samplerate, sample_rate)
        theirs, ours = file.samplerate // common, sample_rate // common
        # torchaudio's filter reaches six periods of the lower rate.
        margin = -(-8 // min(theirs, ours)) + 1
        first = max(0, start // ours - margin)
        last = -(-(start + n_samples) // ours) + margin
        file.seek(min(first * theirs, file.frames))
        samples = file.read(
            (last - first) * theirs, dtype="float32", always_2d=True
        )
    if not len(samples):
        raise UserError(
            f"{path}: ends before sample {first * theirs}, where it did not "
            "before; restore it, or prepare the data again."
        )
    check_samples(samples, path, first * theirs)
    signal = torch.from_numpy(samples).mean(1)
    if theirs != ours:
        signal = torchaudio.functional.resample(signal, theirs, ours)
    skipped = start - first * ours
    return signal[skipped : skipped + n_samples]


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
            f"{file.channels} channel(s) at {file.samplerate} Hz; convert it "
            f"(`ffmpeg -i IN -ac 1 -ar {sample_rate} OUT.wav`), or give the "
            "corpus's sample_rate."
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
