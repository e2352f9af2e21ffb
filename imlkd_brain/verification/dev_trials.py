"""The trials that a training is validated on.

Authors: IML-KD contributors
"""

from collections import defaultdict

import torch

from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.data.trials import Trials, read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.verification.scoring import score_trials
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class DevTrials(Trials):
    """A trial list that gives the EER of the Brain's embeddings."""

    def eer(self, enrolments, embeddings):
        """EER in percent; 50 if too few trials were embedded.

        Arguments
        ---------
        enrolments : dict
            Utterance to embedding (dim,) of the enrolment side.
        embeddings : dict
            The same of the test side.
        """
        names, pairs = self.utterances, self.pairs
        # Debug mode embeds a few batches only.
        seen = torch.tensor([name in embeddings for name in names])
        pairs, labels = (
            values[seen[pairs].all(1)] for values in (pairs, self.labels)
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
        The list; None where there are no dev trials.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The validation set.

    Returns
    -------
    trials : DevTrials or None

    Raises
    ------
    UserError
        If an utterance of the list is not in the validation set, or is
        several files of it.
    """
    if path is None:
        return None
    trials = read_trials(path)
    known = {utterance_key(row["wav"]) for row in dataset.data.values()}
    # Where there are no sessions, a list says less than the set's keys do.
    ends = defaultdict(set)
    for key in known:
        parts = key.split("/")
        for first in range(len(parts)):
            ends["/".join(parts[first:])].add(key)
    several = [u for u in trials.utterances if len(ends.get(u, ())) > 1]
    if several:
        one, other, *_ = sorted(ends[several[0]])
        raise UserError(
            f"{path}: {several[0]} may be {one} or {other} of the validation "
            "annotation; write more of the path in the list."
        )
    unknown = [u for u in trials.utterances if u not in ends]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} utterances of the dev trials are not in "
            f"the validation annotation (first: {unknown[0]}); prepare the "
            "data with this list as valid_trials, in a new save_folder."
        )
    names = [key for u in trials.utterances for key in ends[u]]
    return DevTrials(**{**vars(trials), "utterances": names})
