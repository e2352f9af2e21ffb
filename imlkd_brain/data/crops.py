"""Durations: their names, and seeded crops and chunks of utterances.

Authors: IML-KD contributors
"""

import math
import random

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.settings import as_list

FULL = "full"  # the duration of whole utterances
POOLED = "pooled"  # the duration of all durations together


def seconds_to_samples(seconds, sample_rate):
    """Return the number of samples of a duration.

    Rounded, not cut: 0.29 s at 100 Hz are 29 samples, though the product in
    floating point is a little less.

    Arguments
    ---------
    seconds : float
        A duration.
    sample_rate : int
        In Hz.

    Returns
    -------
    int

    Example
    -------
    >>> seconds_to_samples(0.29, 100)
    29
    """
    return int(round(seconds * sample_rate))


def duration_name(duration):
    """Return how tables, figures and files call a duration.

    Arguments
    ---------
    duration : float, str or None
        Seconds, or ``full`` or None for whole utterances.

    Returns
    -------
    str

    Example
    -------
    >>> duration_name(1.5), duration_name(FULL), duration_name(None)
    ('1.5s', 'full', 'full')
    """
    if duration is None:
        return FULL
    return duration if isinstance(duration, str) else f"{duration:g}s"


def read_durations(durations, key="durations"):
    """Check the durations of a YAML: ``full`` or seconds.

    Arguments
    ---------
    durations : list or float or str
        As in the YAML.
    key : str
        The YAML's key, for the message.

    Returns
    -------
    dict
        Seconds, None for whole utterances, by the name of the duration.

    Raises
    ------
    UserError
        If the list is empty, or an entry is neither ``full`` nor seconds.

    Example
    -------
    >>> read_durations(["full", 2])
    {'full': None, '2s': 2}
    """
    seconds = {}
    for duration in as_list(durations):
        number = isinstance(duration, (int, float))  # noqa: UP038
        if duration != FULL and not (number and 0 < duration < math.inf):
            raise UserError(
                f"{key}: {duration!r} is neither `full` nor a positive "
                "number of seconds; expected, for example, [full, 3, 2, 1]."
            )
        name = duration_name(duration)
        seconds[name] = None if duration == FULL else duration
    if not seconds:
        raise UserError(
            f"{key}: the list is empty; expected, for example, [full, 2]."
        )
    return seconds


def crop(signal, duration, sample_rate, grid):
    """The middle ``duration`` seconds and where they start.

    They start at a multiple of ``grid`` samples, the hop of the features, so
    that their frames are those of the whole utterance.

    Crops of one utterance are nested: the second seen at 1 s is the same that
    is seen, with more around it, at 2 s, at 3 s and at full length.
    """
    if duration == FULL:
        return signal, 0.0
    n_samples = seconds_to_samples(duration, sample_rate)
    start = (len(signal) - n_samples) // 2 // grid * grid
    return signal[start : start + n_samples], start / sample_rate


def crop_name(seconds, seed):
    """Return how an embedding store calls a crop: seconds and seed, or full.

    Example
    -------
    >>> crop_name(None, 1986), crop_name(2, 1986)
    ('full', '2s-seed1986')
    """
    name = duration_name(seconds)
    return name if name == FULL else f"{name}-seed{seed}"


def crop_start(utterance, n_samples, n_crop, seed):
    """First sample of a random crop that depends on its arguments only.

    Example
    -------
    >>> start = crop_start("id1/a/1", 48000, 16000, seed=1986)
    >>> start == crop_start("id1/a/1", 48000, 16000, seed=1986)
    True
    """
    draw = random.Random(f"{seed}/{n_crop}/{utterance}")
    return draw.randint(0, max(0, n_samples - n_crop))


class RandomChunks:
    """Where each utterance's training chunk starts in each epoch.

    The start is drawn from the seed, the epoch and the utterance alone, so
    that all methods see the same chunks at a seed and an interrupted run goes
    on with those it would have had, whatever else draws random numbers.

    The epoch lies in memory that processes share, so that the workers of a
    data loader see it move on, also workers that live longer than an epoch
    (``persistent_workers``).

    Arguments
    ---------
    seed : int
        The experiment's seed.

    Example
    -------
    >>> chunks = RandomChunks(seed=1)
    >>> chunks("a", 100, 40) == RandomChunks(seed=1)("a", 100, 40)
    True
    """

    def __init__(self, seed):
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self):
        """The epoch that chunks are drawn for, in all processes."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch):
        self._epoch.fill_(epoch)

    def __call__(self, utterance, n_samples, n_chunk):
        """Return the first sample of a chunk of ``n_chunk`` samples."""
        if n_samples <= n_chunk:
            return 0
        stream = random.Random(f"{self.seed}/{self.epoch}/{utterance}")
        return stream.randint(0, n_samples - n_chunk)
