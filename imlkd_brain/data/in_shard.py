"""Files of a training that are read out of shards, a few large tar files.

An index says where in its shard a file begins, and a training reads its chunks
there: rows, chunks, their order and every sample are those of the files. See
:mod:`imlkd_brain.data.shards` for how shards are built.

Authors: IML-KD contributors
"""

import errno
import io
import os
import weakref
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from imlkd_brain.data.annotations import UNLABELLED
from imlkd_brain.errors import UserError
from imlkd_brain.files import read_json

FORMAT = 1
INDEX = "index.json"
BUILD = "python -m imlkd_brain.data.shards"
ROOT = "$data_root"


class InShard(str):
    """The path of an audio file that is read out of a shard.

    Arguments
    ---------
    path : str
        Of the file itself, which need not be there.
    shards : Shards
        Where it is read.
    number : int
        Of the file among those of the shards.
    """

    __slots__ = ("number", "shards")

    def __new__(cls, path, shards, number):
        self = super().__new__(cls, path)
        self.shards, self.number = shards, number
        return self

    def __getnewargs__(self):
        """What a worker that is spawned makes the path of."""
        return str(self), self.shards, self.number

    @contextmanager
    def opened(self):
        """Open the file for reading, as ``imlkd_brain.data.audio.opened``.

        Yields
        ------
        file : soundfile.SoundFile

        Raises
        ------
        UserError
            If the shard cannot be read there.
        """
        member = None
        try:
            member = self.shards.member(self.number)
            with soundfile.SoundFile(member) as file:
                yield file
            # soundfile takes it for the end of the file.
            if member.error is not None:
                raise member.error
        except (OSError, RuntimeError) as error:
            shard = self.shards.shard_of(self.number)
            raise UserError(
                f"{shard}: {self} cannot be read in this shard; run the same "
                f"`{BUILD}` again, which mends it."
            ) from (getattr(member, "error", None) or error)


class Member(io.RawIOBase):
    """A part of an open file, read as a file of its own.

    Arguments
    ---------
    descriptor : int
        Of the open file. Its position is not used, so that forked workers can
        share it.
    offset, size : int
        The part, in bytes.
    """

    def __init__(self, descriptor, offset, size):
        super().__init__()
        self.descriptor, self.offset, self.size = descriptor, offset, size
        self.position, self.error = 0, None

    def readable(self):
        """It can be read."""
        return True

    def seekable(self):
        """It can be read from anywhere."""
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        """Go to a place, as in any file."""
        start = {os.SEEK_CUR: self.position, os.SEEK_END: self.size}
        self.position = max(0, start.get(whence, 0) + offset)
        return self.position

    def tell(self):
        """Return the place in the part."""
        return self.position

    def readinto(self, buffer):
        """Fill a buffer up to the end of the part.

        A read that the disk cuts short stands in ``error``: soundfile calls
        this from C, which nothing can be raised through.

        Returns
        -------
        int
            The bytes that were read.
        """
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self.size - self.position)]
        done = 0
        while done < len(view):
            place = self.offset + self.position + done
            try:
                read = os.preadv(self.descriptor, [view[done:]], place)
                if not read:
                    raise OSError(errno.EIO, "the file ends too early")
            except OSError as error:
                self.error = error
                break
            done += read
        self.position += done
        return done


class Shards:
    """A folder of shards that is complete.

    Arguments
    ---------
    folder : str or pathlib.Path
        What ``python -m imlkd_brain.data.shards`` built.

    Raises
    ------
    UserError
        If there is no such folder, its build has not ended, or a shard is not
        as it was built.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(
                f"train_shards: {folder} is not there; build it (`{BUILD}`), or "
                "leave train_shards out."
            )
        index = read_json(self.folder / INDEX)
        if not index.get("complete"):
            raise UserError(
                f"{folder}: the build of these shards has not ended; run the "
                f"same `{BUILD}` again, or leave train_shards out."
            )
        if index.get("format") != FORMAT:
            raise UserError(
                f"{self.folder / INDEX}: is of format {index.get('format')}, "
                f"expected {FORMAT}; build the shards again in another folder."
            )
        self.numbers, where = {}, []
        for shard in range(index["n_shards"]):
            record = read_json(record_path(self.folder, shard))
            path = shard_path(self.folder, shard)
            size = path.stat().st_size if path.is_file() else None
            if not record or size != record["bytes"]:
                state = "missing" if size is None else "damaged"
                raise UserError(
                    f"{path}: this shard is {state}; run the same `{BUILD}` "
                    "again, which mends it."
                )
            for name, offset, n_bytes in record["files"]:
                self.numbers[name] = len(where)
                where.append((shard, offset, n_bytes))
        self.where = np.array(where, np.int64).reshape(-1, 3)
        self._hold({})

    def _hold(self, descriptors):
        self._descriptors = descriptors
        weakref.finalize(self, _close, descriptors)

    def __getstate__(self):
        """All but the open files, which a spawned worker does not have."""
        return {k: v for k, v in vars(self).items() if k != "_descriptors"}

    def __setstate__(self, state):
        """In a spawned worker."""
        vars(self).update(state)
        self._hold({})

    def shard_of(self, number):
        """Return the path of the shard that has a file."""
        return shard_path(self.folder, int(self.where[number, 0]))

    def member(self, number):
        """Return a file, open for reading."""
        shard, offset, size = self.where[number].tolist()
        if shard not in self._descriptors:
            path = shard_path(self.folder, shard)
            self._descriptors[shard] = os.open(path, os.O_RDONLY)
        return Member(self._descriptors[shard], offset, size)

    def in_place_of_files(self, rows, data_folder, annotation):
        """Let rows name files in the shards, in place of those on the disk.

        Arguments
        ---------
        rows : dict
            Of a training set, by ID; changed in place. Rows of an unlabelled
            folder keep their files.
        data_folder : str
            The data folder of this training; the shards may come of another
            place.
        annotation : str
            The rows' CSV, for the message.

        Raises
        ------
        UserError
            Naming the first file that is not in the shards.
        """
        root = str(data_folder)
        numbers = {
            name.replace(ROOT, root): number
            for name, number in self.numbers.items()
        }
        rows = [r for k, r in rows.items() if not k.startswith(UNLABELLED)]
        missing = dict.fromkeys(
            r["wav"] for r in rows if r["wav"] not in numbers
        )
        if missing:
            raise UserError(
                f"{self.folder}: {len(missing)} files of {annotation} are not "
                f"in these shards (first: {next(iter(missing))}); build shards "
                "of this annotation in another folder, or leave train_shards "
                "out."
            )
        for row in rows:
            row["wav"] = InShard(row["wav"], self, numbers[row["wav"]])


def _close(descriptors):
    """Close the open files of shards that nobody has any more."""
    while descriptors:
        os.close(descriptors.popitem()[1])


def shard_path(folder, number):
    """Return the path of a shard."""
    return Path(folder) / f"shard-{number:06d}.tar"


def record_path(folder, number):
    """Return the path of what says where files begin in a shard."""
    return shard_path(folder, number).with_suffix(".json")
