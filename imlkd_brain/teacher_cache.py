"""What a teacher says of an input, kept on disk for the next student.

Methods that are compared see the same chunks in the same order, so that the
teacher's answers and the integrated inputs are the same for all of them; most
of a distillation step on a CPU is spent on just these.

Authors: IML-KD contributors
"""

import hashlib
import os
from pathlib import Path
from pickle import UnpicklingError

import torch

from imlkd_brain.errors import UserError


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
        if path.is_file():
            try:
                return tuple(torch.load(path, map_location=feats.device))
            except (OSError, EOFError, RuntimeError, UnpicklingError):
                # A damaged entry is as good as none: it is written anew.
                pass
        tensors = compute()
        building = path.with_name(f"{name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A copy: a view would take all of its storage to the disk.
            torch.save([t.detach().cpu().clone() for t in tensors], building)
            os.replace(building, path)
        except (OSError, RuntimeError) as error:
            building.unlink(missing_ok=True)
            raise UserError(
                f"{self.folder}: the teacher's answers cannot be kept there "
                f"({error}); make room or go without, --teacher_cache null."
            ) from error
        return tensors
