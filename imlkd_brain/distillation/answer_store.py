"""A teacher's answers on disk: one record for each chunk, in whole files.

A folder has ``answers.json``, what the answers depend on, ``utterances.csv``,
whose they are, and a file for each block of rows and each variant. A block is
an array of NumPy with named fields, which is mapped into memory: only what is
read is loaded.

Authors: IML-KD contributors
"""

import csv
import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imlkd_brain.errors import UserError
from imlkd_brain.files import (
    in_place_of,
    replacing,
    sha256_of,
    write_json,
    write_whole,
)
from imlkd_brain.locks import Busy, locked

CONTENT = "answers.json"
UTTERANCES = "utterances.csv"
FORMAT = 1  # raised whenever a folder of before can not be read any more
FIELDS = ("chunk", "segment", "integrated", "weights")
PRECISIONS = ("float16", "float32")
BLOCK_ROWS = 512  # rows of a file, half a minute to some minutes of work
LEVELS = 4  # parts of a chunk whose level is kept, to know it again


@dataclass
class Block:
    """The rows ``start`` to ``stop`` of a variant, which share a file."""

    variant: int
    start: int
    stop: int
    path: Path

    def __len__(self):
        return self.stop - self.start


class AnswerStore:
    """A folder of stored answers.

    Arguments
    ---------
    folder : str or Path
        Where they are.
    content : dict
        What the answers depend on: ``fields``, ``precision``, ``dimension``
        of embeddings, ``weights``, the number of weights for each duration,
        and more that only has to be equal.
    utterances : dict
        ``{id: (speaker, seconds)}`` in the order of rows.
    """

    def __init__(self, folder, content, utterances):
        self.folder = Path(folder)
        self.content = content
        self.utterances = utterances
        self.rows = {name: row for row, name in enumerate(utterances)}
        self.mapped = {}

    def __getstate__(self):
        """Leave what is mapped behind: a worker maps it again."""
        return {**vars(self), "mapped": {}}

    @classmethod
    def create(cls, folder, content, utterances):
        """Begin a store, or go on with one of the same content.

        Raises
        ------
        UserError
            If the folder has answers of another teacher, other options or
            other data.
        """
        folder = Path(folder)
        content = json.loads(
            json.dumps({**content, "utterances": _digest(utterances)})
        )
        if (folder / CONTENT).is_file():
            store = cls.open(folder)
            other = store.utterances.items() ^ utterances.items()
            if other:
                raise UserError(
                    f"{folder}: its walk is over {len(store.utterances)} rows "
                    f"and this one over {len(utterances)}; "
                    f"{min(other)[0]} is another or only in one of them. Give "
                    "the data of before, another `--teacher_answers`, or "
                    "remove this folder."
                )
            check_same(folder, store.content, content)
            return store
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / UTTERANCES) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("id", "speaker", "seconds"))
            for name, (speaker, seconds) in utterances.items():
                writer.writerow((name, speaker, repr(float(seconds))))
        # The last file, which makes it a store.
        write_json(folder / CONTENT, content)
        return cls(folder, content, utterances)

    @classmethod
    def open(cls, folder):
        """Open a store that has been begun.

        Raises
        ------
        UserError
            If there is none, or it cannot be read.
        """
        folder = Path(folder)
        if not (folder / CONTENT).is_file():
            raise UserError(
                f"{folder}: no stored answers of a teacher there (no "
                f"{CONTENT}); make them with teach.py, or give "
                "`--teacher_answers null` to ask the teacher."
            )
        try:
            text = (folder / CONTENT).read_text(encoding="utf-8")
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
            with open(
                folder / UTTERANCES, newline="", encoding="utf-8"
            ) as stream:
                utterances = {
                    row["id"]: (row["speaker"], float(row["seconds"]))
                    for row in csv.DictReader(stream)
                }
            if _digest(utterances) != content["utterances"]:
                raise ValueError(f"{UTTERANCES} is another walk's")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{folder}: its stored answers cannot be read ({error}); "
                "restore the folder, or remove it and run teach.py again."
            ) from error
        return cls(folder, content, utterances)

    def record_type(self, variant):
        """Return the type of a variant's records."""
        number = "<f2" if self.content["precision"] == "float16" else "<f4"
        sizes = dict.fromkeys(FIELDS[:3], self.content["dimension"])
        lengths = self.content["weights"]
        sizes["weights"] = lengths[variant % len(lengths)] if lengths else 0
        parts = [(n, number, (sizes[n],)) for n in self.content["fields"]]
        return np.dtype([("levels", "<f4", (LEVELS,)), *parts])

    def blocks(self, n_variants):
        """Return the blocks of the first variants, in the order of a walk."""
        return [
            Block(
                variant,
                start,
                min(start + BLOCK_ROWS, len(self.rows)),
                self.folder
                / f"variant{variant:03d}"
                / f"{start // BLOCK_ROWS:05d}.npy",
            )
            for variant in range(n_variants)
            for start in range(0, len(self.rows), BLOCK_ROWS)
        ]

    def missing(self, n_variants):
        """Return the blocks of the first variants that are not there."""
        return [b for b in self.blocks(n_variants) if not b.path.is_file()]

    def n_bytes(self, blocks):
        """Return how much blocks take on disk."""
        return sum(
            len(block) * self.record_type(block.variant).itemsize
            for block in blocks
        )

    def check_room(self, blocks):
        """Stop where the disk has no room for blocks.

        Raises
        ------
        UserError
            With both sizes.
        """
        needed = self.n_bytes(blocks)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder}: the answers take {size(needed)} more and the "
                f"disk has {size(free)}; make room, give a folder on another "
                "disk, or fewer answers_variants or answers_fields."
            )

    @contextmanager
    def claimed(self, block):
        """Yield whether a block is this process's to make.

        It is not where another process makes it or it is there already.
        """
        block.path.parent.mkdir(parents=True, exist_ok=True)
        lock = block.path.with_suffix(".lock")
        try:
            with locked(lock, f"{block.path}: taken", "it is another's"):
                yield not block.path.is_file()
                # Of a block that is there, nobody asks for the lock.
                lock.unlink(missing_ok=True)
        except Busy:
            yield False

    def write(self, block, records):
        """Write a block, whole or not at all.

        Arguments
        ---------
        block : Block
            Which one.
        records : numpy.ndarray
            Of :meth:`record_type`, one for each row.
        """
        assert records.dtype == self.record_type(block.variant)
        assert len(records) == len(block)
        block.path.parent.mkdir(parents=True, exist_ok=True)
        with in_place_of(block.path) as temporary:
            with open(temporary, "wb") as stream:
                np.save(stream, records, allow_pickle=False)
            # Before the file itself: what is there has a checksum.
            write_whole(_sum_of(block), sha256_of(temporary))

    def record(self, name, variant):
        """Return the record of an utterance's variant.

        Raises
        ------
        UserError
            If its file is missing or damaged.
        """
        row = self.rows[name]
        number, place = divmod(row, BLOCK_ROWS)
        if (variant, number) not in self.mapped:
            blocks = -(-len(self.rows) // BLOCK_ROWS)
            block = self.blocks(variant + 1)[variant * blocks + number]
            self.mapped[variant, number] = self._map(block)
        return self.mapped[variant, number][place]

    def check_files(self, n_variants):
        """Stop where a file is missing or is not what was written.

        Files of an earlier version have no checksum; their shape and type are
        checked.

        Raises
        ------
        UserError
            Naming the file, or how many are missing.
        """
        absent = self.missing(n_variants)
        if absent:
            raise UserError(
                f"{self.folder}: {len(absent)} of "
                f"{len(self.blocks(n_variants))} files of the first "
                f"{n_variants} variants are not there yet; run teach.py again, "
                "which goes on, or give fewer answers_variants "
                f"({self.n_complete()} are complete)."
            )
        for block in self.blocks(n_variants):
            self._map(block)
            if _sum_of(block).is_file():
                wanted = _sum_of(block).read_text(
                    encoding="ascii", errors="replace"
                )
                if wanted != sha256_of(block.path):
                    raise _damaged(block, "it has another checksum")

    def n_complete(self):
        """Return how many variants are complete."""
        variant = 0
        while not self.missing(variant + 1):
            variant += 1
        return variant

    def _map(self, block):
        """Map a block's file, which must have the records it should."""
        try:
            records = np.load(block.path, mmap_mode="r", allow_pickle=False)
            wanted = self.record_type(block.variant)
            if records.dtype != wanted or records.shape != (len(block),):
                raise ValueError(
                    f"{records.shape} records of {records.dtype}, not "
                    f"{len(block)} of {wanted}"
                )
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(block, error) from error
        return records


def _sum_of(block):
    """Where the SHA-256 of a block's file is."""
    return block.path.with_suffix(".sha256")


def _damaged(block, reason):
    """What to do about a damaged file."""
    return UserError(
        f"{block.path}: this file of stored answers is damaged ({reason}); "
        "remove it and run teach.py again."
    )


def check_same(folder, theirs, ours):
    """Refuse to use or go on with stored answers of anything else.

    Arguments
    ---------
    folder : str or Path
        Where the answers are, for the message.
    theirs, ours : dict
        What the stored answers depend on, and what is asked for.

    Raises
    ------
    UserError
        Naming the first differences with both values.

    Example
    -------
    >>> check_same("answers", {"gate": 0.5, "seed": 1}, {"gate": 0.5})
    """
    old, new = dict(_leaves(theirs)), dict(_leaves(ours))
    found = [
        f"{name}: {_short(old.get(name))} there, {_short(new[name])} here"
        for name in new
        if old.get(name) != new[name]
    ]
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise UserError(
            f"{folder}: its answers were stored with something else "
            f"({'; '.join(found[:4])}{more}); give the same, another "
            "`--teacher_answers`, or remove this folder and run teach.py."
        )


def levels_of(signal):
    """Return the root mean square of each part of a chunk, float32.

    A chunk is known again by them. They change by rounding only, where a
    sum of samples is computed in another order.

    Arguments
    ---------
    signal : torch.Tensor
        (samples,)

    Example
    -------
    >>> import torch
    >>> levels_of(torch.tensor([1.0, -1.0, 2.0, 0.0])).tolist()
    [1.0, 1.0, 2.0, 0.0]
    """
    parts = np.array_split(signal.double().numpy(), LEVELS)
    return np.array([np.sqrt(np.mean(p**2)) for p in parts], dtype="<f4")


def size(n_bytes):
    """Return a size in words.

    Example
    -------
    >>> size(1_500_000_000), size(20_000)
    ('1.5 GB', '0.1 MB')
    """
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:,.1f} GB"
    return f"{max(0.1, n_bytes / 1e6):,.1f} MB"


def _digest(utterances):
    """A hash of whose answers they are, in order."""
    digest = hashlib.sha256()
    for name, (speaker, seconds) in utterances.items():
        digest.update(f"{name} {speaker} {float(seconds)!r}\n".encode())
    return digest.hexdigest()


def _leaves(content, name=""):
    """Yield (dotted name, value) of all that is no mapping."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{name}{key}.")
        else:
            yield f"{name}{key}", value


def _short(value):
    """What stands for a value in a message."""
    if isinstance(value, str) and len(value) == 64:
        return f"content {value[:8]}"
    if value is None:
        return "none"
    return value
