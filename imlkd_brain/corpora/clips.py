"""From short clips to utterances: band limit, trimming, level, joining.

Authors: IML-KD contributors
"""

import hashlib
import os
import random
import shutil
import zipfile
from collections import defaultdict
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16000  # Hz, of everything that is written
SEED = 1234  # of the clip order and of the trial lists; part of the corpus

SHORTEST_CLIP = 0.12  # seconds of speech left after trimming
LEAST_UTTERANCE, LONGEST_UTTERANCE = 4.0, 8.0  # seconds
UTTERANCE_TARGET = 5.0  # seconds at which an utterance is closed
UTTERANCES_PER_SESSION = 10
FEWEST_SESSIONS = 3  # so that target trials across sessions exist

SPEECH_LEVEL = 0.05  # RMS of every clip, -26 dB re full scale
SILENCE = 1e-3  # a clip that peaks below this is empty


def band_limited(signal, rate, band):
    """Resample to 16 kHz and remove what lies above ``band``, in one FFT.

    The spectrum is cut at 8 kHz or extended with zeros, and falls off with a
    raised cosine over the 500 Hz below ``band``.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape (samples,).
    rate : int
        Its sampling rate in Hz.
    band : float
        Highest frequency (Hz) that is kept.

    Returns
    -------
    numpy.ndarray
        Shape (round(samples * 16000 / rate),), float32.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    >>> out = band_limited(tone, 44100, 7000.0)
    >>> out.shape
    (16000,)
    >>> bool(np.abs(out[4000:12000]).max() > 0.99)
    True
    """
    common = np.gcd(int(rate), SAMPLE_RATE)
    step = int(rate) // common  # input lengths that map to whole outputs
    # Zeros behind the signal keep its end from wrapping onto its start.
    blocks = -(-(len(signal) + int(0.02 * rate)) // step)
    padded = blocks * step
    length = blocks * (SAMPLE_RATE // common)
    spectrum = np.fft.rfft(signal, padded)
    hertz = np.arange(len(spectrum)) * (rate / padded)
    slope = np.clip((band - hertz) / 500.0, 0.0, 1.0)
    spectrum *= 0.5 - 0.5 * np.cos(np.pi * slope)
    out = np.zeros(length // 2 + 1, dtype=spectrum.dtype)
    kept = min(len(out), len(spectrum))
    out[:kept] = spectrum[:kept]
    wanted = int(round(len(signal) * SAMPLE_RATE / rate))
    return (np.fft.irfft(out, length)[:wanted] * (length / padded)).astype(
        np.float32
    )


def trimmed(signal, below_peak=35.0, pad=0.05):
    """Cut silence off both ends of a 16-kHz signal.

    Arguments
    ---------
    signal : numpy.ndarray
        Shape (samples,).
    below_peak : float
        A 20-ms frame is silent if its level is that many dB below the
        loudest frame's.
    pad : float
        Seconds kept on each side of the first and last frame that is not.

    Returns
    -------
    numpy.ndarray
        A view of ``signal``; empty if the whole signal is silent.
    """
    frame = SAMPLE_RATE // 50
    frames = len(signal) // frame
    if frames == 0 or np.abs(signal).max() < SILENCE:
        return signal[:0]
    power = (signal[: frames * frame].reshape(frames, frame) ** 2).mean(1)
    (loud,) = np.nonzero(power >= power.max() * 10 ** (-below_peak / 10))
    margin = int(pad * SAMPLE_RATE)
    start = max(0, loud[0] * frame - margin)
    return signal[start : (loud[-1] + 1) * frame + margin]


def levelled(signal):
    """Bring a clip to the corpus' RMS level, its peak at most 0.95.

    A 5-ms fade on both ends keeps the joints from clicking.
    """
    signal = signal * (SPEECH_LEVEL / np.sqrt((signal**2).mean()))
    peak = np.abs(signal).max()
    if peak > 0.95:
        signal = signal * (0.95 / peak)
    fade = min(len(signal) // 2, SAMPLE_RATE // 200)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    signal[:fade] *= ramp
    signal[len(signal) - fade :] *= ramp[::-1]
    return signal


def cut_long(signal, longest=LONGEST_UTTERANCE):
    """Cut a clip that is longer than an utterance into equal pieces."""
    pieces = -(-len(signal) // int(longest * SAMPLE_RATE))
    return np.array_split(signal, pieces) if pieces > 1 else [signal]


def join_clips(
    lengths,
    least=LEAST_UTTERANCE,
    target=UTTERANCE_TARGET,
    longest=LONGEST_UTTERANCE,
):
    """Group clips, in order, into utterances of ``least`` to ``longest``.

    Arguments
    ---------
    lengths : list of float
        Seconds of each clip, none longer than ``longest``.
    least, target, longest : float
        Seconds. An utterance is closed when it reaches ``target``.

    Returns
    -------
    list of list of int
        Indices of the clips of each utterance; no clip is in two of them.
        Clips left over at the end that do not make ``least`` are in none.

    Example
    -------
    >>> join_clips([2.0, 2.0, 3.0, 7.0, 1.0])
    [[0, 1, 2], [3]]
    """
    utterances, current, seconds = [], [], 0.0
    for index, length in enumerate(lengths):
        if seconds + length > longest:
            if seconds < least:
                # What is open is too short to close and this clip too long
                # to join it, so this clip (> longest - least) stands alone.
                if length >= least:
                    utterances.append([index])
                continue
            utterances.append(current)
            current, seconds = [], 0.0
        current.append(index)
        seconds += length
        if seconds >= target:
            utterances.append(current)
            current, seconds = [], 0.0
    if seconds >= least:
        utterances.append(current)
    return utterances


def session_sizes(utterances):
    """Sizes of the sessions: about ten utterances each, at least three.

    Example
    -------
    >>> session_sizes(25), session_sizes(5), session_sizes(2)
    ([9, 8, 8], [2, 2, 1], [1, 1])
    """
    sessions = max(FEWEST_SESSIONS, -(-utterances // UTTERANCES_PER_SESSION))
    each, more = divmod(utterances, sessions)
    sizes = [each + 1] * more + [each] * (sessions - more)
    return [size for size in sizes if size]


def read_clip(data, band):
    """Decode one clip's bytes into levelled pieces at 16 kHz.

    Returns
    -------
    pieces : list of numpy.ndarray
        Each (samples,), at most 8 s; empty if the clip is dropped.
    rate : int
        Sampling rate of the source in Hz, 0 if it is broken.
    reason : str or None
        Why the clip was dropped: broken, narrow band, silent or short.
    """
    try:
        signal, rate = soundfile.read(
            BytesIO(data), dtype="float32", always_2d=True
        )
    except (soundfile.LibsndfileError, RuntimeError):
        return [], 0, "broken"
    if not np.isfinite(signal).all():
        return [], rate, "broken"
    if rate / 2 < band:
        return [], rate, "narrow band"
    if len(signal) == 0:
        return [], rate, "silent"
    signal = trimmed(band_limited(signal.mean(1), rate, band))
    if len(signal) == 0:
        return [], rate, "silent"
    if len(signal) < SHORTEST_CLIP * SAMPLE_RATE:
        return [], rate, "short"
    return [levelled(piece) for piece in cut_long(signal)], rate, None


def build_speaker(speaker, clips, band, minutes, folder):
    """Decode, join and write one speaker, whole or not at all.

    Arguments
    ---------
    speaker : str
        ``<pack>-<voice>``.
    clips : list of tuple
        Sorted (file, member) pairs: an audio file and None, or a zip file and
        the name of the audio in it.
    band : float
        Highest frequency (Hz) that is kept.
    minutes : float
        Decoding stops when the speaker has that much speech.
    folder : pathlib.Path
        Where ``<speaker>/<session>/<utterance>.wav`` goes.

    Returns
    -------
    dict
        The speaker's row of the manifest.
    """
    order = list(clips)
    random.Random(f"{SEED} {speaker}").shuffle(order)
    pieces, rates, dropped, seen = [], defaultdict(int), defaultdict(int), set()
    seconds, used = 0.0, 0
    for path, member in order:
        if seconds >= minutes * 60:
            dropped["over the cap"] = len(order) - used
            break
        used += 1
        data = _clip_bytes(path, member)
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            # The same recording under two names would be a target trial
            # that any copy detector solves.
            dropped["copy"] += 1
            continue
        seen.add(digest)
        found, rate, reason = read_clip(data, band)
        if reason:
            dropped[reason] += 1
            continue
        rates[str(rate)] += 1
        pieces += found
        seconds += sum(map(len, found)) / SAMPLE_RATE
    # A small voice closes its utterances early: more of them, more trials.
    target = LEAST_UTTERANCE if seconds < 120 else UTTERANCE_TARGET
    utterances = join_clips(
        [len(piece) / SAMPLE_RATE for piece in pieces], target=target
    )
    partial = folder / f".{speaker}"
    shutil.rmtree(partial, ignore_errors=True)
    kept, start = 0, 0
    for session, size in enumerate(session_sizes(len(utterances))):
        place = partial / f"s{session:02d}"
        place.mkdir(parents=True)
        for number, group in enumerate(utterances[start : start + size]):
            signal = np.concatenate([pieces[index] for index in group])
            soundfile.write(
                place / f"{number:05d}.wav", signal, SAMPLE_RATE, "PCM_16"
            )
            kept += len(signal)
        start += size
    if utterances:
        os.rename(partial, folder / speaker)
    return {
        "speaker": speaker,
        "pack": speaker.split("-")[0],
        "utterances": len(utterances),
        "sessions": len(session_sizes(len(utterances))),
        "minutes": round(kept / SAMPLE_RATE / 60, 2),
        "clips": len(order),
        "source_rates": dict(sorted(rates.items())),
        "dropped": dict(sorted(dropped.items())),
    }


def _clip_bytes(path, member):
    """The encoded bytes of a clip, out of a file or a zip file's member."""
    if member is None:
        return Path(path).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)
