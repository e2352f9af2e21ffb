"""The trials that a training is validated on.

Authors: IML-KD contributors
"""

import random
from collections import defaultdict
from dataclasses import replace

import torch

from imlkd_brain.data.audio import repeat_to
from imlkd_brain.data.crops import read_durations, seconds_to_samples
from imlkd_brain.data.held_out import check_dev_speakers
from imlkd_brain.data.speakers import separated, slashed, utterance_key
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.nonfinite import check_valid
from imlkd_brain.verification.scoring import score_trials
from speechbrain.dataio.batch import PaddedData
from speechbrain.utils.data_utils import batch_pad_right
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class DevTrials:
    """Collects the Brain's embeddings and gives the EER of a trial list.

    Arguments
    ---------
    path : str or None
        The list; None where there are no dev trials.
    durations : list
        ``full``, then seconds of test speech. Whole utterances enrol.
    sample_rate : int
        In Hz.
    allow_training_speakers : bool
        Warn only where dev speakers are training speakers.

    Raises
    ------
    UserError
        If the durations do not begin with ``full``.
    """

    def __init__(
        self, path, durations, sample_rate, allow_training_speakers=False
    ):
        self.path = path
        self.seconds = check_valid_durations(durations)
        self.sample_rate = sample_rate
        self.allow = allow_training_speakers

    def open(self, valid_data, train_data):
        """Read the list; return this object, or None where there is no list.

        Arguments
        ---------
        valid_data, train_data : speechbrain.dataio.dataset.DynamicItemDataset
            The validation and the training set.

        Raises
        ------
        UserError
            If an utterance of the list is missing from the validation set, or
            a speaker is in both sets.
        """
        self.trials = valid_trials(self.path, valid_data)
        check_dev_speakers(self.trials, valid_data, train_data, self.allow)
        return None if self.trials is None else self

    def begin(self):
        """Forget the embeddings of the epoch before."""
        self.embeddings = {name: {} for name in self.seconds}

    def collect(self, batch, whole, embed):
        """Keep a batch's embeddings at each duration.

        Arguments
        ---------
        batch : speechbrain.dataio.batch.PaddedBatch
            With id, utterance and sig.
        whole : torch.Tensor
            Embeddings of the whole utterances, (batch, 1, dim).
        embed : callable
            Waveforms (batch, samples) and relative lengths (batch,) to
            embeddings (batch, 1, dim).
        """
        for name, seconds in self.seconds.items():
            values = whole
            if seconds is not None:
                values = embed(*self.crop(batch, seconds))
            values = values.squeeze(1).float().cpu()
            check_valid(batch.utterance, values.isfinite().all(1))
            self.embeddings[name].update(
                zip(batch.utterance, values, strict=True)
            )

    def crop(self, batch, seconds):
        """Fixed crops: where they start depends on the utterance alone.

        Arguments
        ---------
        batch : speechbrain.dataio.batch.PaddedBatch
            With id and sig.
        seconds : float
            Their duration.

        Returns
        -------
        speechbrain.dataio.batch.PaddedData
            Waveforms (batch, samples) and relative lengths (batch,).
        """
        wavs, lens = batch.sig
        n_crop = seconds_to_samples(seconds, self.sample_rate)
        crops = []
        for wav, length, name in zip(wavs, lens, batch.id, strict=True):
            n_samples = int(round(float(length) * len(wav)))
            start = random.Random(f"{name}/{seconds}").randint(
                0, max(0, n_samples - n_crop)
            )
            crops.append(repeat_to(wav[start:n_samples], n_crop))
        return PaddedData(*batch_pad_right(crops))

    def figures(self):
        """Return the EER at each duration and their mean, in percent.

        Returns
        -------
        dict of str to float
            ``EER_full``, ``EER_2s``, ..., and ``EER``, their mean.
        """
        enrolments = self.embeddings["full"]
        eers = {
            f"EER_{name}": dev_eer(self.trials, enrolments, embeddings)
            for name, embeddings in self.embeddings.items()
        }
        return {**eers, "EER": sum(eers.values()) / len(eers)}


def check_valid_durations(durations):
    """Read the key ``valid_durations``.

    Arguments
    ---------
    durations : list
        ``full``, then seconds.

    Returns
    -------
    dict
        Seconds by the name of the duration, None for ``full``.

    Raises
    ------
    UserError
        If the list does not begin with ``full`` or holds something else.

    Example
    -------
    >>> check_valid_durations(["full", 2.0])
    {'full': None, '2s': 2.0}
    """
    whole = isinstance(durations, list) and durations[:1] == ["full"]
    if not whole or None in durations:
        raise UserError(
            f"valid_durations: {durations!r} must begin with full, the whole "
            "utterance, which enrols, and go on with seconds; give "
            "[full, 2.0, 1.0], for example (null is written full now)."
        )
    return read_durations(durations, "valid_durations")


def dev_eer(trials, enrolments, embeddings):
    """EER in percent; 50 if too few trials were embedded.

    Arguments
    ---------
    trials : imlkd_brain.data.trials.Trials
        The list.
    enrolments : dict
        Utterance to embedding (dim,) of the enrolment side.
    embeddings : dict
        The same of the test side.

    Returns
    -------
    float
    """
    names, pairs = trials.utterances, trials.pairs
    # Debug mode embeds a few batches only.
    seen = torch.tensor([name in embeddings for name in names])
    pairs, labels = (
        values[seen[pairs].all(1)] for values in (pairs, trials.labels)
    )
    if labels.all() or not labels.any():
        logger.info("Too few dev trials in debug mode: EER set to 50 %.")
        return 50.0
    blank = torch.zeros_like(next(iter(embeddings.values())))
    enrol, test = (
        torch.stack([side.get(name, blank) for name in names])
        for side in (enrolments, embeddings)
    )
    scores = score_trials(enrol, test, pairs)
    return 100 * EER(scores[labels], scores[~labels])[0]


def valid_trials(path, dataset):
    """Read the dev trials and check that the validation set has them all.

    Arguments
    ---------
    path : str or None
        The list, several with commas; None where there are no dev trials.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The validation set.

    Returns
    -------
    trials : imlkd_brain.data.trials.Trials or None

    Raises
    ------
    UserError
        If an utterance of the list is not in the validation set, or is
        several files of it.
    """
    if path is None:
        return None
    trials = read_trials(separated(path))
    known = {utterance_key(row["wav"]) for row in dataset.data.values()}
    # Where there are no sessions, a list says less than the set's keys do.
    ends = defaultdict(set)
    for key in known:
        parts = key.split("/")
        for first in range(len(parts)):
            ends["/".join(parts[first:])].add(key)
    for name in [u for u in trials.utterances if u not in ends]:
        # Kaldi's speaker-session-utterance
        ends[name].update(known.intersection(slashed(name)))
    several = [u for u in trials.utterances if len(ends.get(u, ())) > 1]
    if several:
        one, other, *_ = sorted(ends[several[0]])
        raise UserError(
            f"{path}: {several[0]} may be {one} or {other} of the validation "
            "annotation; write more of the path in the list."
        )
    unknown = [u for u in trials.utterances if not ends[u]]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} utterances of the dev trials are not in "
            f"the validation annotation (first: {unknown[0]}); prepare the "
            "data with this list as valid_trials, in a new save_folder."
        )
    names = [key for u in trials.utterances for key in ends[u]]
    return replace(trials, utterances=names)
