"""Embeds each utterance once, in batches of similar length.

A model is anything with ``embed(wavs, lens) -> (batch, dim)``, ``key``,
``sample_rate`` and ``source``, as
:class:`imlkd_brain.models.speaker_model.SpeakerModel`.

An utterance of more than ``LONGEST_SECONDS`` is embedded in equal parts, each
not longer than that, whose embeddings are averaged. So time grows with its
length, and memory does not.

Authors: IML-KD contributors
"""

import copy
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from imlkd_brain.data.audio import (
    LONGEST_SECONDS,
    converted_length,
    flaw_of,
    read_converted,
)
from imlkd_brain.data.crops import crop_name, crop_start, seconds_to_samples
from imlkd_brain.data.speakers import data_folders, utterance_key
from imlkd_brain.distributed import n_processes, rank
from imlkd_brain.errors import UserError
from imlkd_brain.models.features import refuse_too_short, window_samples
from imlkd_brain.models.folded import folded
from imlkd_brain.verification.store import EmbeddingStore, entry_name
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

N_NAMED = 3


@dataclass(frozen=True)
class _Cut:
    """The part of a file to embed, in samples, and its name in the store."""

    entry: str
    path: str
    start: int
    length: int
    # Of how many cuts of the same utterance this is one
    parts: int = 1


class Embedder:
    """Embeds files with any model, each once, and stores the embeddings.

    Threads read utterances ahead of the model. Batches are sorted by length,
    longest first, so that a batch too large for the memory shows at once.
    Processes that torchrun has started share the batches of one store.
    Padding changes an embedding a little, through the convolutions that look
    past the end. With ``max_padding_seconds=0`` only utterances of equal
    length share a batch, so an embedding does not depend on its batch.

    Arguments
    ---------
    folder : str or Path
        Where embeddings are stored, in a folder for each model and crop.
    seed : int
        Seed of the random crops.
    data_folder : str
        The corpus; several folders with commas. A crop depends on the path
        below it, so a corpus that is moved has the same crops.
    allow_tf32 : bool
        Whether the models run in TF32. Such embeddings are stored apart from
        those of full float32.
    max_batch_seconds : float
        Most audio in a batch, padding included; bounds the memory. A single
        longer utterance is a batch of its own.
    max_padding_seconds : float
        Most padding of an utterance in a batch.
    readers : int
        Threads that read audio.
    """

    def __init__(
        self,
        folder,
        seed=0,
        data_folder="",
        allow_tf32=False,
        max_batch_seconds=60.0,
        max_padding_seconds=0.0,
        readers=4,
    ):
        self.folder = Path(folder)
        self.seed = seed
        self.roots = data_folders(data_folder)
        self.allow_tf32 = allow_tf32
        self.max_batch_seconds = max_batch_seconds
        self.max_padding_seconds = max_padding_seconds
        self.readers = readers
        self._stores = {}

    def store(self, model, seconds=None):
        """The store of a model's embeddings at a duration.

        Arguments
        ---------
        model : SpeakerModel
            Its key names the store.
        seconds : float, optional
            Length of the crops; whole utterances without it.

        Returns
        -------
        EmbeddingStore
        """
        crop = crop_name(seconds, self.seed)
        if self.allow_tf32:
            crop += "-tf32"
        if (model.key, crop) not in self._stores:
            self._stores[model.key, crop] = EmbeddingStore(
                self.folder, model.key, crop
            )
        return self._stores[model.key, crop]

    @torch.inference_mode()
    def __call__(self, model, paths, seconds=None):
        """Embed each utterance that the store does not hold yet.

        Arguments
        ---------
        model : SpeakerModel
            On the device to use.
        paths : list of str
            The utterances' files; one that is listed twice is embedded once.
        seconds : float, optional
            Length of the random crop to embed; whole utterances without it.
            Shorter utterances are taken whole.

        Returns
        -------
        embeddings : torch.Tensor
            In the order of ``paths``, float32, on the CPU, (N, D).
        speech : torch.Tensor
            Seconds embedded of each, (N,).

        Raises
        ------
        UserError
            If a file is unreadable or too short, an embedding is
            not finite, or the device's memory does not suffice.
        """
        store = self.store(model, seconds)
        # What is missing is the same for all processes: none has begun.
        ddp_barrier()
        entries = [entry_name(path, self.roots) for path in paths]
        missing = {
            entry: path
            for entry, path in zip(entries, paths, strict=True)
            if entry not in store.rows
        }
        if missing:
            self._embed(model, self._cuts(missing, model, seconds), store)
            ddp_barrier()
            if n_processes() > 1:
                store.refresh()
        rows = [store.rows[entry] for entry in entries]
        embeddings = torch.from_numpy(np.stack([row[0] for row in rows]))
        return embeddings, torch.tensor([float(row[1]) for row in rows])

    def _cuts(self, missing, model, seconds):
        """Check the files and choose the crops."""
        rate = model.sample_rate
        with ThreadPoolExecutor(self.readers) as pool:
            found = list(
                pool.map(
                    lambda path: converted_length(path, rate), missing.values()
                )
            )
        lengths = [length for length, _ in found]
        _name_converted(
            {
                path: what
                for path, (_, what) in zip(missing.values(), found, strict=True)
                if what
            },
            rate,
        )
        features = getattr(model, "compute_features", None)
        shortest = 1 if features is None else window_samples(features)
        cuts = []
        for (entry, path), length in zip(missing.items(), lengths, strict=True):
            start = 0
            if seconds is not None:
                n_crop = seconds_to_samples(seconds, rate)
                key = utterance_key(path, self.roots)
                start = crop_start(key, length, n_crop, self.seed)
                length = min(length, n_crop)
            if length < shortest:
                raise UserError(
                    f"{path}: its {1000 * length / rate:.0f} ms are shorter "
                    "than a window of the model's features "
                    f"({1000 * shortest / rate:.0f} ms); take it out of the "
                    "list or CSV that names it."
                )
            parts = -(-length // int(LONGEST_SECONDS * rate))
            bounds = [start + length * i // parts for i in range(parts + 1)]
            for first, end in zip(bounds, bounds[1:], strict=False):
                cuts.append(_Cut(entry, path, first, end - first, parts))
        return cuts

    def _embed(self, model, cuts, store):
        """Embed batch by batch and add the embeddings to the store."""
        rate = model.sample_rate
        batches = length_sorted_batches(
            [cut.length for cut in cuts],
            int(self.max_batch_seconds * rate),
            int(self.max_padding_seconds * rate),
        )
        batches = _own_batches(batches, cuts)
        device = next(model.parameters()).device
        quick = _quick(model)
        progress = tqdm(
            total=sum(map(len, batches)),
            desc=f"embedding ({store.folder.name})",
            unit="utt",
            mininterval=1.0,
            leave=False,
            disable=not if_main_process(),
        )
        work = ([cuts[i] for i in batch] for batch in batches)
        flaws, parts = {}, defaultdict(list)
        try:
            for batch, wavs, found in _read_ahead(
                partial(_read_batch, sample_rate=rate), work, self.readers
            ):
                flaws.update(found)
                embeddings = _embed_batch(quick, batch, wavs.to(device))
                for cut, embedding in zip(batch, embeddings, strict=True):
                    if cut.parts == 1:
                        store.add(cut.entry, embedding, cut.length / rate)
                        continue
                    parts[cut.entry].append((embedding, cut.length / rate))
                    if len(parts[cut.entry]) == cut.parts:
                        vectors, seconds = zip(
                            *parts.pop(cut.entry), strict=True
                        )
                        store.add(
                            cut.entry, np.mean(vectors, axis=0), sum(seconds)
                        )
                progress.update(len(batch))
        finally:
            # An interrupted run has its embeddings on disk, too.
            store.write()
            progress.close()
        _name_flaws(flaws)


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


def _quick(model):
    """The same model, with fewer operations where its network has such a form."""
    if not hasattr(model, "embedding_model"):
        return model
    quick = copy.copy(model)
    network = folded(model.embedding_model)
    quick._modules = {**model._modules, "embedding_model": network}
    return quick


def _own_batches(batches, cuts):
    """This process's batches, which are those of one process that has all.

    So an embedding has the same bits, however many processes there are. The
    parts of a long utterance are averaged by the main process.
    """
    shares = [
        0 if any(cuts[i].parts > 1 for i in batch) else place % n_processes()
        for place, batch in enumerate(batches)
    ]
    return [
        batch
        for batch, share in zip(batches, shares, strict=True)
        if share == rank()
    ]


def _name_flaws(flaws):
    """Name utterances whose embeddings say little of a voice."""
    for flaw in sorted(set(flaws.values())):
        paths = sorted(path for path in flaws if flaws[path] == flaw)
        more = len(paths) - N_NAMED
        logger.warning(
            f"{len(paths)} embedded utterances are {flaw}: "
            f"{', '.join(paths[:N_NAMED])}"
            + (f" and {more} more" if more > 0 else "")
            + "; their scores say little of a voice."
        )


def _name_converted(found, sample_rate):
    """Say which files are not of the model's format, and what becomes of them."""
    if found:
        path = min(found)
        logger.warning(
            f"{len(found)} files are not mono at {sample_rate} Hz and are "
            f"converted as they are read; the first is {path}, {found[path]}."
        )


def _read_batch(cuts, sample_rate):
    """Read parts of files into a padded batch (batch, samples).

    Also what is wrong with them, by path, see :func:`flaw_of`.
    """
    flaws = {}
    wavs = torch.zeros(len(cuts), cuts[0].length)
    for wav, cut in zip(wavs, cuts, strict=True):
        signal = read_converted(cut.path, cut.start, cut.length, sample_rate)
        if len(signal) < cut.length:
            raise UserError(
                f"{cut.path}: the audio file is cut short, its header promises "
                f"more than the {cut.start + len(signal)} samples it has; "
                "restore the file."
            )
        wav[: cut.length] = signal
        flaw = flaw_of(signal.numpy())
        if flaw:
            flaws[cut.path] = flaw
    return cuts, wavs, flaws


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


def _embed_batch(model, cuts, wavs):
    """Embeddings (batch, dim) as a float32 array, checked to be finite."""
    lengths = torch.tensor([float(cut.length) for cut in cuts])
    try:
        embeddings = model.embed(wavs, (lengths / wavs.shape[1]).to(wavs))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device has too little memory for a batch of {len(cuts)} "
            f"utterances, {wavs.shape[1] / model.sample_rate:.1f} s each; run "
            "again with a smaller --max_batch_seconds. The embeddings so far "
            "are kept."
        ) from error
    except RuntimeError as error:
        seconds = wavs.shape[1] / model.sample_rate
        refuse_too_short(error, cuts[0].path, seconds, model.source)
        raise
    embeddings = embeddings.float().cpu()
    finite = torch.isfinite(embeddings).all(dim=1)
    if not finite.all():
        path = cuts[int(torch.nonzero(~finite)[0])].path
        raise UserError(
            f"{path}: {model.source} gives an embedding with NaN or infinity; "
            "the model has diverged or the audio is broken."
        )
    return embeddings.numpy()
