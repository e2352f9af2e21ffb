#!/usr/bin/env python3
"""Recipe for storing a teacher's answers, which students then train on.

A large teacher takes most of an update's time. This script asks it once about
several chunks of each training utterance and stores what it says, about 1.5 kB
a chunk. Students learn from that: they cost what they cost without a teacher,
and one pass more for segments.

To run this recipe, then train students:
> python teach.py hparams/minivox/teach.yaml --data_folder DIR \
    --teacher_folder campplus --teacher_classes prototypes \
    --teacher_answers ANSWERS
> python train_kd.py hparams/minivox/iml_kd.yaml --data_folder DIR \
    --teacher_folder campplus --teacher_classes prototypes \
    --teacher_answers ANSWERS

A walk that was stopped goes on with the same command. `--processes N` asks N
teachers at a time; the command may also be started more than once, and by
torchrun.

Authors
    * IML-KD contributors
"""

import multiprocessing
import os
import sys
from functools import partial

import torch
from train_kd import check_before_training
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain import training
from imlkd_brain.data import datasets
from imlkd_brain.data.variants import VariantSet
from imlkd_brain.distillation.answer_store import AnswerStore
from imlkd_brain.distillation.stored_answers import check_fields, recipe_of
from imlkd_brain.distillation.teaching import (
    RecipeGuidance,
    answers_content,
    arithmetic_on,
    walk,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.locks import locked
from imlkd_brain.training import load_training
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def check_before_teaching(hparams):
    """Stops for what cannot be stored, before anything is computed."""
    folder = hparams["teacher_answers"]
    if not folder:
        raise UserError(
            "teacher_answers: give `--teacher_answers FOLDER`, where the "
            "answers go."
        )
    hparams["open_answers"] = None  # There may be none yet.
    check_before_training(hparams)
    mode = hparams["integrated_inputs"].mode
    fields, precision = hparams["answers_fields"], hparams["answers_precision"]
    check_fields(fields, precision, mode, folder)


def prepare(hparams):
    """Makes the CSV of all utterances that the teacher is asked about."""
    if hparams["skip_prep"] or hparams["data_folder"] is None:
        return
    options = {
        "data_folder": hparams["data_folder"],
        "save_folder": hparams["save_folder"],
        "verification_pairs_file": hparams["verification_file"],
        "splits": ["train"],
        "split_ratio": hparams["split_ratio"],
        "seg_dur": hparams["sentence_len"],
        "random_segment": hparams["random_segment"],
    }
    options.update(hparams["prepare_options"](begun=False))
    prepare_voxceleb(**options)
    if hparams["augmentation"] and hparams["prepare_noise_data"] is not None:
        hparams["prepare_noise_data"]()
        hparams["prepare_rir_data"]()


def dataio_prep(hparams, recipe):
    """Creates the chunks that the teacher hears, and the speakers' encoder."""
    train_data, _ = datasets.train_dataset(
        hparams["train_annotation"],
        hparams["data_folder"],
        hparams["sentence_len"],
        hparams["sample_rate"],
        hparams["seed"],
        hparams["speed_perturb"],
        hparams["labels"],
        hparams.get("train_shards"),
    )
    encoder = datasets.encode_speakers(
        train_data,
        os.path.join(hparams["save_folder"], "label_encoder.txt"),
        begun=False,
    )
    datasets.index_speakers(train_data, encoder)
    chunks = VariantSet(
        train_data.data,
        recipe,
        hparams["answers_variants"],
        hparams["wav_augment"] if hparams["augmentation"] else None,
    )
    datasets.index_speakers(chunks, encoder)
    return train_data, chunks, encoder


def begin(hparams, run_opts):
    """Prepares the data and the teacher, one process after the other."""
    recipe = recipe_of(
        hparams["seed"],
        hparams["sentence_len"],
        hparams["sample_rate"],
        hparams["integrated_inputs"],
        hparams["compute_features"],
    )
    prepare(hparams)
    train_data, chunks, encoder = dataio_prep(hparams, recipe)
    speakers = training.speaker_names(encoder)
    own = hparams["integrated_inputs"].target == "own_embedding"
    classes = hparams["teacher_classes"] if speakers else "prototypes"
    if own or hparams["answers_fields"] == ["chunk"]:
        # What is stored depends on no classes.
        train_data, classes = None, "prototypes"
    prototypes = partial(
        hparams["teacher_prototypes"],
        train_data,
        training.device_of(run_opts, hparams),
    )
    teacher = hparams["teacher"](
        speakers=speakers, classes=classes, prototypes=prototypes
    )
    guidance = RecipeGuidance(
        teacher,
        hparams["integrated_inputs"],
        hparams["sample_rate"],
        arithmetic_on(
            training.device_of(run_opts, hparams), hparams["answers_arithmetic"]
        ),
    )
    content = answers_content(
        guidance,
        recipe,
        hparams["wav_augment"] if hparams["augmentation"] else None,
        hparams["answers_fields"],
        hparams["answers_precision"],
        speakers,
        hparams["teacher_classes"],
    )
    utterances = {
        name: (row["spk_id"], row["duration"])
        for name, row in chunks.data.items()
    }
    store = AnswerStore.create(hparams["teacher_answers"], content, utterances)
    return store, chunks, guidance


def teach(argv, first=True):
    """Asks the teacher about what no other process asks it about."""
    hparams_file, hparams, run_opts, overrides = load_training(argv)
    check_before_teaching(hparams)
    os.makedirs(hparams["teacher_answers"], exist_ok=True)
    place = os.path.join(hparams["teacher_answers"], ".lock")
    with locked(place, f"{place}: another process prepares the data"):
        if first:
            sb.core.create_experiment_directory(
                experiment_directory=hparams["teacher_answers"],
                hyperparams_to_save=hparams_file,
                overrides=overrides,
            )
        store, chunks, guidance = begin(hparams, run_opts)
    helpers = []
    if first and hparams["processes"] > 1:
        torch.set_num_threads(1)
        # Not forked: a copy of torch's threads does not run.
        spawn = multiprocessing.get_context("spawn")
        for _ in range(hparams["processes"] - 1):
            helper = spawn.Process(target=help_teaching, args=(argv,))
            helper.start()
            helpers.append(helper)
    compute, norm = hparams["compute_features"], hparams["mean_var_norm"]
    walk(
        store,
        chunks,
        guidance,
        lambda wavs: norm(compute(wavs), torch.ones(len(wavs))),
        hparams["answers_variants"],
        hparams["batch_size"],
        {
            "device": training.device_of(run_opts, hparams),
            "num_workers": hparams["num_workers"],
            "timeout": hparams["train_dataloader_options"].get("timeout", 0),
            "progress": first and not run_opts.noprogressbar,
        },
    )
    for helper in helpers:
        helper.join()
        if helper.exitcode:
            raise UserError(
                f"{store.folder}: a process that helped ended early (exit "
                f"code {helper.exitcode}); run the same command again, what "
                "was finished is kept."
            )
    return store, hparams


def help_teaching(argv):
    """Walks beside the first process."""
    torch.set_num_threads(1)
    with one_sentence_errors():
        teach(argv, first=False)


def main(argv):
    """Stores all answers, and says how to train on them."""
    store, hparams = teach(argv)
    missing = store.missing(hparams["answers_variants"])
    if missing:
        logger.info(f"{store.folder}: {len(missing)} files are others' work.")
        return
    logger.info(
        f"{store.folder}: {len(store.rows)} rows, "
        f"{hparams['answers_variants']} chunks each. Train on them with "
        f"train_kd.py ... --teacher_answers {store.folder}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
