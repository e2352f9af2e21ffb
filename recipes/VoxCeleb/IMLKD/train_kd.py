#!/usr/bin/env python3
"""Recipe for training a speaker embedding model with or without a teacher.

With a teacher, the student learns from integrated inputs (Integrated
Gradients of the teacher over segments of various durations) under a
three-level objective (instance, class, batch), or by one of the baselines
that `method` names in the YAML.

To run this recipe, first train a teacher, then the student:
> python train_kd.py hparams/train_teacher.yaml --data_folder /path/to/VoxCeleb1
> python train_kd.py hparams/iml_kd.yaml --data_folder /path/to/VoxCeleb1

On the corpus that installs itself (see the README):
> python train_kd.py hparams/minivox/train_teacher.yaml --data_folder DIR
> python train_kd.py hparams/minivox/iml_kd.yaml --data_folder DIR

The trained model is left in <output_folder>/inference, ready for SpeechBrain's
`SpeakerRecognition.from_hparams`, verify.py and explain.py.

Authors
    * IML-KD contributors
"""

import math
import os
import sys
from importlib.util import find_spec

import torch
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain.brain import IMLKDBrain
from imlkd_brain.data.augmentation import check_repeatable
from imlkd_brain.data.datasets import (
    SpeakerIndex,
    batches_per_epoch,
    check_batches,
    check_known_speakers,
    encode_speakers,
    train_dataset,
    valid_dataset,
)
from imlkd_brain.data.held_out import check_dev_speakers
from imlkd_brain.data.trial_audio import find_list
from imlkd_brain.distillation.batchnorm import batchnorm_of
from imlkd_brain.distillation.teacher import kept_prototypes
from imlkd_brain.distillation.teacher_cache import (
    TeacherCache,
    cache_bytes,
    check_cache_size,
    copies_of,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.models.export import export_inference_folder
from imlkd_brain.models.features import (
    check_features,
    check_same_features,
    frame_rate,
    has_statistics,
)
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.initial_weights import (
    inherited_speakers,
    keep_speakers,
    start_from,
)
from imlkd_brain.precision import set_tf32
from imlkd_brain.trained_with import (
    TrainingRecord,
    has_checkpoint,
    load_training,
    sole_training,
    training_data,
)
from imlkd_brain.verification.dev_trials import valid_trials
from speechbrain.utils.distributed import (
    infer_device,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def dataio_prep(hparams):
    "Creates the datasets, their pipelines and the label encoder."
    train_data, chunks = train_dataset(
        hparams["train_annotation"],
        hparams["data_folder"],
        hparams["sentence_len"],
        hparams["sample_rate"],
        hparams["seed"],
        hparams["speed_perturb"],
    )
    valid_data = valid_dataset(
        hparams["valid_annotation"],
        hparams["data_folder"],
        hparams["sample_rate"],
    )
    dev_trials = valid_trials(hparams["valid_trials"], valid_data)
    check_dev_speakers(
        dev_trials, valid_data, train_data, hparams["allow_training_speakers"]
    )
    label_encoder = encode_speakers(
        train_data,
        os.path.join(hparams["save_folder"], "label_encoder.txt"),
        hparams.get("out_n_neurons"),
        begun=has_checkpoint(hparams["save_folder"]),
    )

    label_pipeline = {
        "func": SpeakerIndex(label_encoder),
        "takes": "spk_id",
        "provides": "spk_id_encoded",
    }
    train_data.add_dynamic_item(**label_pipeline)
    train_data.set_output_keys(["id", "sig", "spk_id_encoded"])
    valid_keys = ["id", "sig", "utterance"]
    if dev_trials is None:
        check_known_speakers(
            valid_data, label_encoder, hparams["valid_annotation"]
        )
        valid_data.add_dynamic_item(**label_pipeline)
        valid_keys.append("spk_id_encoded")
    valid_data.set_output_keys(valid_keys)
    return train_data, valid_data, label_encoder, dev_trials, chunks


def check_before_training(hparams):
    """Stops for a configuration that cannot be trained, before it is tried."""
    check_batches(hparams["train_dataloader_options"])
    if hparams["augmentation"]:
        check_repeatable(hparams["wav_augment"])
    if hparams["export"] not in ("best", "last"):
        raise UserError(
            f"export: {hparams['export']!r} is not known; expected best (the "
            "checkpoint with the lowest dev figure) or last."
        )
    if hparams["use_tensorboard"] and find_spec("tensorboard") is None:
        raise UserError(
            "use_tensorboard: the package tensorboard is not installed; `pip "
            "install tensorboard`, or give `--use_tensorboard False`."
        )
    if not hparams["valid_durations"] or hparams["valid_durations"][0]:
        raise UserError(
            f"valid_durations: {hparams['valid_durations']} must begin with "
            "null, the whole utterance, which enrols; give [null, 2.0, 1.0], "
            "for example."
        )
    check_features(
        hparams["compute_features"],
        hparams["mean_var_norm"],
        hparams["sample_rate"],
    )
    if "objective" in hparams:
        # A duration in seconds becomes one in frames of these features.
        hparams["integrated_inputs"].frame_rate = frame_rate(
            hparams["compute_features"], hparams["sample_rate"]
        )
        hparams["objective"].check(
            hparams["batch_size"],
            hparams["integrated_inputs"].durations,
            hparams["sentence_len"],
        )
        hparams["batchnorm"] = batchnorm_of(
            hparams["batchnorm"], hparams["method"]
        )
        if hparams["measure_interval"] < 0:
            raise UserError(
                f"measure_interval: {hparams['measure_interval']} is below "
                "zero; give a number of updates, 0 for never."
            )


def n_processes():
    """How many processes train together."""
    if is_distributed_initialized():
        return torch.distributed.get_world_size()
    return 1


def processes_and_batches(hparams, n_train):
    """How many processes train, and how many batches an epoch each has."""
    processes = n_processes()
    options = hparams["train_dataloader_options"]
    return processes, batches_per_epoch(
        n_train,
        processes,
        options.get("batch_size", 1),
        options.get("drop_last", False),
    )


def updates_per_epoch(hparams, run_opts, n_train):
    """How often the optimiser steps in an epoch.

    With torchrun each process has its share of the segments; with gradient
    accumulation several batches make one update.
    """
    processes, batches = processes_and_batches(hparams, n_train)
    check_batches(
        hparams["train_dataloader_options"], math.ceil(n_train / processes)
    )
    # The command line before the YAML, as in SpeechBrain's Brain.
    accumulated = run_opts.grad_accumulation_factor
    if "grad_accumulation_factor" not in run_opts.overridden_args:
        accumulated = hparams.get("grad_accumulation_factor", accumulated)
    updates = batches // accumulated
    if not updates:
        raise UserError(
            f"batch_size: {hparams['batch_size']} on {processes} process(es), "
            f"{accumulated} batch(es) an update, is more than the {n_train} "
            "training segments; lower it."
        )
    return updates


def add_speaker_modules(hparams, n_speakers, n_updates):
    """Builds what depends on the data: classifier and learning-rate cycle."""
    hparams["classifier"] = hparams["classifier"](out_neurons=n_speakers)
    hparams["modules"]["classifier"] = hparams["classifier"]
    hparams["checkpointer"].add_recoverable("classifier", hparams["classifier"])
    if has_statistics(hparams["mean_var_norm"]):
        hparams["checkpointer"].add_recoverable(
            "mean_var_norm", hparams["mean_var_norm"]
        )
    hparams["lr_annealing"] = hparams["lr_annealing"](
        step_size=hparams["lr_step_epochs"] * n_updates
    )
    hparams["checkpointer"].add_recoverable(
        "lr_annealing", hparams["lr_annealing"]
    )


def add_initial_weights(hparams, label_encoder):
    """Starts from a trained model, where the key says so.

    Not where there is a checkpoint, which has these weights trained on.
    """
    source = hparams["initial_weights"]
    if has_checkpoint(hparams["save_folder"]):
        return
    run_on_main(keep_speakers, args=[source, hparams["save_folder"]])
    if source is None:
        return
    n_rows = start_from(
        source,
        hparams["embedding_model"],
        hparams["classifier"],
        [label_encoder.ind2lab[i] for i in range(len(label_encoder))],
        (hparams["compute_features"], hparams["mean_var_norm"]),
    )
    logger.info(
        f"Initial weights: {source}, with the classifier's rows of {n_rows} of "
        f"{len(label_encoder)} training speakers."
    )


def add_teacher(hparams, run_opts, label_encoder, train_data):
    """Loads the frozen teacher, and a projection where dimensions differ."""
    if "objective" not in hparams or not hparams["objective"].needs_teacher:
        return
    speakers = [label_encoder.ind2lab[i] for i in range(len(label_encoder))]
    teacher = hparams["teacher"](
        speakers=speakers,
        prototypes=lambda model: kept_prototypes(
            model,
            train_data,
            len(speakers),
            os.path.join(hparams["save_folder"], "teacher_prototypes.pt"),
            {
                key: hparams[key]
                for key in ("seed", "sentence_len", "sample_rate")
            },
            run_opts.device or hparams.get("device") or infer_device(),
        ),
    )
    hparams["teacher"] = teacher
    if not teacher.learnt_speakers:
        logger.warning(
            f"{teacher.source}: this teacher names no training speakers, so "
            "nobody will be able to say whether test speakers are new to the "
            "student."
        )
    if hparams["teacher_cache"]:
        add_teacher_cache(hparams, len(train_data))
    student_dim = hparams["lin_neurons"]
    if (
        hparams["objective"].needs_embeddings
        and teacher.embedding_dim != student_dim
    ):
        # Its own random stream: the student starts the same for all methods.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hparams["seed"])
            projection = torch.nn.Linear(
                student_dim, teacher.embedding_dim, bias=False
            )
        hparams["modules"]["projection"] = projection
        hparams["checkpointer"].add_recoverable("projection", projection)


def add_teacher_cache(hparams, n_train):
    """Says how large the cache becomes, and makes it."""
    folder = hparams["teacher_cache"]
    integrated = hparams["integrated_inputs"]
    processes, batches = processes_and_batches(hparams, n_train)
    n_bytes = cache_bytes(
        hparams["objective"],
        integrated,
        hparams["number_of_epochs"] * processes * batches,
        hparams["batch_size"] * copies_of(hparams["wav_augment"]),
        1 + int(hparams["sentence_len"] * integrated.frame_rate),
        hparams["n_mels"],
        len(hparams["teacher"].rows),
        hparams["teacher"].embedding_dim,
    )
    check_cache_size(n_bytes, hparams["teacher_cache_limit"], folder)
    hparams["teacher_cache"] = TeacherCache(folder)


def main(argv):
    """Checks the options, then prepares the data, trains and exports."""
    hparams_file, hparams, run_opts, overrides = load_training(argv)
    set_tf32(hparams["allow_tf32"])
    check_before_training(hparams)
    if "objective" in hparams and hparams["objective"].needs_teacher:
        # Said now, not after the data preparation
        check_same_features(
            load_speaker_model(hparams["teacher_folder"]),
            hparams["compute_features"],
            hparams["mean_var_norm"],
            hparams["sample_rate"],
        )
    trained_with = TrainingRecord(hparams_file, overrides, run_opts)
    trained_with.add_data(**training_data(hparams))
    # Before anything is rewritten, hyperparams.yaml for one
    trained_with.check_before_training(
        hparams["output_folder"], hparams["save_folder"]
    )
    with sole_training(hparams["output_folder"]):
        train(hparams_file, hparams, run_opts, overrides, trained_with)


def train(hparams_file, hparams, run_opts, overrides, trained_with):
    """Does what has the output folder to itself."""
    # Initialize ddp (useful only for multi-GPU DDP training)
    sb.utils.distributed.ddp_init_group(run_opts)

    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Dataset prep (parsing VoxCeleb or MiniVox into csv files)
    if not hparams["skip_prep"]:
        run_on_main(
            prepare_voxceleb,
            kwargs={
                "data_folder": hparams["data_folder"],
                "save_folder": hparams["save_folder"],
                "verification_pairs_file": find_list(
                    hparams["verification_file"],
                    hparams["data_folder"],
                    hparams["save_folder"],
                ),
                "splits": ["train", "dev"],
                "split_ratio": hparams["split_ratio"],
                "seg_dur": hparams["sentence_len"],
                "random_segment": hparams["random_segment"],
                "dev_pairs_file": hparams["valid_trials"],
                "begun": bool(hparams["checkpointer"].list_checkpoints()),
                "sample_rate": hparams["sample_rate"],
            },
        )
    if not hparams["augmentation"]:
        hparams["wav_augment"] = None
    elif "prepare_noise_data" in hparams:
        run_on_main(hparams["prepare_noise_data"])
        run_on_main(hparams["prepare_rir_data"])

    (
        train_data,
        valid_data,
        label_encoder,
        hparams["dev_trials"],
        hparams["chunks"],
    ) = dataio_prep(hparams)

    add_speaker_modules(
        hparams,
        len(label_encoder),
        updates_per_epoch(hparams, run_opts, len(train_data)),
    )
    add_teacher(hparams, run_opts, label_encoder, train_data)

    # Again, with the annotations that were prepared just now
    trained_with.add_data(**training_data(hparams))
    trained_with.add_processes(n_processes())
    trained_with.check(hparams["output_folder"], hparams["save_folder"])
    run_on_main(trained_with.write, args=[hparams["save_folder"]])
    add_initial_weights(hparams, label_encoder)

    hparams["loggers"] = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        hparams["loggers"].append(hparams["tensorboard_logger"]())

    # Brain class initialization
    brain = IMLKDBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )

    # Training
    brain.fit(
        brain.hparams.epoch_counter,
        train_data,
        valid_data,
        train_loader_kwargs=hparams["train_dataloader_options"],
        valid_loader_kwargs=hparams["valid_dataloader_options"],
    )

    # A checkpoint as a folder that inference can load; the last one is what
    # the modules hold after the training, and after one that was done before.
    if hparams["export"] == "best":
        key = "ErrorRate" if hparams["dev_trials"] is None else "EER"
        brain.on_evaluate_start(min_key=key)
    run_on_main(
        export_inference_folder,
        kwargs={
            "folder": os.path.join(hparams["output_folder"], "inference"),
            "hyperparameters": os.path.join(
                hparams["output_folder"], "hyperparams.yaml"
            ),
            "embedding_model": brain.modules["embedding_model"],
            "classifier": brain.modules["classifier"],
            "label_encoder": label_encoder,
            "sample_rate": hparams["sample_rate"],
            "compute_features": brain.modules["compute_features"],
            "mean_var_norm": brain.modules["mean_var_norm"],
            "trained_with": trained_with,
            "teacher_speakers": inherited_speakers(
                hparams["save_folder"], hparams.get("teacher")
            ),
        },
    )
    logger.info(f"Trained model: {hparams['output_folder']}/inference")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
