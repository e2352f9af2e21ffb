"""Trains on stored answers of a teacher, which is then not asked.

Authors: IML-KD contributors
"""

from functools import partial

import numpy as np
import torch

from imlkd_brain.data.variants import (
    Recipe,
    VariantSampler,
    VariantSet,
    augmentation_settings,
)
from imlkd_brain.distillation.answer_store import (
    FIELDS,
    PRECISIONS,
    AnswerStore,
    check_same,
    levels_of,
)
from imlkd_brain.distillation.front_end import MODES
from imlkd_brain.distillation.stored_guidance import StoredGuidance
from imlkd_brain.distributed import n_processes
from imlkd_brain.errors import UserError

# Attribution targets that know all classes, not just the true one
OF_ALL_CLASSES = ("predicted", "log_posterior")
# Of a chunk's levels: other processors add up in another order.
TOLERANCE = 1e-3


def check_fields(fields, precision, mode, folder):
    """Refuse what cannot be stored, or trained on.

    Arguments
    ---------
    fields : list of str
        Some of ``FIELDS``.
    precision : str
        One of ``PRECISIONS``.
    mode : str
        Of the integrated inputs.
    folder : str
        Of the answers, for the message.

    Raises
    ------
    UserError
        Naming the key and the way out.
    """
    unknown = [name for name in fields if name not in FIELDS]
    if unknown or not fields or len({*fields}) < len(fields):
        raise UserError(
            f"answers_fields: {list(fields)} should be some of "
            f"{', '.join(FIELDS)}, each once."
        )
    if precision not in PRECISIONS:
        raise UserError(
            f"answers_precision: {precision!r} is not known; give one of "
            f"{', '.join(PRECISIONS)}."
        )
    if mode not in MODES and list(fields) != ["chunk"]:
        raise UserError(
            f"mode: {mode} weighs single bins, which are not stored in "
            f"{folder}, only weights of frames are; give `--mode "
            f"{MODES[0]}`, or `--teacher_answers null`."
        )


def attribution_settings(integrated, made):
    """Return what stored attributions depend on, for a fingerprint.

    Arguments
    ---------
    integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        How they were made.
    made : bool
        Whether answers to ``I(x_d)`` are among them. Without, they are the
        time weights alone, which all modes that weigh frames share.

    Returns
    -------
    dict
    """
    target = integrated.target
    baseline = integrated.baseline
    if isinstance(baseline, torch.Tensor):
        baseline = baseline.tolist()
    if integrated.mode == "identity":
        return {"mode": "identity"}
    return {
        "mode": integrated.mode if made else MODES[0],
        "rule": integrated.rule,
        "n_steps": integrated.n_steps,
        "attribution_target": target,
        "attribution_baseline": baseline,
        "gate": integrated.gate,
        "max_weight": integrated.max_weight,
        "scale": integrated.scale if target == "log_posterior" else None,
    }


def recipe_of(seed, seconds, sample_rate, integrated, compute_features):
    """Return the recipe of chunks for a student's features."""
    n_samples = int(round(seconds * sample_rate))
    with torch.no_grad():
        n_frames = compute_features(torch.zeros(1, n_samples)).shape[1]
    return Recipe(
        seed,
        float(seconds),
        sample_rate,
        [float(seconds) for seconds in integrated.durations],
        float(integrated.frame_rate),
        n_frames,
    )


def open_answers(
    objective,
    integrated,
    folder,
    n_variants,
    seed,
    seconds,
    sample_rate,
    compute_features,
    loader_options,
    cache,
    teacher_hears="augmented",
):
    """Open stored answers and check that a training can learn from them.

    Arguments
    ---------
    objective : imlkd_brain.distillation.objective.DistillationObjective
        Decides which answers are needed.
    integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        How ``I(x_d)`` is made.
    folder : str or None
        Of ``teach.py``'s answers; None for a training that asks its teacher.
    n_variants : int
        How many of the stored chunks of a row are trained on.
    seed, seconds, sample_rate, compute_features
        See :func:`recipe_of`.
    loader_options : dict
        Of the training set's data loader.
    cache : str or None
        Of the training.
    teacher_hears : str
        What the answers are to. ``augmented``: what the student hears.
        ``clean``: the chunks before augmentation, which is the student's
        alone and differs from epoch to epoch.

    Returns
    -------
    Answers or None

    Raises
    ------
    UserError
        If there are no answers, fewer than ``n_variants``, or others than the
        method needs.
    """
    if not folder:
        if teacher_hears == "clean":
            raise UserError(
                "teacher_hears: clean needs stored answers; run teach.py with "
                "`--augmentation False` and give `--teacher_answers FOLDER`, "
                "or `--teacher_hears augmented`."
            )
        return None
    if cache:
        raise UserError(
            "teacher_cache: a training on stored answers asks its teacher "
            "nothing; give `--teacher_cache null` or `--teacher_answers null`."
        )
    if not isinstance(n_variants, int) or n_variants < 1:
        raise UserError(
            f"answers_variants: {n_variants!r} should be a number of chunks, "
            "1 or more."
        )
    store = AnswerStore.open(folder)
    needed = _needed(objective, integrated)
    fields, precision = (store.content[k] for k in ("fields", "precision"))
    if needed != ["chunk"]:
        check_fields(fields, precision, integrated.mode, folder)
    if objective.needs_attention and integrated.mode == "identity":
        raise UserError(
            f"mode: identity weighs all frames alike, and so do the answers in "
            f"{folder}, but method {objective.method} draws attention to "
            "weights; give `--mode time_gate` to both, which leaves the "
            "branch `segment` plain."
        )
    missing = [name for name in needed if name not in fields]
    if missing:
        raise UserError(
            f"{folder}: method {objective.method} needs the field(s) "
            f"{', '.join(missing)}, and only {', '.join(fields)} are stored; "
            "run teach.py with `--answers_fields "
            f"'[{', '.join([*fields, *missing])}]'` and another "
            "`--teacher_answers`, or train with another method."
        )
    store.check_files(n_variants)
    recipe = recipe_of(seed, seconds, sample_rate, integrated, compute_features)
    return Answers(
        store,
        n_variants,
        needed,
        objective.cuts_segments,
        recipe,
        integrated,
        seed,
        loader_options,
        teacher_hears == "clean",
    )


def _needed(objective, integrated):
    """The fields that a method reads."""
    needed = []
    if any(map(objective.needs, ("raw", "cross", "segment"))):
        needed.append("chunk")
    weighed = objective.integrates and integrated.mode != "identity"
    if objective.needs("integrated"):
        needed.append("integrated" if weighed else "segment")
    if weighed or objective.needs_attention:
        needed.append("weights")
    return needed


class Answers:
    """The stored answers that a training reads.

    Arguments
    ---------
    store : AnswerStore
        Where they are.
    n_variants : int
        How many of the stored chunks of a row are trained on.
    needed : list of str
        The fields that the method reads.
    cuts_segments : bool
        Whether the method reads segments of the chunks.
    recipe : Recipe
        What this training would draw; the walk's seed may be another.
    integrated : imlkd_brain.distillation.integrated_inputs.IntegratedInputs
        How ``I(x_d)`` is made.
    seed : int
        Of the order of chunks.
    loader_options : dict
        Of the training set's data loader.
    clean : bool
        Whether the teacher heard the chunks before augmentation.
    """

    def __init__(
        self,
        store,
        n_variants,
        needed,
        cuts_segments,
        recipe,
        integrated,
        seed,
        loader_options,
        clean,
    ):
        self.store = store
        self.n_variants = n_variants
        self.needed = needed
        self.attributed = bool({"integrated", "weights"} & {*needed})
        self.cuts_segments = cuts_segments
        self.recipe = recipe
        self.integrated = integrated
        self.seed = seed
        self.loader_options = loader_options
        self.clean = clean

    def chunks_of(self, train_data, wav_augment):
        """Return the stored chunks of a training set.

        Arguments
        ---------
        train_data : speechbrain.dataio.dataset.DynamicItemDataset
            See :func:`imlkd_brain.data.datasets.train_dataset`.
        wav_augment : speechbrain.augment.augmenter.Augmenter or None
            Of this training.

        Returns
        -------
        AnsweredSet

        Raises
        ------
        UserError
            If an utterance, its length, its speaker or an option is not the
            walk's.
        """
        content = self.store.content
        if self.clean:
            wav_augment = None
        ours = {
            "recipe": {
                k: v for k, v in vars(self.recipe).items() if k != "seed"
            },
            "augmentation": augmentation_settings(wav_augment),
        }
        if self.attributed:
            made = "integrated" in self.needed
            settings = attribution_settings(self.integrated, made)
            if not made:
                # The student's input alone has it.
                settings.pop("gate", None)
            ours["attribution"] = settings
        if not self.cuts_segments:
            for name in ("durations", "frame_rate", "n_frames"):
                del ours["recipe"][name]
        check_same(self.store.folder, content, ours)
        self._check_rows(train_data.data)
        return AnsweredSet(
            train_data.data,
            Recipe(**content["recipe"]),
            self.n_variants,
            wav_augment,
            self.store,
            self.needed,
        )

    def _check_rows(self, rows):
        """Refuse an utterance that is not the walk's."""
        folder, target = self.store.folder, None
        if self.attributed:
            target = self.store.content["attribution"].get("attribution_target")
        by_class = target in ("true_class", *OF_ALL_CLASSES)
        for name, row in rows.items():
            stored = self.store.utterances.get(name)
            if stored is None:
                raise UserError(
                    f"{folder}: has no answers for the utterance {name}; run "
                    "teach.py over all of the training's data and speeds with "
                    "another `--teacher_answers`."
                )
            speaker, seconds = stored
            if abs(seconds - row["duration"]) > 1e-3:
                raise UserError(
                    f"{folder}: the utterance {name} was {seconds:g} s long "
                    f"there and is {row['duration']:g} s here, so it is "
                    "another recording; give the walk's data."
                )
            if by_class and speaker != row["spk_id"]:
                raise UserError(
                    f"{folder}: the utterance {name} is of the speaker "
                    f"{speaker} there and of {row['spk_id']} here, and its "
                    "weights depend on that; give the walk's speakers."
                )
        speakers = {
            row["spk_id"] for row in rows.values() if row.get("labelled", True)
        }
        theirs = {speaker for speaker, _ in self.store.utterances.values()}
        if target in OF_ALL_CLASSES and speakers != theirs:
            raise UserError(
                f"{folder}: attribution_target {target} depends on all "
                f"{len(theirs)} speakers of the walk, and this training has "
                f"{len(speakers)}; run teach.py on this training's data, or "
                "with `--attribution_target true_class`."
            )

    def in_place_of(self, teacher, dataset, options=None):
        """Return what a training on stored answers has instead of others.

        Arguments
        ---------
        teacher : imlkd_brain.distillation.teacher.Teacher
            Whose answers they should be.
        dataset : AnsweredSet
            Of :meth:`chunks_of`.
        options : dict, optional
            Of the training set's data loader, those of this object without
            it. A ``sampler`` draws the rows of an epoch, see
            :class:`imlkd_brain.data.labels.MixedBatches`.

        Returns
        -------
        dict
            ``guidance``; ``train_dataloader_options`` with an order of stored
            chunks; ``wav_augment``, None, where the chunks are augmented.

        Raises
        ------
        UserError
            If the answers are another teacher's.
        """
        ours = {
            "teacher": teacher.model_key,
            "shared_features": teacher.front_end is None,
        }
        check_same(self.store.folder, self.store.content, ours)
        options = {**(options or self.loader_options)}
        order = options.pop("sampler", None)
        if not options.pop("shuffle", False) and order is None:
            raise UserError(
                "train_dataloader_options: shuffle is not True, but a training "
                "on stored answers draws the chunks of each batch; give "
                "shuffle: True."
            )
        options["sampler"] = VariantSampler(
            dataset,
            self.seed,
            options["batch_size"],
            n_processes(),
            options.get("drop_last", False),
            order,
        )
        instead = {
            "guidance": StoredGuidance(teacher, self.integrated),
            "train_dataloader_options": options,
        }
        if not self.clean:
            instead["wav_augment"] = None
        return instead


class AnsweredSet(VariantSet):
    """Chunks with the answers to them.

    Arguments
    ---------
    rows, recipe, n_variants, wav_augment
        See :class:`imlkd_brain.data.variants.VariantSet`.
    store : AnswerStore
        Where the answers are.
    names : list of str
        Which are given, as ``answer_<name>``.
    """

    def __init__(self, rows, recipe, n_variants, wav_augment, store, names):
        super().__init__(rows, recipe, n_variants, wav_augment)
        self.store = store
        keys = [f"answer_{name}" for name in names]
        self.add_dynamic_item(
            partial(_stored, store, names),
            takes=["id", "variant", "sig"],
            provides=keys if len(keys) > 1 else keys[0],
        )
        self.set_output_keys(["id", "sig", "spk_id", "frames", *keys])

    def stored_embeddings(self):
        """Return all chunks' embeddings (N, dim) and speakers' indices (N,).

        None and None where no embeddings of chunks are stored.
        """
        if "chunk" not in self.store.content["fields"]:
            return None, None
        embeddings, labels = [], []
        with self.output_keys_as(["id", "spk_id_encoded"]):
            for row in range(len(self)):
                item = self[row]
                for variant in range(self.n_variants):
                    record = self.store.record(item["id"], variant)
                    embeddings.append(_floats(record["chunk"]))
                    labels.append(item["spk_id_encoded"])
        return torch.stack(embeddings), torch.cat(labels)


def _stored(store, names, id_, variant, signal):
    """The stored answers of a chunk, one tensor for each name."""
    record = store.record(id_, variant)
    levels, ours = record["levels"], levels_of(signal)
    if not np.allclose(levels, ours, rtol=TOLERANCE, atol=1e-6):
        raise UserError(
            f"{store.folder}: chunk {variant} of the utterance {id_} has other "
            f"levels there ({', '.join(f'{v:.4g}' for v in levels)}) than here "
            f"({', '.join(f'{v:.4g}' for v in ours)}), so it is another "
            "recording or was augmented otherwise; give the walk's data."
        )
    found = tuple(_floats(record[name]) for name in names)
    for name, values in zip(names, found):
        if not values.isfinite().all():
            raise UserError(
                f"{store.folder}: the stored {name} of the utterance {id_} has "
                "numbers that are not finite; remove the folder's "
                f"variant{variant:03d} and run teach.py again."
            )
    return found if len(found) > 1 else found[0]


def _floats(values):
    """Stored numbers as a tensor of float32."""
    return torch.from_numpy(np.array(values, dtype=np.float32))
