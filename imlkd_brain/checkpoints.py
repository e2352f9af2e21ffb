"""Checkpoints that are whole or absent, whenever a training is interrupted.

Authors: IML-KD contributors
"""

import os
import shutil

from speechbrain.utils.checkpoints import Checkpoint, Checkpointer
from speechbrain.utils.distributed import ddp_barrier

BUILDING = "building"


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's checkpointer, which gives a checkpoint its name last.

    SpeechBrain writes the file that makes a folder a checkpoint first and the
    weights after it, so that an interruption in between leaves a checkpoint
    that is the most recent and cannot be loaded. Here the folder is written
    under another name and renamed when all of it is there.

    Arguments and methods are those of
    ``speechbrain.utils.checkpoints.Checkpointer``.
    """

    def save_checkpoint(self, *args, **kwargs):
        """Save all recoverables; the checkpoint, or None off the main process.

        See ``speechbrain.utils.checkpoints.Checkpointer.save_checkpoint``.
        """
        written = super().save_checkpoint(*args, **kwargs)
        ddp_barrier()
        if written is not None:
            shutil.rmtree(self._final, ignore_errors=True)
            os.rename(written.path, self._final)
        # All processes see the same list of checkpoints from here on.
        ddp_barrier()
        if written is None:
            return None
        files = {
            name: self._final / path.name
            for name, path in written.paramfiles.items()
        }
        return Checkpoint(self._final, written.meta, files)

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
