"""Walks over a training set and stores a teacher's answers.

:class:`imlkd_brain.distillation.stored_answers.Answers` reads them.

Authors: IML-KD contributors
"""

import hashlib
from dataclasses import asdict

import numpy as np
import torch
from tqdm import tqdm

from imlkd_brain.data.variants import augmentation_settings
from imlkd_brain.distillation.answer_store import FORMAT, levels_of, size
from imlkd_brain.distillation.guidance import Guidance, View
from imlkd_brain.distillation.segments import Segment, segments_at
from imlkd_brain.distillation.stored_answers import (
    OF_ALL_CLASSES,
    attribution_settings,
)
from imlkd_brain.errors import UserError
from imlkd_brain.machine import is_slow_in_bfloat16
from imlkd_brain.precision import full_float32
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class RecipeGuidance(Guidance):
    """A teacher that is asked about the segments that the data set names.

    Arguments
    ---------
    teacher, integrated, sample_rate
        See :class:`imlkd_brain.distillation.guidance.Guidance`.
    arithmetic : str
        ``float32`` or ``bfloat16``, of the teacher's embeddings. Features and
        attribution stay in float32.
    """

    def __init__(self, teacher, integrated, sample_rate, arithmetic="float32"):
        super().__init__(teacher, integrated, sample_rate)
        self.arithmetic = arithmetic

    def answer(self, feats):
        """Cosines and embeddings of the frozen teacher."""
        if self.arithmetic == "float32":
            return super().answer(feats)
        half = torch.autocast(feats.device.type, torch.bfloat16)
        with torch.no_grad(), half:
            embeddings = self.teacher.embed_features(feats.float())
        embeddings = embeddings.float()
        return self.teacher.classify(embeddings), embeddings

    def _segments(self, view, seeds):
        """The segments of the batch's recipes."""
        frames = view.of_batch("frames")
        segment = Segment(
            segments_at(view.feats.detach(), frames),
            frames.shape[1] / self.integrated.frame_rate,
            frames[:, 0],
        )
        return segment, torch.Generator().manual_seed(seeds[1])

    def _weigh(self, view, segment, generator, with_gap, **asked):
        """I of segments by weights of frames, also of shared features."""
        return self._carry(view, segment, generator, with_gap, **asked)


def arithmetic_on(device, wanted):
    """In which arithmetic the teacher answers on a device.

    Arguments
    ---------
    device : str
        Where the teacher runs.
    wanted : str
        ``float32`` or ``bfloat16``, which is there to save time.

    Returns
    -------
    str
        ``float32`` where bfloat16 would be many times slower.

    Example
    -------
    >>> arithmetic_on("cpu", "float32")
    'float32'
    """
    if wanted != "bfloat16" or not is_slow_in_bfloat16(device):
        return wanted
    logger.warning(
        "answers_arithmetic: this CPU has no instructions for bfloat16, which "
        "would take many times as long; the teacher answers in float32."
    )
    return "float32"


def answers_content(
    guidance, recipe, wav_augment, fields, precision, speakers, classes
):
    """Return what stored answers depend on, and their sizes.

    Arguments
    ---------
    guidance : RecipeGuidance
        The teacher and how ``I(x_d)`` is made.
    recipe : imlkd_brain.data.variants.Recipe
        What chunks and segments depend on.
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        What is done to each chunk.
    fields, precision
        See :func:`imlkd_brain.distillation.stored_answers.check_fields`.
    speakers : list of str
        Of the training set.
    classes : str
        ``classifier`` or ``prototypes``.

    Returns
    -------
    dict
        For :class:`imlkd_brain.distillation.answer_store.AnswerStore`.
    """
    teacher, integrated = guidance.teacher, guidance.integrated
    content = {
        "format": FORMAT,
        "teacher": teacher.model_key,
        "shared_features": teacher.front_end is None,
        "recipe": asdict(recipe),
        "augmentation": augmentation_settings(wav_augment),
        "fields": list(fields),
        "precision": precision,
        "arithmetic": guidance.arithmetic,
        "dimension": teacher.embedding_dim,
        "weights": [],
        "attribution": {},
        "classes": {},
    }
    if list(fields) == ["chunk"]:
        return content
    made = "integrated" in fields
    content["attribution"] = attribution_settings(integrated, made)
    for variant in range(len(recipe.durations)):
        frames = recipe.frames("", variant)[None]
        wavs = torch.zeros(1, int(round(recipe.seconds * recipe.sample_rate)))
        segment = Segment(torch.zeros(1, frames.shape[1], 1), 0, frames[:, 0])
        n_weights = frames.shape[1]
        if teacher.front_end is not None:
            heard = guidance._waveforms(wavs, segment)
            n_weights = teacher.front_end(heard).shape[1]
        content["weights"].append(n_weights)
    target = content["attribution"].get("attribution_target")
    if target in ("true_class", *OF_ALL_CLASSES):
        content["classes"] = {"teacher_classes": classes}
    if target in OF_ALL_CLASSES:
        digest = hashlib.sha256("\n".join(speakers).encode())
        content["classes"]["speakers"] = digest.hexdigest()
    return content


def walk(store, dataset, guidance, features, n_variants, batch_size, options):
    """Store the answers that are not there yet.

    Several processes may walk over the same folder. Each takes a block of
    rows that no other has taken.

    Arguments
    ---------
    store : imlkd_brain.distillation.answer_store.AnswerStore
        Where answers go.
    dataset : imlkd_brain.data.variants.VariantSet
        Gives id, sig, frames and spk_id_encoded.
    guidance : RecipeGuidance
        The teacher.
    features : callable
        The student's features (batch, frames, mel) of (batch, samples).
    n_variants : int
        Chunks of a row.
    batch_size : int
        Chunks in a pass of the teacher.
    options : dict
        ``device``; ``num_workers`` that read, and
        ``timeout``, the seconds that they may take; ``progress``, whether to show a
        bar.

    Raises
    ------
    UserError
        If the disk has no room, or an answer is not finite.
    """
    blocks = store.missing(n_variants)
    n_all = n_variants * len(dataset)
    logger.info(
        f"{store.folder}: {n_all} chunks take "
        f"{size(store.n_bytes(store.blocks(n_variants)))}, of which "
        f"{size(store.n_bytes(blocks))} are to be made."
    )
    store.check_room(blocks)
    guidance.to(options["device"])
    with tqdm(
        total=n_all,
        initial=n_all - sum(map(len, blocks)),
        desc="answers",
        unit="chunk",
        # Blocks of other processes come in leaps: the mean rate of the whole
        # walk says how long it takes, the latest rate does not.
        smoothing=0,
        dynamic_ncols=True,
        disable=not options["progress"],
    ) as bar:
        for block in blocks:
            with store.claimed(block) as mine:
                if mine:
                    records = _ask(
                        store,
                        block,
                        dataset,
                        guidance,
                        features,
                        batch_size,
                        options,
                        bar,
                    )
                    _write(store, block, records)
            # Those of other processes are done as well.
            left = sum(map(len, store.missing(n_variants)))
            bar.n = max(bar.n, n_all - left)
            bar.refresh()


def _ask(store, block, dataset, guidance, features, batch_size, options, bar):
    """The records of a block."""
    records = np.zeros(len(block), store.record_type(block.variant))
    first = block.variant * len(dataset)
    loader = make_dataloader(
        dataset,
        batch_size=batch_size,
        sampler=range(first + block.start, first + block.stop),
        num_workers=options["num_workers"],
        # Where there are no workers there is nothing to wait for.
        timeout=options["timeout"] if options["num_workers"] else 0,
    )
    done = 0
    # A loader draws a number, which the caller's stream must not miss.
    with torch.random.fork_rng(devices=[]):
        for batch in loader:
            part = records[done : done + len(batch.id)]
            part["levels"] = np.stack(
                [levels_of(signal) for signal in batch.sig.data]
            )
            batch = batch.to(options["device"])
            recipe = dataset.recipe
            seed = recipe.draw("nodes", batch.id[0], block.variant)
            answers = ask(
                guidance,
                features,
                batch,
                store.content["fields"],
                seed.getrandbits(32),
            )
            for name, values in answers.items():
                with np.errstate(over="ignore"):
                    part[name] = values.float().cpu().numpy()
                finite = np.isfinite(part[name]).all(1)
                if not finite.all():
                    raise UserError(
                        f"the teacher's {name} of chunk {block.variant} of "
                        f"the utterance {batch.id[int(finite.argmin())]} is "
                        f"not finite in {store.content['precision']}; check "
                        "that recording, or give `--answers_precision "
                        "float32`."
                    )
            done += len(part)
            bar.update(len(part))
    return records


@full_float32()
def ask(guidance, features, batch, fields, seed):
    """Ask the teacher about a batch of chunks.

    Arguments
    ---------
    guidance : RecipeGuidance
        The teacher.
    features : callable
        The student's features of waveforms.
    batch : speechbrain.dataio.batch.PaddedBatch
        Of a :class:`imlkd_brain.data.variants.VariantSet`.
    fields : list of str
        Which answers.
    seed : int
        Of random nodes and baselines.

    Returns
    -------
    dict of str to torch.Tensor
        ``chunk``, ``segment`` and ``integrated`` (B, D), ``weights`` (B, T)
        of the teacher's frames.
    """
    wavs = batch.sig.data
    target = batch.spk_id_encoded.data.squeeze(1)
    with torch.no_grad():
        view = View(wavs, features(wavs), target, batch)
    answers = {}
    if "chunk" in fields:
        answers["chunk"] = guidance.of_chunk(view)[1]
    if list(fields) == ["chunk"]:
        return answers
    inputs = guidance.of_segments(view, (seed, seed))
    if "segment" in fields:
        answers["segment"] = guidance.answer(inputs.segment)[1]
    if "integrated" in fields:
        answers["integrated"] = guidance.answer(inputs.teacher)[1]
    if "weights" in fields:
        answers["weights"] = inputs.teacher_weights
        if answers["weights"] is None:
            # The mode identity weighs all frames alike.
            answers["weights"] = torch.ones(inputs.teacher.shape[:2])
    return answers


def _write(store, block, records):
    """Write a block; a disk that is full says how to go on."""
    try:
        store.write(block, records)
    except OSError as error:
        raise UserError(
            f"{block.path}: cannot be written ({error.strerror}); make room "
            "and run the same command again, what was finished is kept."
        ) from error
