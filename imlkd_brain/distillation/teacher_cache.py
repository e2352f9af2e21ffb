"""What a teacher says of an input, kept on disk for the next student.

Methods that are compared see the same chunks in the same order, so that the
teacher's answers and the integrated inputs are the same for all of them; most
of a distillation step on a CPU is spent on just these.

Authors: IML-KD contributors
"""

import hashlib
import numbers
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.files import free_bytes, in_place_of, load_whole
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

# Of an entry's file, beside the numbers.
ENTRY_BYTES = 2_000


class TeacherCache:
    """Tensors by the content of the input and a description of the rest.

    An entry is found only for the very same features, bit for bit, and the
    same description, so that a cache never changes a result: whatever differs
    is computed.

    Arguments
    ---------
    folder : str or Path
        Where the entries are kept; made on first use. Several trainings may
        share it at the same time.

    Raises
    ------
    UserError
        If the disk is full or the folder cannot be written.

    Example
    -------
    >>> import tempfile
    >>> cache = TeacherCache(tempfile.mkdtemp())
    >>> feats = torch.ones(2, 3)
    >>> cache("double", feats, lambda: (2 * feats,))[0].sum()
    tensor(12.)
    >>> cache("double", feats, lambda: 1 / 0)[0].sum()  # not computed again
    tensor(12.)
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, description, feats, compute):
        """Return the tensors of an input, computing them only once.

        Arguments
        ---------
        description : str
            Everything the result depends on beside ``feats``: the teacher's
            key, targets, seeds, options.
        feats : torch.Tensor
            The input, of any shape.
        compute : callable
            Gives a tuple of tensors, without arguments.

        Returns
        -------
        tensors : tuple of torch.Tensor
            On the device of ``feats``.
        """
        digest = hashlib.blake2b(description.encode(), digest_size=16)
        digest.update(str(tuple(feats.shape)).encode())
        data = feats.detach().cpu().contiguous().flatten()
        digest.update(data.view(torch.uint8).numpy())
        name = digest.hexdigest()
        path = self.folder / name[:2] / f"{name}.pt"
        kept = _read_entry(path, name)
        if kept is not None:
            return tuple(tensor.to(feats.device) for tensor in kept)
        tensors = compute()
        # A copy: a view would take all of its storage to the disk.
        copies = [t.detach().cpu().clone() for t in tensors]
        if not _all_finite(copies):
            # Of a batch that training leaves out, or stops at.
            return tensors
        entry = {"name": name, "sum": _sum_of(copies), "tensors": copies}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with in_place_of(path) as temporary:
                torch.save(entry, temporary)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.folder}: the teacher's answers cannot be kept there "
                f"({error}); make room or go without, --teacher_cache null."
            ) from error
        return tensors


def _read_entry(path, name):
    """Read an entry's tensors; None if there is none, or no good one.

    A damaged entry, or another one under its name, is computed anew: what
    has another content, NaN or infinity never reaches a loss.
    """
    if not os.path.lexists(path):
        return None
    entry = load_whole(path)
    if isinstance(entry, dict) and entry.keys() >= {"name", "sum", "tensors"}:
        tensors = entry["tensors"]
        if (
            entry["name"] == name
            and isinstance(tensors, (list, tuple))
            and _all_finite(tensors)
            and entry["sum"] == _sum_of(tensors)
        ):
            return tensors
    logger.warning(
        f"{path}: this entry of the teacher's cache is damaged, or an earlier "
        "version's; it is computed anew."
    )
    return None


def _sum_of(tensors):
    """A hash of types, shapes and numbers."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        # A view of bytes needs a dimension.
        data = tensor.contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy())
    return digest.hexdigest()


def _all_finite(tensors):
    """Whether these are tensors with neither NaN nor infinity."""
    return all(
        isinstance(tensor, torch.Tensor) and bool(tensor.isfinite().all())
        for tensor in tensors
    )


@dataclass
class Chunks:
    """What the batches of a training are made of.

    Arguments
    ---------
    epochs : int
        Epochs of the training.
    batch_size : int
        Utterances in a batch.
    seconds : float
        Length of a training chunk.
    n_bands : int
        Mel bands.
    """

    epochs: int
    batch_size: int
    seconds: float
    n_bands: int


def open_cache(
    objective, integrated, n_batches, wav_augment, teacher, chunks, place
):
    """Say how large a training's cache becomes, and open it.

    Arguments
    ---------
    objective, integrated
        See :func:`cache_bytes`.
    n_batches : int
        Batches of an epoch, of all processes.
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        See :func:`copies_of`.
    teacher : imlkd_brain.distillation.teacher.Teacher
        The teacher.
    chunks : Chunks
        What it sees.
    place : dict
        ``folder``, None for no cache, and ``limit`` of
        :func:`check_cache_size`.

    Returns
    -------
    TeacherCache or None

    Raises
    ------
    UserError
        If it would be larger than the limit.
    """
    folder = place["folder"]
    if not folder:
        return None
    n_bytes = cache_bytes(
        objective,
        integrated,
        chunks.epochs * n_batches,
        (
            chunks.batch_size * copies_of(wav_augment),
            1 + int(chunks.seconds * integrated.frame_rate),
            chunks.n_bands,
        ),
        (len(teacher.rows), teacher.embedding_dim),
    )
    check_cache_size(n_bytes, place["limit"], folder)
    return TeacherCache(folder)


def cache_bytes(objective, integrated_inputs, n_batches, batch, teacher):
    """How much a training leaves in an empty cache.

    Arguments
    ---------
    objective : imlkd_brain.distillation.objective.DistillationObjective
        Decides which answers and inputs there are.
    integrated_inputs : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        Its durations are drawn equally often.
    n_batches : int
        Batches of the whole training, of all processes.
    batch : tuple of int
        A batch's shape after augmentation: utterances, frames, mel bands.
    teacher : tuple of int
        Shape of the teacher's classes: speakers, dimension of embeddings.

    Returns
    -------
    int
        Bytes; a little more than the files' for durations drawn evenly.
    """
    batch_size, n_frames, n_bands = batch
    answers = any(map(objective.needs, ("raw", "cross", "segment")))
    answers = int(answers) + int(objective.needs("integrated"))
    lengths = [
        min(n_frames, max(1, round(seconds * integrated_inputs.frame_rate)))
        for seconds in integrated_inputs.durations
    ]
    numbers = answers * sum(teacher)
    segment = sum(lengths) / len(lengths)
    if objective.integrates:
        numbers += segment * n_bands
    if objective.needs_attention:
        numbers += segment
    entries = answers + int(objective.integrates or objective.needs_attention)
    # All of it is kept in float32.
    return int(n_batches * (4 * batch_size * numbers + entries * ENTRY_BYTES))


def check_cache_size(n_bytes, limit, folder):
    """Say how large a cache becomes, and stop where that is too large.

    Arguments
    ---------
    n_bytes : int
        From :func:`cache_bytes`.
    limit : float or None
        In GB (10^9 bytes); None for any size.
    folder : str
        The cache, for the message.

    Raises
    ------
    UserError
        With the size and the ways out, or if the limit is no number.

    Example
    -------
    >>> check_cache_size(2_000_000_000, 3, "cache")
    """
    if limit is None:
        limit = float("inf")
    if not isinstance(limit, numbers.Real):
        raise UserError(
            f"teacher_cache_limit: {limit!r} is no number; give GB, or null "
            "for any size."
        )
    size = f"{n_bytes / 1e9:,.1f} GB"
    if n_bytes > limit * 1e9:
        raise UserError(
            f"teacher_cache: this training would keep about {size} in "
            f"{folder}, more than teacher_cache_limit ({limit:g} GB); train "
            "without it (`--teacher_cache null`), train for fewer epochs, or "
            "raise the limit."
        )
    free = free_bytes(folder)
    if n_bytes > free:
        raise UserError(
            f"teacher_cache: this training would keep about {size} in "
            f"{folder}, and its disk has {free / 1e9:,.1f} GB; make room, or "
            "train without it (`--teacher_cache null`)."
        )
    logger.info(f"teacher_cache: about {size} in {folder} for this training.")


def copies_of(wav_augment):
    """How many items augmentation makes of one.

    Arguments
    ---------
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        None: no augmentation.

    Returns
    -------
    int
        The most it can be.

    Example
    -------
    >>> copies_of(None)
    1
    """
    if wav_augment is None:
        return 1
    copies = wav_augment.repeat_augment
    if (
        wav_augment.parallel_augment
        and not wav_augment.parallel_augment_fixed_bs
    ):
        copies *= wav_augment.max_augmentations
    return max(1, copies + int(wav_augment.concat_original))
