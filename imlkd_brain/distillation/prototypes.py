"""Mean teacher embeddings as classes, for speakers the teacher never saw.

Authors: IML-KD contributors
"""

import hashlib
import os
import shutil
from functools import partial

import torch
from torch.nn.functional import normalize
from torch.utils.data import Subset
from tqdm import tqdm

from imlkd_brain.distillation.front_end import FrontEnd
from imlkd_brain.distributed import n_processes, rank
from imlkd_brain.files import cached, is_cached
from imlkd_brain.precision import full_float32
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import ddp_barrier, run_on_main

PART = 64  # batches that are stored together: 3 MB of 192 dimensions each


@torch.no_grad()
def speaker_prototypes(embeddings, labels, n_speakers):
    """Return the mean direction of each speaker's embeddings.

    Arguments
    ---------
    embeddings : torch.Tensor
        (utterances, dim).
    labels : torch.Tensor
        (utterances,) speaker indices.
    n_speakers : int
        Number of rows to return.

    Returns
    -------
    prototypes : torch.Tensor
        (n_speakers, dim), unit length.

    Example
    -------
    >>> emb = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> speaker_prototypes(emb, torch.tensor([0, 0, 1]), 2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    directions = normalize(embeddings, dim=-1)
    sums = directions.new_zeros(n_speakers, directions.shape[-1])
    sums.index_add_(0, labels.to(sums.device), directions)
    return normalize(sums, dim=-1)


@torch.no_grad()
@full_float32()
def embed_dataset(
    model,
    dataset,
    device="cpu",
    sample_rate=None,
    batch_size=64,
    keep=None,
    share=(0, 1),
):
    """Embed every item of a training set once, for prototypes.

    Arguments
    ---------
    model : SpeakerModel
        The model that embeds.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives sig, all of one length, and spk_id_encoded.
    device : str
        Where to embed; the model is moved there and back.
    sample_rate : int, optional
        Of the dataset in Hz, where it may not be the model's.
    batch_size : int
        Utterances in a batch.
    keep : callable, optional
        ``keep(name, compute)`` stores what ``compute()`` returns, or returns
        what was stored under that name. It is called for each part of
        ``PART`` batches, so that an interrupted embedding goes on.
    share : tuple of int
        A number and how many there are: of so many parts only each one of
        that number, for processes that share the work.

    Returns
    -------
    embeddings : torch.Tensor
        (utterances, dim).
    labels : torch.Tensor
        (utterances,) speaker indices.
    """
    home = next(model.parameters()).device
    model.to(device)
    front_end = FrontEnd(model, sample_rate or model.sample_rate).to(device)
    rows = labelled_rows(dataset)
    step, (own, n_shares) = PART * batch_size, share
    starts = range(own * step, len(rows), n_shares * step)
    n_items = sum(min(step, len(rows) - start) for start in starts)
    parts = []
    with tqdm(
        total=n_items, desc="teacher prototypes", dynamic_ncols=True
    ) as progress:
        for start in starts:
            items = rows[start : start + step]

            def compute(items=items):
                """Embed the utterances of one part."""
                loader = make_dataloader(
                    Subset(dataset, items),
                    batch_size=batch_size,
                    collate_fn=PaddedBatch,
                )
                embeddings, labels = [], []
                for batch in loader:
                    batch = batch.to(device)
                    feats = front_end(batch.sig.data)
                    embeddings.append(model.embed_features(feats).cpu())
                    labels.append(batch.spk_id_encoded.data.squeeze(1).cpu())
                    progress.update(len(feats))
                return [torch.cat(embeddings), torch.cat(labels)]

            # A loader draws a number, which the caller's stream must not miss.
            with torch.random.fork_rng(devices=[]):
                name = f"{start:09d}"
                parts.append(compute() if keep is None else keep(name, compute))
            done = sum(len(labels) for _, labels in parts)
            progress.update(done - progress.n)
    model.to(home)
    if not parts:
        # More processes than parts
        return torch.zeros(0, 0), torch.zeros(0).long()
    embeddings, labels = zip(*parts)
    return torch.cat(embeddings), torch.cat(labels)


def labelled_rows(dataset):
    """Return the numbers of a training set's rows that have a label."""
    rows = (dataset.data[name] for name in dataset.data_ids)
    return [i for i, row in enumerate(rows) if row.get("labelled", True)]


def kept_prototypes(dataset, device, model, n_speakers, path, options):
    """Return prototypes of a training set, computed once and stored.

    Unless the file has those of the same teacher, data and options, the
    processes of the training share the embedding, part by part, and the main
    one puts the parts together. A later start of the same training reads the
    file. An interrupted start leaves its embeddings in a
    folder beside the file, and the next one goes on.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset or None
        See :func:`embed_dataset`. One with ``stored_embeddings`` is asked for
        them first, see
        :class:`imlkd_brain.distillation.stored_answers.AnsweredSet`. None
        where nothing depends on the classes: they are zeros then.
    device : str
        Where to embed.
    model : SpeakerModel
        The model that embeds.
    n_speakers : int
        Number of prototypes.
    path : str
        The file, which ends in ``.pt``.
    options : dict
        Everything else that the dataset's samples depend on.

    Returns
    -------
    prototypes : torch.Tensor
        (n_speakers, dim), unit length, see :func:`speaker_prototypes`.
    """

    if dataset is None or not n_speakers:
        # Of embeddings alone, or of unlabelled speech
        return torch.zeros(n_speakers, model.embedding_dim)
    if hasattr(dataset, "stored_embeddings"):
        # The teacher has embedded these chunks before.
        embeddings, labels = dataset.stored_embeddings()
        if embeddings is not None:
            labelled = labels >= 0
            return speaker_prototypes(
                embeddings[labelled], labels[labelled], n_speakers
            )

    key = _prototypes_key(model, dataset, n_speakers, options)
    whole = os.path.splitext(path)[0]
    parts = f"{whole}_parts"

    def keep(name, compute_part):
        return cached(parts, name, key, compute_part)

    embed = partial(
        embed_dataset,
        model,
        dataset,
        device,
        options.get("sample_rate"),
        keep=keep,
    )

    def compute():
        embeddings, labels = embed()
        return speaker_prototypes(embeddings, labels, n_speakers)

    def compute_once():
        cached(folder, name, key, compute)
        # Also what a start with other options has left.
        shutil.rmtree(parts, ignore_errors=True)

    folder, name = os.path.split(whole)
    if n_processes() > 1:
        there = run_on_main(is_cached, args=[folder, name, key])
        if not there:
            embed(share=(rank(), n_processes()))
            ddp_barrier()
    run_on_main(compute_once)
    return cached(folder, name, key, compute)


def _prototypes_key(model, dataset, n_speakers, options):
    """Hash what prototypes depend on: teacher, utterances, options."""
    digest = hashlib.sha256(
        f"{model.key} {n_speakers} {sorted(options.items())}".encode()
    )
    for number in labelled_rows(dataset):
        name = dataset.data_ids[number]
        row = {k: v for k, v in dataset.data[name].items() if k != "labelled"}
        digest.update(f"{name} {sorted(row.items())}".encode())
        try:
            # All of a large corpus is not read for this.
            found = os.stat(row["wav"])
        except OSError:
            # Named by its path when it is read.
            continue
        digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()
