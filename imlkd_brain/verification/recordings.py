"""Finds, reads and embeds recordings of any format, one by one.

A trial list names files of one format, which
:mod:`imlkd_brain.verification.embeddings` reads in batches. People bring files
as they are: any rate, channels and format that libsndfile reads.

Authors: IML-KD contributors
"""

import glob
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
import torchaudio
from tqdm import tqdm

from imlkd_brain.data.audio import check_samples
from imlkd_brain.errors import UserError
from imlkd_brain.verification.scoring import unit_length

LEAST_SECONDS = 0.3  # of sound; an embedding of less says little
BLOCK_SECONDS = 60.0  # longer recordings are embedded in parts
FRAME_SECONDS = 0.01
# A frame is sound within 40 dB of the loudest and above -80 dBFS.
SOUND_RATIO, SOUND_FLOOR = 1e-2, 1e-4
SUFFIXES = {f".{name.lower()}" for name in soundfile.available_formats()} - {
    ".raw",
    ".mat4",
    ".mat5",
} | {".aif", ".aifc", ".oga", ".opus", ".sph"}


@dataclass(frozen=True)
class Embedded:
    """The embedding of a recording.

    Arguments
    ---------
    path : str
        The file.
    embedding : torch.Tensor
        (D,), on the CPU.
    seconds : float
        Its duration.
    """

    path: str
    embedding: torch.Tensor
    seconds: float


def find_recordings(names):
    """Return the files that names stand for.

    Arguments
    ---------
    names : sequence of str
        Files, folders (all recordings in them and below) and patterns such as
        ``'*.wav'``.

    Returns
    -------
    list of str
        Each once, in the order of the names; files of a folder or pattern in
        alphabetical order.

    Raises
    ------
    UserError
        If a name stands for nothing.
    """
    found = []
    for name in map(str, names):
        if os.path.isdir(name):
            inside = sorted(
                os.path.join(folder, file)
                for folder, _, files in os.walk(name)
                for file in files
                if Path(file).suffix.lower() in SUFFIXES
            )
            if not inside:
                raise UserError(
                    f"{name}: no recording in this folder; expected files "
                    "ending in .wav, .flac, .mp3, .ogg or the like."
                )
            found += inside
        elif not os.path.lexists(name) and glob.has_magic(name):
            inside = sorted(
                path
                for path in glob.glob(name, recursive=True)
                if not os.path.isdir(path)
            )
            if not inside:
                raise UserError(f"{name}: no file fits this pattern.")
            found += inside
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def embed_recordings(model, paths, desc="embedding", progress=True):
    """Embed recordings; bad ones do not stop the others.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    paths : sequence of str
        The files.
    desc : str
        What the progress bar says.
    progress : bool
        Show one, on standard error, where there are several files.

    Returns
    -------
    embedded : list of Embedded
        The good ones, in order.
    bad : dict
        Reasons by path.

    Raises
    ------
    UserError
        If there is one file and it is bad.
    """
    embedded, bad = [], {}
    for path in tqdm(
        paths,
        desc=desc,
        unit="file",
        disable=not progress or len(paths) < 2,
        leave=False,
    ):
        try:
            embedded.append(embed_recording(model, path))
        except UserError as error:
            if len(paths) == 1:
                raise
            bad[path] = str(error)
    return embedded, bad


@torch.inference_mode()
def embed_recording(model, path):
    """Embed a recording of any rate, channels and format.

    One of up to a minute is embedded whole, as in ``verify.py``. A longer one
    is cut into equal parts of at most a minute, and its embedding is the mean
    of the parts' unit-length embeddings, without silent parts: memory stays
    bounded.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    path : str
        The file.

    Returns
    -------
    Embedded

    Raises
    ------
    UserError
        If the file is missing, no recording, silent, shorter than 0.3 s, or
        holds NaN, or the model gives no finite embedding.
    """
    device = next(model.parameters()).device
    embeddings, sound, seconds = [], 0.0, 0.0
    for signal in read_parts(path, model.sample_rate):
        heard = seconds_of_sound(signal, model.sample_rate)
        seconds += len(signal) / model.sample_rate
        sound += heard
        if heard >= LEAST_SECONDS:
            wavs = signal[None].to(device)
            # With its length, as verify.py has it: the same to the bit.
            embeddings.append(model.embed(wavs, wavs.new_ones(1))[0].cpu())
    if seconds < LEAST_SECONDS:
        raise UserError(
            f"{path}: too short ({seconds:.2f} s); give a recording of at "
            f"least {LEAST_SECONDS:g} s, better 3 s or more."
        )
    if not sound:
        raise UserError(
            f"{path}: silent; give a recording in which someone speaks."
        )
    if not embeddings:
        raise UserError(
            f"{path}: only {sound:.2f} s of its {seconds:.2f} s are not "
            f"silent; give a recording with at least {LEAST_SECONDS:g} s of "
            "speech, better 3 s or more."
        )
    embedding = embeddings[0].float()
    if len(embeddings) > 1:
        embedding = unit_length(torch.stack(embeddings).float()).mean(0)
    if not torch.isfinite(embedding).all():
        raise UserError(
            f"{path}: {model.source} gives an embedding with NaN or infinity; "
            "the model has diverged or the audio is broken."
        )
    return Embedded(str(path), embedding, seconds)


def read_parts(path, sample_rate):
    """Read a recording part by part.

    Arguments
    ---------
    path : str
        The file, of any rate, channels and format.
    sample_rate : int
        To resample to, in Hz.

    Yields
    ------
    torch.Tensor
        (samples,), float32, the mean of the channels; at most a minute.

    Raises
    ------
    UserError
        If the file is missing or no recording, is empty, or holds NaN.
    """
    with _opened(path) as file:
        seconds = file.frames / file.samplerate
        n_parts = max(1, int(-(-seconds // BLOCK_SECONDS)))
        length = -(-file.frames // n_parts)
        start = 0
        while start < file.frames:
            samples = file.read(length, dtype="float32", always_2d=True)
            if not len(samples):
                break
            check_samples(samples, path, start)
            start += len(samples)
            signal = torch.from_numpy(samples).mean(1)
            if file.samplerate != sample_rate:
                signal = torchaudio.functional.resample(
                    signal, file.samplerate, sample_rate
                )
            yield signal
        if not start:
            raise UserError(f"{path}: this recording is empty.")


@contextmanager
def _opened(path):
    """Open a recording, or say what it is instead of one."""
    try:
        # A pipe or a device would be waited for.
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "no regular file"
            raise UserError(f"{path}: this is {kind}; give a recording.")
        if os.path.exists(path) and not os.path.getsize(path):
            raise UserError(f"{path}: this file is empty; record it again.")
        with soundfile.SoundFile(path) as file:
            yield file
    except (OSError, RuntimeError, TypeError) as error:
        if not os.path.exists(path):
            raise UserError(
                f"{path}: there is no such file; correct the path."
            ) from None
        # soundfile asks for a rate and channels where it takes a file for
        # headerless audio.
        reason = getattr(error, "error_string", None) or "no known format"
        if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
            reason = "no permission"
        raise UserError(
            f"{path}: no recording that can be read ({reason.rstrip('.')}); "
            "give a WAV, FLAC, OGG or MP3 file, or take the sound out of it "
            "with `ffmpeg -i FILE sound.wav`."
        ) from error


def seconds_of_sound(signal, sample_rate):
    """Return how much of a signal is not silent, in seconds.

    Arguments
    ---------
    signal : torch.Tensor
        (samples,).
    sample_rate : int
        In Hz.

    Returns
    -------
    float
        Seconds in frames of 10 ms whose level is within 40 dB of the loudest
        frame and above -80 dB of full scale. A constant is silence.

    Example
    -------
    >>> signal = torch.zeros(16000)
    >>> signal[:1600] = torch.randn(1600)
    >>> seconds_of_sound(signal, 16000)
    0.1
    """
    length = max(1, int(FRAME_SECONDS * sample_rate))
    signal = signal - signal.mean()
    padding = -len(signal) % length
    frames = torch.nn.functional.pad(signal, (0, padding)).view(-1, length)
    levels = frames.square().mean(1).sqrt()
    least = max(float(levels.max()) * SOUND_RATIO, SOUND_FLOOR)
    return round(int((levels > least).sum()) * length / sample_rate, 6)
