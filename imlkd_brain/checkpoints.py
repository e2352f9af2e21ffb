"""Checkpoints that are whole or absent, whenever a training is interrupted.

Each has a checksum of each of its files. A damaged one is set aside, and the
newest of the others is used.

Authors: IML-KD contributors
"""

import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from imlkd_brain.errors import UserError
from imlkd_brain.files import SUMS, differing_sum, write_sums, zip_damage
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    PARAMFILE_EXT,
    Checkpoint,
    Checkpointer,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

BUILDING = "building"
ASIDE = "damaged-"
# What torch.load asks the environment, whoever calls it.
ONLY_WEIGHTS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
NOT_ONLY_WEIGHTS = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, which gives a checkpoint its name last.

    SpeechBrain writes the file that makes a folder a checkpoint first and the
    weights after it, so that an interruption in between leaves a checkpoint
    that is the most recent and cannot be loaded. Here the folder is written
    under another name and renamed when all of it is there.

    ``checksums.json`` in the folder has the SHA-256 of each other file. A
    checkpoint that does not agree with it is never loaded. Nothing in a
    checkpoint is unpickled but tensors and plain values.

    Arguments and methods are those of
    ``speechbrain.utils.checkpoints.Checkpointer``.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._known = {}

    def save_checkpoint(self, meta=None, *args, **kwargs):
        """Save all recoverables; the checkpoint, or None off the main process.

        See ``speechbrain.utils.checkpoints.Checkpointer.save_checkpoint``. Its
        time is later than that of all others, also after the clock was set
        back: the latest is what is kept and gone on with.
        """
        meta = {"unixtime": self._later_than_all(), **(meta or {})}
        written = super().save_checkpoint(meta, *args, **kwargs)
        ddp_barrier()
        if written is not None:
            write_sums(written.path)
            shutil.rmtree(self._final, ignore_errors=True)
            os.rename(written.path, self._final)
        # All processes see the same list of checkpoints from here on.
        ddp_barrier()
        if written is None:
            return None
        # What was written just now is not read again.
        self._known[self._final] = _state(self._final), ""
        files = {
            name: self._final / path.name
            for name, path in written.paramfiles.items()
        }
        return Checkpoint(self._final, written.meta, files)

    def list_checkpoints(self):
        """List the checkpoints that are not damaged.

        Returns
        -------
        list of speechbrain.utils.checkpoints.Checkpoint

        Raises
        ------
        UserError
            If there are checkpoints and all of them are damaged.
        """
        damaged, whole = self.damaged(), self._whole()
        if damaged and not whole:
            place, reason = min(damaged.items())
            raise UserError(
                f"{place}: this checkpoint is damaged ({reason}), and there is "
                f"no other in {self.checkpoints_dir}; restore it, or remove "
                f"{self.checkpoints_dir} and run again to train anew."
            )
        return whole

    def recover_if_possible(self, *args, **kwargs):
        """Load the newest checkpoint that is whole; set damaged ones aside.

        See ``speechbrain.utils.checkpoints.Checkpointer.recover_if_possible``.

        Raises
        ------
        UserError
            If all checkpoints are damaged, or the chosen one does not fit.
        """
        self.list_checkpoints()
        damaged = self.damaged()
        # No process looks for what another one renames.
        ddp_barrier()
        for place, reason in sorted(damaged.items()):
            if if_main_process():
                aside = place.with_name(ASIDE + place.name)
                _remove(aside)
                os.rename(place, aside)
                logger.warning(
                    f"{place}: this checkpoint is damaged ({reason}); it is "
                    f"set aside as {aside.name}, and another one is used."
                )
        ddp_barrier()
        chosen = super().recover_if_possible(*args, **kwargs)
        if damaged and chosen is not None:
            logger.warning(f"{chosen.path}: this checkpoint is used instead.")
        return chosen

    def load_checkpoint(self, checkpoint):
        """Load a checkpoint, or say why it cannot be loaded.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            From :meth:`list_checkpoints`.

        Raises
        ------
        UserError
            If it is of another model.
        """
        try:
            with only_weights():
                super().load_checkpoint(checkpoint)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            # Modules, optimisers and YAML raise many types.
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{checkpoint.path}: this checkpoint does not fit this "
                f"training ({type(error).__name__}: {reason}); give another "
                f"output_folder, or remove {self.checkpoints_dir} to train "
                "anew."
            ) from error

    def damaged(self):
        """Return what is wrong with each damaged checkpoint.

        Returns
        -------
        dict
            A few words by the checkpoint's path.
        """
        found = {}
        for place in self._places():
            state = _state(place)
            if self._known.get(place, (None,))[0] != state:
                self._known[place] = state, damage(place)
            if self._known[place][1]:
                found[place] = self._known[place][1]
        return found

    def _places(self):
        """Paths of all checkpoints, damaged or not."""
        return sorted(self.checkpoints_dir.glob(f"{CKPT_PREFIX}+*"))

    def _later_than_all(self):
        """The time, or a second after the checkpoint that is ahead of it."""
        times = [whole.meta["unixtime"] + 1 for whole in self._whole()]
        return max([time.time(), *times])

    def _whole(self):
        """The checkpoints that are not damaged."""
        damaged = self.damaged()
        return self._construct_checkpoint_objects(
            [path for path in self._places() if path not in damaged]
        )

    def _new_checkpoint_dirpath(self):
        """Where to write a checkpoint named by the time."""
        return self._building(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name):
        """Where to write a checkpoint named by the caller."""
        return self._building(super()._custom_checkpoint_dirpath(name))

    def _building(self, final):
        """Keep the name for later; an empty folder to write to meanwhile."""
        self._final = final
        building = self.checkpoints_dir / BUILDING
        shutil.rmtree(building, ignore_errors=True)
        return building


@contextmanager
def only_weights():
    """Let ``torch.load`` read tensors and plain values only, anywhere in it.

    SpeechBrain's loaders do not say ``weights_only``, and its default depends
    on torch's version and on the environment.

    Example
    -------
    >>> with only_weights():
    ...     os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
    '1'
    """
    before = {
        key: os.environ.get(key) for key in (ONLY_WEIGHTS, NOT_ONLY_WEIGHTS)
    }
    os.environ[ONLY_WEIGHTS] = "1"
    os.environ.pop(NOT_ONLY_WEIGHTS, None)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def damage(folder):
    """Say what is wrong with a checkpoint.

    Arguments
    ---------
    folder : str or Path
        The checkpoint. Where it has no checksums, as those of an earlier
        version, those within its files are checked.

    Returns
    -------
    str
        A few words; empty if it is whole.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            return "it is no folder"
        files = {path.name: path for path in folder.iterdir()}
        if METAFNAME not in files:
            return f"{METAFNAME} is missing"
        meta = yaml.safe_load(files[METAFNAME].read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or not {
            "unixtime",
            "end-of-epoch",
        } <= set(meta):
            return f"{METAFNAME} does not say when it was written"
        if SUMS not in files:
            return _damage_without_sums(files)
        return differing_sum(folder)
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        return " ".join(str(error).split())[:120] or type(error).__name__


def _damage_without_sums(files):
    """What is wrong with a checkpoint of files without checksums."""
    for name, path in sorted(files.items()):
        if path.suffix != PARAMFILE_EXT:
            continue
        content = path.read_bytes()
        if not content:
            return f"{name} is empty"
        # torch writes ZIP files, in which each member has a sum.
        if content.startswith(b"PK"):
            damage = zip_damage(path)
            if damage:
                return f"{name}: {damage}"
    return ""


def _state(place):
    """Names, sizes and times of a checkpoint's files, to know it again."""
    try:
        return sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in os.scandir(place)
        )
    except OSError as error:
        return str(error)


def _remove(place):
    """Remove a file or a folder, if there is one."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
