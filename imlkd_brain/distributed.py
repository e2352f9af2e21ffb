"""Several processes that train one model.

Authors: IML-KD contributors
"""

import torch
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from speechbrain.utils.distributed import is_distributed_initialized


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
