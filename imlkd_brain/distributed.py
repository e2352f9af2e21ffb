"""Several processes that train one model.

Authors: IML-KD contributors
"""

from dataclasses import replace
from datetime import timedelta

import torch
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from imlkd_brain.errors import UserError
from speechbrain.utils.distributed import (
    get_local_rank,
    infer_device,
    is_distributed_initialized,
)

LONGEST_WAIT = timedelta(days=7)


def rank():
    """This process among those of the training, from 0."""
    if is_distributed_initialized():
        return torch.distributed.get_rank()
    return 0


def n_processes():
    """How many processes train together."""
    if is_distributed_initialized():
        return torch.distributed.get_world_size()
    return 1


def settle_backend(run_opts):
    """Choose how processes meet that torchrun has started, before they do.

    On CPUs that is gloo. SpeechBrain's choice, nccl, needs a GPU for each.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        Of the command line.

    Returns
    -------
    speechbrain.utils.run_opts.RunOptions
        The same, on CPUs with ``distributed_backend`` ``gloo``.

    Raises
    ------
    UserError
        If there are fewer GPUs than processes, or nccl was asked for without.
    """
    place = get_local_rank()
    if place is None:
        return run_opts
    asked = "distributed_backend" in run_opts.overridden_args
    device = torch.device(run_opts.device or infer_device())
    if device.type != "cuda":
        if asked and run_opts.distributed_backend == "nccl":
            raise UserError(
                "distributed_backend: nccl needs a GPU for each process, and "
                f"these train on {device.type}; leave it out, or give "
                "`--distributed_backend gloo`."
            )
        if not asked:
            given = run_opts.overridden_args | {"distributed_backend"}
            return replace(
                run_opts, distributed_backend="gloo", overridden_args=given
            )
    elif place >= torch.cuda.device_count():
        n_gpus = torch.cuda.device_count()
        raise UserError(
            f"torchrun: process {place + 1} of this machine has no GPU, torch "
            f"sees {n_gpus}; give `--nproc_per_node {n_gpus}`, or `--device "
            "cpu` after the YAML."
        )
    return run_opts


def meet_to_share():
    """Let processes meet that torchrun has started to share work on files.

    They exchange no tensors, only wait for each other, so gloo serves on GPUs
    too. A process may wait as long as another one works.
    """
    if get_local_rank() is not None and not is_distributed_initialized():
        torch.distributed.init_process_group("gloo", timeout=LONGEST_WAIT)


def true_in_all(flags, device):
    """Return which flags are true in every process.

    Arguments
    ---------
    flags : list of bool
        This process's.
    device : torch.device or str
        Where the processes exchange tensors.

    Returns
    -------
    list of bool
    """
    if not is_distributed_initialized():
        return flags
    common = torch.tensor(flags, dtype=torch.uint8, device=device)
    torch.distributed.all_reduce(common, torch.distributed.ReduceOp.MIN)
    return common.bool().tolist()


def counts_of_all(counts, device):
    """Return what each process counted, such as its utterances in a batch.

    Arguments
    ---------
    counts : list of int
        This process's; as many in all processes.
    device : torch.device or str
        Where the processes exchange tensors.

    Returns
    -------
    list of list of int
        In the order of ranks.
    """
    if not is_distributed_initialized():
        return [list(counts)]
    own = torch.tensor(counts, dtype=torch.int64, device=device)
    parts = [torch.empty_like(own) for _ in range(n_processes())]
    torch.distributed.all_gather(parts, own)
    return torch.stack(parts).tolist()


def share_of(counts):
    """Return what a mean over this process counts in one over all of them.

    DDP averages gradients over processes, whatever they counted. Times this,
    the mean over each process's utterances becomes that over all utterances.

    Arguments
    ---------
    counts : list of int
        Utterances of each process, in the order of ranks.

    Returns
    -------
    float
        1 where all have equally many; 0 where there are none at all.
    """
    total = sum(counts)
    return len(counts) * counts[rank()] / total if total else 0.0


class _Gathered(torch.autograd.Function):
    """The rows of all processes, in the order of ranks."""

    @staticmethod
    def forward(ctx, own, rows):
        """Exchange rows; the fewer of a process are padded on the way."""
        ctx.start, ctx.n_own, ctx.n = sum(rows[: rank()]), len(own), len(rows)
        sent = own.new_zeros(max(rows), *own.shape[1:])
        sent[: len(own)] = own
        parts = [torch.empty_like(sent) for _ in rows]
        torch.distributed.all_gather(parts, sent)
        return torch.cat([part[:n] for part, n in zip(parts, rows)])

    @staticmethod
    def backward(ctx, gradient):
        """This process's rows of the gradient, as often as DDP divides it.

        All processes compute the same loss of the same rows. So each has the
        whole gradient, and nothing is exchanged.
        """
        own = gradient[ctx.start : ctx.start + ctx.n_own]
        return ctx.n * own, None


def gathered(own, rows):
    """Return the rows of all processes, with gradients to this one's.

    A loss of them that all processes compute alike, averaged by DDP, has the
    value and the gradient that one process has with all rows.

    Arguments
    ---------
    own : torch.Tensor
        (B, ...), this process's.
    rows : list of int
        B of each process, in the order of ranks; none where there is one.

    Returns
    -------
    torch.Tensor
        (sum of ``rows``, ...).
    """
    return own if len(rows) < 2 else _Gathered.apply(own, rows)


def names_of_all(names):
    """Return the names that each process has, in the order of ranks."""
    if not is_distributed_initialized():
        return names
    gathered = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, list(names))
    return [name for part in gathered for name in part]


def wrapped(module, device, backend, find_unused_parameters):
    """Return a module in a DDP that allows two forwards before a backward.

    Arguments
    ---------
    module : torch.nn.Module
        A module; one without trainable parameters is returned as it is.
    device : str
        Where it trains.
    backend : str
        ``gloo`` or ``nccl``.
    find_unused_parameters : bool
        See ``torch.nn.parallel.DistributedDataParallel``.

    Returns
    -------
    torch.nn.Module
    """
    if not any(p.requires_grad for p in module.parameters()):
        return module
    # PyTorch has no synchronised BatchNorm for the CPU.
    if torch.device(device).type != "cpu":
        module = SyncBatchNorm.convert_sync_batchnorm(module)
    return DistributedDataParallel(
        module,
        device_ids=None if backend == "gloo" else [device],
        find_unused_parameters=find_unused_parameters,
        # It would write to statistics that the first forward has kept for the
        # backward.
        broadcast_buffers=False,
    )


def share_buffers(modules):
    """Give every process rank 0's buffers, BatchNorm's statistics."""
    for buffer in modules.buffers():
        torch.distributed.broadcast(buffer, 0)
