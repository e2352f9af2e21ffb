"""Trainings of the real script, taken apart for the benchmarks.

Authors: IML-KD contributors
"""

import csv
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parent / "recipes" / "VoxCeleb" / "IMLKD"
sys.path[:0] = [str(HERE.parent), str(RECIPE)]

import teach  # noqa: E402, F401
import train_kd  # noqa: E402

import speechbrain as sb  # noqa: E402
from imlkd_brain.brain import IMLKDBrain  # noqa: E402
from imlkd_brain.comparison.run import child_environment  # noqa: E402
from imlkd_brain.training import DEBUG  # noqa: E402


def train(yaml, folder, batches, *options):
    """Run train_kd.py for some updates; the seconds of one of them."""
    subprocess.run(
        [sys.executable, "train_kd.py", f"hparams/minivox/{yaml}.yaml"]
        + ["--debug", "--debug_batches", str(batches), "--debug_epochs", "1"]
        + ["--debug_persistently", "--noprogressbar"]
        + ["--output_folder", str(folder), *map(str, options)],
        cwd=RECIPE,
        env=child_environment(1),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    path = folder / DEBUG / "train_stats.csv"
    with open(path, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return float(row["train seconds"]) / batches


def short_teacher(work, data):
    """A teacher of the YAML's size after two updates, which cost the same."""
    train("train_teacher", work / "teacher", 2, "--data_folder", data)
    return work / "teacher" / DEBUG


class _Ready(Exception):
    """A training stands ready."""


class _Brain(IMLKDBrain):
    """Gives itself away where the training would begin."""

    def fit(self, counter, train_set, valid_set=None, **options):
        """Hand over what is needed for an update."""
        raise _Ready(self, train_set, options["train_loader_kwargs"])


def brain_of(work, method, *options, device="cpu"):
    """A Brain of the real script, ready for updates.

    Arguments
    ---------
    work : Path
        Where its files go.
    method : str
        Of hparams/minivox/iml_kd.yaml.
    *options : str
        More of the command line.
    device : str
        Where it runs.

    Returns
    -------
    IMLKDBrain
        ``batches`` are those of its first epoch.
    """
    os.chdir(RECIPE)
    logging.disable(logging.WARNING)
    argv = ["hparams/minivox/iml_kd.yaml", f"--method={method}"]
    argv += [f"--output_folder={work / method}", "--measure_interval=0"]
    argv += ["--noprogressbar", f"--device={device}", *options]
    original, train_kd.IMLKDBrain = train_kd.IMLKDBrain, _Brain
    try:
        train_kd.main(argv)
    except _Ready as ready:
        brain, data, loader_options = ready.args
    finally:
        train_kd.IMLKDBrain = original
    loader = brain.make_dataloader(data, sb.Stage.TRAIN, **loader_options)
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.TRAIN, 1)
    brain.modules.train()
    brain.batches = iter(loader)
    return brain


def update(brain, batch=None):
    """One update, reading included where no batch is given."""
    if batch is None:
        batch = next(brain.batches)
    brain.step += 1
    brain.on_fit_batch_start(batch, True)
    loss = brain.fit_batch(batch)
    brain.on_fit_batch_end(batch, None, loss, True)
    return loss


class Operations(TorchDispatchMode):
    """Count floating-point operations, kernels and bytes.

    Bytes are what each kernel reads and writes, views apart: nothing is fused and
    no cache helps.
    """

    def __init__(self):
        super().__init__()
        self.flops = 0
        self.bytes = 0
        self.kernels = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        if not func.is_view and packet is not torch.ops.aten.detach:
            self.kernels[packet.__name__] += 1
            seen = torch.utils._pytree.tree_leaves((args, kwargs, result))
            tensors = {
                id(one): one.numel() * one.element_size()
                for one in seen
                if isinstance(one, torch.Tensor)
            }
            self.bytes += sum(tensors.values())
        return result
