"""Adds noise and reverberation that depend only on the seed and the update.

SpeechBrain's ``AddNoise`` and ``AddReverb`` take their files from a data
loader. No checkpoint stores its order, so an interrupted training would go on
with other noises. Here the files, and where in a file a noise begins, are drawn
from torch's random state, which the Brain seeds for each batch.

Authors: IML-KD contributors
"""

import math
from concurrent.futures import ThreadPoolExecutor

import torch
import torchaudio

from imlkd_brain.data.audio import check_samples, opened, repeat_to
from imlkd_brain.errors import UserError
from speechbrain.augment import time_domain
from speechbrain.dataio.legacy import ITEM_POSTFIX, load_sb_extended_csv
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class AddNoise(time_domain.AddNoise):
    """Adds another noise to each signal of a batch.

    The arguments are those of ``speechbrain.augment.time_domain.AddNoise``.
    Files are drawn with replacement and read in part, from a random sample on
    (``start_index`` if it is given). ``num_workers`` is the number of threads
    that read. ``sorting`` must be random.

    Example
    -------
    >>> noisifier = AddNoise()
    >>> noisifier(torch.zeros(2, 16000), torch.ones(2)).shape
    torch.Size([2, 16000])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _check_random(self.sorting)

    def _load_noise(self, lengths, max_length):
        """Draw and read noises.

        Arguments
        ---------
        lengths : torch.Tensor
            Samples of each signal, (batch, 1).
        max_length : int
            Samples of the longest, padding included.

        Returns
        -------
        noises : torch.Tensor
            (batch, max_length), zeros after the end of a short noise.
        n_samples : torch.Tensor
            Samples of each noise, (batch, 1).
        """
        if not hasattr(self, "files"):
            self.files = _files(self.csv_file, self.csv_keys, self.replacements)
        ratio = self.noise_sample_rate / self.clean_sample_rate
        n_read = math.ceil(max_length * ratio)
        chosen = torch.randint(len(self.files), (len(lengths),)).tolist()
        places = torch.rand(len(lengths), dtype=torch.float64).tolist()

        def read(index, place):
            signal = _read(self.files[index], n_read, place, self.start_index)
            if self.pad_noise:
                signal = repeat_to(signal, n_read)
            if ratio != 1:
                signal = torchaudio.functional.resample(
                    signal, self.noise_sample_rate, self.clean_sample_rate
                )
            return signal[:max_length]

        if self.num_workers:
            # Reading releases the interpreter's lock.
            with ThreadPoolExecutor(self.num_workers) as pool:
                noises = list(pool.map(read, chosen, places))
        else:
            noises = list(map(read, chosen, places))
        batch = torch.zeros(len(noises), max_length)
        for row, noise in enumerate(noises):
            batch[row, : len(noise)] = noise
        n_samples = torch.tensor([[len(noise)] for noise in noises])
        return batch.to(lengths.device), n_samples.to(lengths.device)


class AddReverb(time_domain.AddReverb):
    """Convolves a batch with a room response.

    The arguments are those of ``speechbrain.augment.time_domain.AddReverb``.
    The file is drawn with replacement and read without workers. ``sorting``
    must be random.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _check_random(self.sorting)

    def _load_rir(self, waveforms):
        """Draw and read a room response.

        Arguments
        ---------
        waveforms : torch.Tensor
            For type and device.

        Returns
        -------
        torch.Tensor
            (1, samples, 1)
        """
        if not hasattr(self, "files"):
            self.files = _files(self.csv_file, None, self.replacements)
        index = int(torch.randint(len(self.files), ()))
        return _read(self.files[index]).reshape(1, -1, 1).to(waveforms)


def check_repeatable(wav_augment):
    """Warn of augmentations that differ after an interruption.

    Arguments
    ---------
    wav_augment : speechbrain.augment.augmenter.Augmenter
        The augmentations of a training.
    """
    for augmentation in getattr(wav_augment, "augmentations", {}).values():
        kind = type(augmentation)
        if kind in (time_domain.AddNoise, time_domain.AddReverb) and (
            augmentation.csv_file is not None
        ):
            logger.warning(
                f"SpeechBrain's {kind.__name__} goes on with other files after "
                "an interruption than without one; name "
                f"imlkd_brain.data.augmentation.{kind.__name__} in the YAML."
            )


def _check_random(sorting):
    """Refuse an order of files, which no checkpoint would store."""
    if sorting != "random":
        raise UserError(
            f"sorting: {sorting!r} is not supported for noise and "
            "reverberation; leave the key out, files are drawn at random."
        )


def _files(csv_file, csv_keys, replacements):
    """Paths of the audio files that a CSV names."""
    try:
        rows, _, names = load_sb_extended_csv(csv_file, replacements)
    except FileNotFoundError:
        raise UserError(
            f"{csv_file}: missing; let the script prepare the data "
            "(`--skip_prep False`), or give the annotation's path."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{csv_file}: {error.args[0]} Expected the columns "
            "ID,duration,wav,wav_format,wav_opts."
        ) from error
    name = csv_keys[0] if csv_keys else names[0]
    files = [row[name + ITEM_POSTFIX].data for row in rows.values()]
    if not files:
        raise UserError(
            f"{csv_file}: names no audio files; remove it so that it is made "
            "again, or train with `--augmentation False`."
        )
    return files


def _read(path, n_samples=None, place=0.0, start=None):
    """Read samples (n,) of a file's first channel, float32.

    Arguments
    ---------
    path : str
        The file.
    n_samples : int, optional
        Most samples to read; the whole file if left out.
    place : float
        Where the samples begin, in [0, 1): 0 is the start of the file, values
        near 1 the last place where ``n_samples`` fit.
    start : int, optional
        The first sample, instead of ``place``.
    """
    with opened(path) as file:
        n_samples = n_samples or file.frames
        if start is None:
            start = int(place * (max(file.frames - n_samples, 0) + 1))
        file.seek(min(start, file.frames))
        samples = file.read(n_samples, dtype="float32", always_2d=True)
    if not len(samples):
        raise UserError(
            f"{path}: no samples from {start} on; restore the file, or take it "
            "out of the CSV that names it."
        )
    check_samples(samples, path, start)
    return torch.from_numpy(samples[:, 0].copy())
