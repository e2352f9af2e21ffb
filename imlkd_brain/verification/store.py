"""Stores embeddings on disk, so that each utterance is embedded once.

Authors: IML-KD contributors
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from imlkd_brain.data.speakers import data_folders, utterance_key
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

STORE_INTERVAL = 30.0  # seconds of embedding between two writes to disk


class EmbeddingStore:
    """Embeddings on disk, one folder for each model and crop.

    An entry is named after the utterance and the size and times of its file.
    So a second trial list costs only scoring, and changed audio or a new model
    is embedded anew. The times are those of the content and of the file's
    entry in its folder. A tool may restore the first, but every write changes
    the second. Reading the content instead would cost 40 GB of reading in
    each run on VoxCeleb1. A copied corpus is embedded once more. New
    embeddings are written in parts, each whole or not at all.

    Arguments
    ---------
    folder : str or Path
        The store's folder, shared by all models.
    model_key : str
        The model's hash.
    crop : str
        Name of the crop, see :func:`imlkd_brain.data.crops.crop_name`.

    A part that is damaged, or another model's, is set aside, and its
    utterances are embedded anew.
    """

    def __init__(self, folder, model_key, crop):
        self.folder = Path(folder) / model_key[:16] / crop
        self.model_key = model_key
        self.rows = {}
        self.fresh = {}
        self.written = time.monotonic()
        self.read = set()
        self.refresh()

    def refresh(self):
        """Read the parts that were written since, by any process."""
        for part in sorted(self.folder.glob("*.npz")):
            if part.name in self.read:
                continue
            self.read.add(part.name)
            try:
                rows = self._read(part)
            except Exception as error:
                # A cut file raises one of many types, zipfile's and numpy's.
                if not os.path.lexists(part):
                    # Set aside by another verification that shares the store.
                    continue
                aside = part.with_suffix(".damaged")
                os.replace(part, aside)
                logger.warning(
                    f"{part}: this part of the embedding store is damaged "
                    f"({error or type(error).__name__}); it is set aside as "
                    f"{aside.name}, and its utterances are embedded anew."
                )
                continue
            self.rows.update(rows)

    def _read(self, part):
        """Read a part's entries: (embedding, seconds) by name."""
        with np.load(part, allow_pickle=False) as arrays:
            names, embeddings = arrays["names"].tolist(), arrays["embeddings"]
            seconds = arrays["seconds"]
            # Parts of earlier versions do not say whose they are.
            if str(arrays.get("model", self.model_key)) != self.model_key:
                raise ValueError("it is another model's")
        shape = (len(names),)
        if embeddings.shape[:1] != shape or seconds.shape != shape:
            raise ValueError("its arrays have different lengths")
        known = next(iter(self.rows.values()), (embeddings[0],))[0].shape
        if embeddings.ndim != 2 or embeddings.shape[1:] != known:
            raise ValueError(
                f"its embeddings have the shape {embeddings.shape[1:]}"
            )
        if embeddings.dtype != np.float32:
            raise ValueError(f"its embeddings are {embeddings.dtype}")
        if not (np.isfinite(embeddings).all() and (seconds > 0).all()):
            raise ValueError("it holds NaN, infinity or no speech")
        return zip(names, zip(embeddings, seconds, strict=False), strict=True)

    def add(self, name, embedding, seconds):
        """Add an embedding (D,) of ``seconds`` of speech; write at times."""
        self.rows[name] = self.fresh[name] = (embedding, seconds)
        if time.monotonic() - self.written > STORE_INTERVAL:
            self.write()

    def write(self):
        """Write the embeddings that are not yet on disk."""
        if self.fresh:
            names = list(self.fresh)
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{digest[:16]}.npz"
            self.read.add(part.name)
            with (
                in_place_of(part) as temporary,
                open(temporary, "wb") as stream,
            ):
                np.savez(
                    stream,
                    model=np.array(self.model_key),
                    names=np.array(names),
                    embeddings=np.stack([e for e, _ in self.fresh.values()]),
                    seconds=np.array(
                        [s for _, s in self.fresh.values()], dtype=np.float32
                    ),
                )
            self.fresh = {}
        self.written = time.monotonic()


def entry_name(path, roots=()):
    """Name of a file's entry in a store: its utterance, size and times.

    Arguments
    ---------
    path : str
        The audio file.
    roots : sequence of str
        The data folders, whose names do not count.

    Returns
    -------
    str

    Raises
    ------
    UserError
        If the file is missing.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such audio file; restore it, or correct the "
            "list or CSV that names it."
        ) from None
    return (
        f"{utterance_key(path, roots)}|{state.st_size}|{state.st_mtime_ns}"
        f"|{state.st_ctime_ns}"
    )


def audio_state(located, data_folder=""):
    """Hash of the entry names of a list's files.

    Arguments
    ---------
    located : LocatedTrials
        The list.
    data_folder : str
        The corpus; several folders with commas.

    Returns
    -------
    str
        It changes when a file is changed or replaced.

    Raises
    ------
    UserError
        If a file is missing.
    """
    files = [file for files in located.enrol_files for file in files]
    roots = data_folders(data_folder)
    entries = [
        entry_name(path, roots) for path in [*files, *located.test_files]
    ]
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]
