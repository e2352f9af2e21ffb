"""Which utterances of a batch the terms of each branch are means over.

Authors: IML-KD contributors
"""

import math
import random
from dataclasses import dataclass

import torch

from imlkd_brain import distributed
from imlkd_brain.distillation.methods import BRANCHES

LEAST = 2  # utterances that segments are cut from, for terms that relate them


@dataclass
class Part:
    """Utterances of a batch, and how many all processes have.

    Arguments
    ---------
    target : torch.Tensor
        Their true classes, (N,), int64; below zero without a label.
    rows : torch.Tensor or None
        Their numbers in the batch, (N,), int64; None: all of it.
    labelled : torch.Tensor or None
        Numbers, among the N, of those with a label; None: all of them.
    counts : list of list of int
        Of each process the utterances, and of each those with a label.
    """

    target: torch.Tensor
    rows: torch.Tensor = None
    labelled: torch.Tensor = None
    counts: list = None

    @property
    def shares(self):
        """What this process's means count: of all, and of the labelled."""
        return [distributed.share_of(counts) for counts in self.counts]


def draw_rows(n_rows, share, seed):
    """Draw the utterances of a batch that segments are cut from.

    They lie at equal distances from a random start, so each is as likely as
    another, and speech with and without labels, which comes in this order,
    keeps its proportion.

    Arguments
    ---------
    n_rows : int
        Utterances in the batch.
    share : float
        Of them, in (0, 1]; rounded up, and at least two where there are two.
    seed : int
        Of the start.

    Returns
    -------
    list of int
        In ascending order.

    Example
    -------
    >>> len(draw_rows(32, 0.5, 1)), draw_rows(3, 0.1, 1), draw_rows(2, 1.0, 1)
    (16, [0, 1], [0, 1])
    """
    n_drawn = min(n_rows, max(LEAST, math.ceil(share * n_rows)))
    start = random.Random(f"segments/{seed}").random()
    return [int((i + start) * n_rows / n_drawn) for i in range(n_drawn)]


def parts_of(target, share, seed, unlabelled):
    """The utterances that each branch has.

    Arguments
    ---------
    target : torch.Tensor
        True classes of a batch, (B,), int64.
    share : float
        Of the utterances that segments are cut from, in (0, 1].
    seed : int
        See :func:`draw_rows`; of this process and this batch.
    unlabelled : bool
        Whether some of the training data have no label.

    Returns
    -------
    dict of str to Part
        ``raw`` has the whole batch, the other branches the part that is cut.
    """
    parts = [Part(target)]
    if share < 1:
        rows = draw_rows(len(target), share, seed)
        rows = torch.tensor(rows).to(target.device, non_blocking=True)
        parts.append(Part(target[rows], rows))
    own = []
    for part in parts:
        if unlabelled:
            part.labelled = (part.target >= 0).nonzero().squeeze(1)
        known = part.target if part.labelled is None else part.labelled
        own += [len(part.target), len(known)]
    # Exchanged before much is queued: it waits for the GPU.
    counts = list(zip(*distributed.counts_of_all(own, target.device)))
    for number, part in enumerate(parts):
        part.counts = counts[2 * number : 2 * number + 2]
    return {name: parts[0] if name == "raw" else parts[-1] for name in BRANCHES}
