"""Batches with a set share of labelled utterances.

Authors: IML-KD contributors
"""

import random

from speechbrain.dataio.sampler import ReproducibleRandomSampler

LEAST = 2  # utterances of either kind in a batch


class MixedBatches(ReproducibleRandomSampler):
    """Draws batches with a set share of labelled utterances.

    The number of labelled utterances in a batch is the share of its size, up
    or down by rounding, and the same for all processes. Labelled utterances
    are drawn in a random order and begin anew when all were drawn; so are
    unlabelled ones. With the data's own share each utterance comes once in an
    epoch.

    Arguments
    ---------
    labelled : list of bool
        Whether each row has a label; both kinds are there.
    seed : int
        Of the order.
    share : float
        Of labelled utterances in a batch. It is raised or lowered where a
        batch would have fewer than two of a kind.
    batch_size : int
        Items in a batch of one process.
    n_processes : int
        Processes that share an epoch; process r takes items r, r +
        n_processes, ... as torch's ``DistributedSampler`` gives them.
    drop_last : bool
        If True, items that are too few for all processes are left out;
        otherwise there are a few more.

    Example
    -------
    >>> sampler = MixedBatches([True] * 2 + [False] * 6, 1, 0.25, 4)
    >>> [index < 2 for index in sampler].count(True)
    4
    """

    def __init__(
        self, labelled, seed, share, batch_size, n_processes=1, drop_last=False
    ):
        super().__init__(labelled, seed)
        self.kinds = [
            [row for row, has in enumerate(labelled) if has == kind]
            for kind in (True, False)
        ]
        least = min(LEAST, batch_size // 2) / batch_size
        self.share = min(max(share, least), 1 - least)
        self.batch_size = batch_size
        self.n_processes = n_processes
        self.n_each = len(labelled) // n_processes
        if len(labelled) % n_processes and not drop_last:
            self.n_each += 1

    def __len__(self):
        return self.n_each * self.n_processes

    def counts(self, n_items):
        """Return the labelled items of each batch of the first ``n_items``."""
        places = [*range(0, n_items, self.batch_size), n_items]
        # By the sum so far: rounded apart, the share would drift.
        sums = [int(self.share * place + 0.5) for place in places]
        return [
            after - before
            for before, after in zip(sums, sums[1:], strict=False)
        ]

    def __iter__(self):
        stream = random.Random(f"labels/{self.seed}/{self.epoch}")
        labelled, unlabelled = (_drawn(rows, stream) for rows in self.kinds)
        left = self.n_each
        for count in self.counts(self.n_each):
            size = min(self.batch_size, left)
            for place in range(size * self.n_processes):
                source = labelled
                if place // self.n_processes >= count:
                    source = unlabelled
                yield next(source)
            left -= size


def _drawn(rows, stream):
    """Yield rows in a random order, again and again."""
    while True:
        order = list(rows)
        stream.shuffle(order)
        yield from order
