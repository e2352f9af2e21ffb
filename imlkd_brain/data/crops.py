"""Names of durations, and seeded crops and chunks of utterances.

Authors: IML-KD contributors
"""

import random

import torch

from imlkd_brain.schema import list_of, number
from imlkd_brain.settings import as_list
from imlkd_brain.values import check_value

FULL = "full"  # the duration of whole utterances
# What a YAML may give as durations.
DURATIONS = list_of(
    number("Seconds.", above=0, high=3600, words=(FULL,)),
    "Durations.",
    example="[full, 3, 2]",
)
POOLED = "pooled"  # the duration of all durations together


def seconds_to_samples(seconds, sample_rate):
    """Return the number of samples of a duration, rounded.

    0.29 s at 100 Hz are 29 samples, though the floating-point product is a
    little less.

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
    durations = as_list(durations)
    check_value(key, durations, DURATIONS)
    return {
        duration_name(duration): None if duration == FULL else duration
        for duration in durations
    }


def crop(signal, duration, sample_rate, grid):
    """Return the middle of a signal and where it starts.

    Shorter crops of an utterance lie inside its longer ones.

    Arguments
    ---------
    signal : torch.Tensor
        (samples,)
    duration : float or str
        Seconds, or ``full``.
    sample_rate : int
        In Hz.
    grid : int
        The hop of the features in samples. A crop starts at a multiple of
        it, so its frames are frames of the whole utterance.

    Returns
    -------
    crop : torch.Tensor
        (crop samples,)
    start : float
        In seconds.
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
    """Draw the first sample of a crop from the arguments alone.

    Arguments
    ---------
    utterance : str
        The utterance's name.
    n_samples : int
        Samples of the utterance.
    n_crop : int
        Samples of the crop.
    seed : int
        The experiment's seed.

    Returns
    -------
    int
        0 if the utterance is shorter than the crop.

    Example
    -------
    >>> start = crop_start("id1/a/1", 48000, 16000, seed=1986)
    >>> start == crop_start("id1/a/1", 48000, 16000, seed=1986)
    True
    """
    draw = random.Random(f"{seed}/{n_crop}/{utterance}")
    return draw.randint(0, max(0, n_samples - n_crop))


class RandomChunks:
    """Draws where each utterance's training chunk starts in each epoch.

    The start depends only on the seed, the epoch and the utterance. All methods
    see the same chunks at a seed, and an interrupted run goes on with the
    chunks it would have had.

    The epoch lies in shared memory. The workers of a data loader see it change,
    also with ``persistent_workers``.

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
        """The epoch to draw chunks for, in all processes."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch):
        """Move on to an epoch, in all processes."""
        self._epoch.fill_(epoch)

    def __call__(self, utterance, n_samples, n_chunk):
        """Return the first sample of a chunk of ``n_chunk`` samples."""
        if n_samples <= n_chunk:
            return 0
        stream = random.Random(f"{self.seed}/{self.epoch}/{utterance}")
        return stream.randint(0, n_samples - n_chunk)
