"""Embeds each utterance of a list once, in batches, and stores the result.

A model is anything with ``embed(wavs, lens) -> (batch, dim)``, ``key``,
``sample_rate`` and ``source``, as
:class:`imlkd_brain.models.speaker_model.SpeakerModel`.

Authors: IML-KD contributors
"""

import hashlib
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from imlkd_brain.data.audio import check_audio, check_samples, opened
from imlkd_brain.data.crops import crop_start, seconds_to_samples
from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of

STORE_INTERVAL = 30.0  # seconds of embedding between two writes to disk


class EmbeddingStore:
    """Embeddings on disk, one folder for each model and crop.

    An embedding is found again by the model's key, the crop, the utterance
    and its file's size and times, so that a new model or changed audio is
    embedded anew and a second trial list costs only scoring. The times are
    those of the content and of the file's entry in its folder: the second
    changes with every write, also where a tool restores the first, and no two
    corpora share it. That costs one look at the folder per file; to hash
    150,000 files would be to read 40 GB for each run. A corpus that is copied
    is embedded once more. What is added is written in parts, each to a
    temporary file that is then renamed.

    Arguments
    ---------
    folder : str or Path
        The store's folder, shared by all models.
    model_key : str
        The model's hash.
    crop : str
        Which part of an utterance was embedded, see :func:`crop_name`.

    Raises
    ------
    UserError
        If a part is unreadable.
    """

    def __init__(self, folder, model_key, crop):
        self.folder = Path(folder) / model_key[:16] / crop
        self.rows = {}
        self.fresh = {}
        self.written = time.monotonic()
        for part in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(part, allow_pickle=False) as arrays:
                    names = arrays["names"].tolist()
                    entries = zip(
                        arrays["embeddings"], arrays["seconds"], strict=True
                    )
            except Exception as error:
                # A cut file raises one of many types, zipfile's and numpy's.
                raise UserError(
                    f"{part}: this part of the embedding store is unreadable "
                    f"({type(error).__name__}); delete it and run again, its "
                    "utterances are then embedded anew."
                ) from error
            self.rows.update(zip(names, entries, strict=True))

    def add(self, name, embedding, seconds):
        """Keep an embedding (D,) of ``seconds`` of speech; write at times."""
        self.rows[name] = self.fresh[name] = (embedding, seconds)
        if time.monotonic() - self.written > STORE_INTERVAL:
            self.write()

    def write(self):
        """Write what is not yet on disk."""
        if self.fresh:
            names = list(self.fresh)
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{digest[:16]}.npz"
            with (
                in_place_of(part) as temporary,
                open(temporary, "wb") as stream,
            ):
                np.savez(
                    stream,
                    names=np.array(names),
                    embeddings=np.stack([e for e, _ in self.fresh.values()]),
                    seconds=np.array(
                        [s for _, s in self.fresh.values()], dtype=np.float32
                    ),
                )
            self.fresh = {}
        self.written = time.monotonic()


@torch.inference_mode()
def embed_utterances(
    model,
    paths,
    store,
    seconds=None,
    seed=0,
    max_batch_seconds=60.0,
    max_padding_seconds=0.0,
    readers=4,
):
    """Embed each utterance once, unless the store holds it already.

    Utterances are read by threads ahead of the model and embedded in
    length-sorted batches, longest first, so that a batch too large for the
    memory shows at once. Padding changes an embedding a little, through the
    convolutions that look past the end; with ``max_padding_seconds=0`` only
    utterances of equal length share a batch and the embedding is that of the
    utterance alone.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    paths : list of str
        The utterances' files; one that is listed twice is embedded once.
    store : EmbeddingStore
        The model's store for this crop.
    seconds : float, optional
        Length of the random crop to embed; whole utterances without it.
        Utterances shorter than that are taken whole.
    seed : int
        Seed of the crops.
    max_batch_seconds : float
        Most audio in a batch, padding included; bounds the memory. A single
        longer utterance is a batch of its own.
    max_padding_seconds : float
        Most padding of an utterance in a batch.
    readers : int
        Threads that read audio.

    Returns
    -------
    embeddings : torch.Tensor
        In the order of ``paths``, float32, on the CPU, (N, D).
    speech : torch.Tensor
        Seconds embedded of each, (N,).

    Raises
    ------
    UserError
        If a file is unreadable or of the wrong format, or an embedding is not
        finite, or the device's memory does not suffice.
    """
    entries = [_entry_name(path) for path in paths]
    missing = {
        entry: path
        for entry, path in zip(entries, paths, strict=True)
        if entry not in store.rows
    }
    if missing:
        segments = _cut_segments(
            missing, model.sample_rate, seconds, seed, readers
        )
        batches = length_sorted_batches(
            [length for *_, length in segments],
            int(max_batch_seconds * model.sample_rate),
            int(max_padding_seconds * model.sample_rate),
        )
        device = next(model.parameters()).device
        progress = tqdm(
            total=len(segments),
            desc=f"embedding ({store.folder.name})",
            unit="utt",
            mininterval=1.0,
            leave=False,
        )
        work = ([segments[i] for i in batch] for batch in batches)
        try:
            for batch, wavs in _read_ahead(_read_batch, work, readers):
                embeddings = _embed_batch(model, batch, wavs.to(device))
                for segment, embedding in zip(batch, embeddings, strict=True):
                    entry, _, _, length = segment
                    store.add(entry, embedding, length / model.sample_rate)
                progress.update(len(batch))
        finally:
            # Also on an interrupt: what is embedded stays embedded.
            store.write()
            progress.close()
    rows = [store.rows[entry] for entry in entries]
    embeddings = torch.from_numpy(np.stack([row[0] for row in rows]))
    return embeddings, torch.tensor([float(row[1]) for row in rows])


def _cut_segments(missing, sample_rate, seconds, seed, readers):
    """Check the files and choose the crops: (entry, path, start, length)."""
    with ThreadPoolExecutor(readers) as pool:
        lengths = list(
            pool.map(
                lambda path: check_audio(path, sample_rate), missing.values()
            )
        )
    segments = []
    for (entry, path), length in zip(missing.items(), lengths, strict=True):
        start = 0
        if seconds is not None:
            n_crop = seconds_to_samples(seconds, sample_rate)
            start = crop_start(utterance_key(path), length, n_crop, seed)
            length = min(length, n_crop)
        segments.append((entry, path, start, length))
    return segments


def length_sorted_batches(lengths, max_total, max_padding):
    """Group items of similar length, longest first.

    Arguments
    ---------
    lengths : list of int
        Length of each item.
    max_total : int
        Most items times longest length in a batch of several.
    max_padding : int
        Largest difference of lengths in a batch.

    Returns
    -------
    list of list of int
        Indices of the items of each batch; every item is in one.

    Example
    -------
    >>> length_sorted_batches([5, 9, 5, 5, 8], max_total=10, max_padding=0)
    [[1], [4], [0, 2], [3]]
    """
    batches = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            longest = lengths[batches[-1][0]]
            fits = (len(batches[-1]) + 1) * longest <= max_total
            if fits and longest - lengths[item] <= max_padding:
                batches[-1].append(item)
                continue
        batches.append([item])
    return batches


def _entry_name(path):
    """Utterance, size and times of its file: what the store calls it."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such audio file; restore it, or correct the "
            "list or CSV that names it."
        ) from None
    return (
        f"{utterance_key(path)}|{state.st_size}|{state.st_mtime_ns}"
        f"|{state.st_ctime_ns}"
    )


def audio_state(located):
    """A hash of a list's files, by what :class:`EmbeddingStore` knows of them.

    Arguments
    ---------
    located : LocatedTrials
        The list.

    Returns
    -------
    str
        Another one if a file was changed or replaced.

    Raises
    ------
    UserError
        If a file is missing.
    """
    files = [file for files in located.enrol_files for file in files]
    entries = map(_entry_name, [*files, *located.test_files])
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]


def _read_batch(segments):
    """Read segments of (entry, path, start, length) into (batch, samples)."""
    wavs = torch.zeros(len(segments), segments[0][3])
    for row, (_, path, start, length) in enumerate(segments):
        with opened(path) as file:
            file.seek(start)
            signal = file.read(length, dtype="float32")
        if len(signal) < length:
            raise UserError(
                f"{path}: the audio file is cut short, its header promises "
                f"more than the {start + len(signal)} samples it has; restore "
                "the file."
            )
        check_samples(signal, path, start)
        wavs[row, :length] = torch.from_numpy(signal)
    return segments, wavs


def _read_ahead(function, items, workers):
    """Results of ``function`` in order, a few items ahead of the consumer."""
    pool = ThreadPoolExecutor(workers)
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _embed_batch(model, segments, wavs):
    """Embeddings (batch, dim) as a float32 array, checked to be finite."""
    lengths = torch.tensor([float(length) for *_, length in segments])
    try:
        embeddings = model.embed(wavs, (lengths / wavs.shape[1]).to(wavs))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device has too little memory for a batch of {len(segments)} "
            f"utterances, {wavs.shape[1] / model.sample_rate:.1f} s each; run "
            "again with a smaller --max_batch_seconds, what was embedded is "
            "kept."
        ) from error
    embeddings = embeddings.float().cpu()
    finite = torch.isfinite(embeddings).all(dim=1)
    if not finite.all():
        _, path, *_ = segments[int(torch.nonzero(~finite)[0])]
        raise UserError(
            f"{path}: {model.source} gives an embedding with NaN or infinity; "
            "the model has diverged or the audio is broken."
        )
    return embeddings.numpy()
