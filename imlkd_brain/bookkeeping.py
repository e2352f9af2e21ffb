"""Means over an epoch, and where the figures of an epoch are written.

Authors: IML-KD contributors
"""

import os
import time
from collections import defaultdict

import torch

from imlkd_brain.files import append_epoch
from imlkd_brain.models.folder import STATS_FILE
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.train_logger import TensorboardLogger


class EpochMeans:
    """Weighted means of named values, which a checkpoint can hold.

    Example
    -------
    >>> means = EpochMeans()
    >>> means.add("loss", torch.tensor(1.0))
    >>> means.add("loss", torch.tensor(4.0), weight=2)
    >>> means.values()
    {'loss': 3.0}
    """

    def __init__(self):
        self.sums = defaultdict(float)
        self.counts = defaultdict(int)
        self.began = time.monotonic()

    def add(self, name, value, weight=1):
        """Add a value, which stays on its own device.

        Arguments
        ---------
        name : str
            The mean it belongs to.
        value : torch.Tensor or float
            A scalar.
        weight : int
            What it counts.
        """
        if isinstance(value, torch.Tensor):
            # No float() here: it would wait for the GPU at every term.
            value = value.detach()
        # Not in place: a batch that is not finite is taken back.
        self.sums[name] = self.sums[name] + value * weight
        self.counts[name] += weight

    def values(self):
        """Return the means so far, as floats."""
        # In float64, which the sums of a checkpoint are read back in.
        return {
            key: float(self.sums[key]) / self.counts[key] for key in self.sums
        }

    @property
    def seconds(self):
        """Time since the epoch began, without interruptions."""
        return time.monotonic() - self.began

    def snapshot(self):
        """Return what :meth:`restore` takes."""
        return dict(self.sums), dict(self.counts)

    def restore(self, snapshot):
        """Go back to a snapshot."""
        sums, counts = snapshot
        self.sums = defaultdict(float, sums)
        self.counts = defaultdict(int, counts)

    def state(self):
        """Return sums, counts and seconds as plain numbers."""
        return {
            "sums": {key: float(value) for key, value in self.sums.items()},
            "counts": dict(self.counts),
            "seconds": self.seconds,
        }

    def resume(self, state):
        """Go on with the state of an epoch that was interrupted."""
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])
        self.began -= state["seconds"]


def log_epoch(loggers, output_folder, meta, train_stats, valid_stats):
    """Write an epoch to the loggers and to ``train_stats.csv``.

    Arguments
    ---------
    loggers : list of speechbrain.utils.train_logger.TrainLogger
        The train log, and TensorBoard if wanted.
    output_folder : str
        Where ``train_stats.csv`` is.
    meta : dict
        ``epoch``, counted from 1, and what else is no figure.
    train_stats, valid_stats : dict
        Figures by name.
    """
    for logger in loggers:
        if isinstance(logger, TensorboardLogger):
            # It counts its own calls, from zero in each process.
            step = meta["epoch"] - 1
            logger.global_step = {
                "train": dict.fromkeys(train_stats, step),
                "valid": dict.fromkeys(valid_stats, step),
                "meta": step,
            }
        logger.log_stats(
            stats_meta=meta, train_stats=train_stats, valid_stats=valid_stats
        )
    if if_main_process():
        row = {
            **meta,
            **{f"train {k}": v for k, v in train_stats.items()},
            **{f"valid {k}": v for k, v in valid_stats.items()},
        }
        append_epoch(os.path.join(output_folder, STATS_FILE), row)
