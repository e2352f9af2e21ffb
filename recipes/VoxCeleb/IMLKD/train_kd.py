#!/usr/bin/env python3
"""Recipe for training a speaker embedding model with or without a teacher.

A student learns from its teacher's integrated inputs (Integrated Gradients over
segments of various durations) on three levels, or by a baseline (`method`).

To run this recipe, first train a teacher, then the student:
> python train_kd.py hparams/train_teacher.yaml --data_folder /path/to/VoxCeleb1
> python train_kd.py hparams/iml_kd.yaml --data_folder /path/to/VoxCeleb1

The trained model is left in <output_folder>/inference, ready for SpeechBrain's
`SpeakerRecognition.from_hparams`, verify.py and explain.py.

Authors
    * IML-KD contributors
"""

import os
import sys
from functools import partial

from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain import training
from imlkd_brain.brain import IMLKDBrain
from imlkd_brain.data import datasets
from imlkd_brain.distillation.batchnorm import batchnorm_of
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.distillation.teacher import check_teacher
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.models import export, features
from imlkd_brain.precision import set_tf32
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def distils(hparams):
    """Whether there is a teacher in this training."""
    return "objective" in hparams and hparams["objective"].needs_teacher


def dataio_prep(hparams):
    """Creates the datasets, their pipelines and the label encoder."""
    folder, rate = hparams["data_folder"], hparams["sample_rate"]
    labels = hparams.get("labels")
    train_data, hparams["chunks"] = datasets.train_dataset(
        hparams["train_annotation"],
        folder,
        hparams["sentence_len"],
        rate,
        hparams["seed"],
        hparams["speed_perturb"],
        labels,
        hparams.get("train_shards"),
    )
    if labels is not None:
        loader_options = hparams["train_dataloader_options"]
        hparams.update(labels.settings(train_data, loader_options))
    if hparams.get("answers") is not None:
        augment = hparams["wav_augment"]
        train_data = hparams["answers"].chunks_of(train_data, augment)
    annotation = hparams["valid_annotation"]
    valid_data = datasets.valid_dataset(annotation, folder, rate, labels)
    if "dev_trials" in hparams:
        trials = hparams["dev_trials"].open(valid_data, train_data)
        hparams["dev_trials"] = trials
    encoder = datasets.encode_speakers(
        train_data,
        os.path.join(hparams["save_folder"], "label_encoder.txt"),
        hparams.get("out_n_neurons"),
        begun=bool(hparams["checkpointer"].list_checkpoints()),
    )
    datasets.index_speakers(train_data, encoder)
    if valid_data is not None and hparams.get("dev_trials") is None:
        datasets.check_known_speakers(valid_data, encoder, annotation)
        datasets.index_speakers(valid_data, encoder)
    return train_data, valid_data, encoder


def check_before_training(hparams):
    """Stops for a configuration that cannot be trained, before it is tried."""
    datasets.check_batches(hparams["train_dataloader_options"])
    if hparams["augmentation"] and "check_augmentation" in hparams:
        hparams["check_augmentation"]()
    rate = hparams["sample_rate"]
    seen = hparams["compute_features"], hparams["mean_var_norm"], rate
    features.check_features(*seen)
    objective, integrated = map(hparams.get, ("objective", "integrated_inputs"))
    if "labels" in hparams:
        hparams["labels"].check(objective, integrated)
    if objective is None:
        return
    # A duration in seconds becomes one in frames of these features.
    integrated.frame_rate = features.frame_rate(seen[0], rate)
    chunk, model = hparams["sentence_len"], hparams["embedding_model"]
    objective.check(hparams["batch_size"], integrated.durations, chunk, model)
    hparams["batchnorm"] = batchnorm_of(hparams["batchnorm"], hparams["method"])
    logger.info("Updates between measurements: %s", hparams["measure_interval"])
    if distils(hparams):
        mode = integrated.mode if objective.integrates else None
        check_teacher(hparams["teacher_folder"], *seen, mode)
        if hparams.get("open_answers") is not None:
            hparams["answers"] = hparams["open_answers"](objective, integrated)


def add_speaker_modules(hparams, run_opts, encoder, n_train):
    """Builds what depends on the data: classifier and learning-rate cycle."""
    factor = "grad_accumulation_factor"
    accumulated = training.run_option(factor, run_opts, hparams)
    options = hparams["train_dataloader_options"]
    n_updates = training.updates_per_epoch(n_train, options, accumulated)
    if "objective" in hparams:
        n_epochs = hparams["epoch_counter"].limit
        hparams["objective"].plan(n_epochs * n_updates)
    classifier = training.make_classifier(hparams["classifier"], len(encoder))
    hparams["modules"]["classifier"] = hparams["classifier"] = classifier
    steps = hparams["lr_step_epochs"] * n_updates
    hparams["lr_annealing"] = hparams["lr_annealing"](step_size=steps)
    kept = ["classifier", "lr_annealing"]
    if features.has_statistics(hparams["mean_var_norm"]):
        kept.append("mean_var_norm")
    for name in kept:
        hparams["checkpointer"].add_recoverable(name, hparams[name])


def add_teacher(hparams, run_opts, encoder, train_data):
    """Loads the frozen teacher; a projection, which no model exports."""
    options = {"speakers": training.speaker_names(encoder)}
    objective, integrated = hparams["objective"], hparams["integrated_inputs"]
    if "teacher_prototypes" in hparams:
        asked = train_data if objective.asks_classes(integrated) else None
        where = asked, training.device_of(run_opts, hparams)
        options["prototypes"] = partial(hparams["teacher_prototypes"], *where)
        if asked is None or not len(encoder):
            options["classes"] = "prototypes"  # of nobody
    hparams["teacher"] = teacher = hparams["teacher"](**options)
    loader_options = hparams["train_dataloader_options"]
    if hparams.get("answers") is not None:
        taught = teacher, train_data, loader_options
        hparams.update(hparams["answers"].in_place_of(*taught))
    else:
        more = {"sample_rate": hparams["sample_rate"]}
        if "open_teacher_cache" in hparams:
            n_batches = training.all_batches(len(train_data), loader_options)
            seen = objective, integrated, n_batches, hparams["wav_augment"]
            more["cache"] = hparams["open_teacher_cache"](*seen, teacher)
        hparams["guidance"] = Guidance(teacher, integrated, **more)
    dims = hparams["lin_neurons"], teacher.embedding_dim
    if objective.needs_projection(*dims):
        projection = training.make_projection(*dims, hparams["seed"])
        hparams["modules"]["projection"] = projection
        hparams["checkpointer"].add_recoverable("projection", projection)


def main(argv):
    """Checks the options, then prepares the data, trains and exports."""
    hparams_file, hparams, run_opts, overrides = training.load_training(argv)
    if "allow_tf32" in hparams:
        set_tf32(hparams["allow_tf32"])
    check_before_training(hparams)
    trained_with = None
    if "trained_with" in hparams:
        # Before anything is rewritten, hyperparams.yaml for one
        record = hparams["trained_with"]
        trained_with = record(hparams_file, overrides, run_opts)
        trained_with.begin(hparams["augmentation"], distils(hparams))
    with training.sole_training(hparams["output_folder"]):
        train(hparams_file, hparams, run_opts, overrides, trained_with)
    logger.info(training.next_step(argv[0], hparams))


def train(hparams_file, hparams, run_opts, overrides, trained_with):
    """Does what has the output folder to itself."""
    sb.utils.distributed.ddp_init_group(run_opts)
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Dataset prep (parsing VoxCeleb or MiniVox into csv files)
    begun = bool(hparams["checkpointer"].list_checkpoints())
    if not hparams["skip_prep"] and hparams["data_folder"] is not None:
        options = {
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["save_folder"],
            "verification_pairs_file": hparams["verification_file"],
            "splits": ["train", "dev"],
            "split_ratio": hparams["split_ratio"],
            "seg_dur": hparams["sentence_len"],
            "random_segment": hparams["random_segment"],
        }
        if "prepare_options" in hparams:
            options.update(hparams["prepare_options"](begun))
        run_on_main(prepare_voxceleb, kwargs=options)
    if not hparams["augmentation"]:
        hparams["wav_augment"] = None
    elif hparams.get("prepare_noise_data") is not None:
        run_on_main(hparams["prepare_noise_data"])
        run_on_main(hparams["prepare_rir_data"])

    train_data, valid_data, encoder = dataio_prep(hparams)
    add_speaker_modules(hparams, run_opts, encoder, len(train_data))
    if distils(hparams):
        add_teacher(hparams, run_opts, encoder, train_data)
    if trained_with is not None:
        trained_with.keep()  # again, with what was prepared just now
    if "start_from" in hparams:
        speakers = training.speaker_names(encoder)
        hparams["start_from"](hparams["modules"], speakers, begun)

    hparams["loggers"] = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        hparams["loggers"].append(hparams["tensorboard_logger"]())
    brain = IMLKDBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
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
        brain.on_evaluate_start(min_key=brain.dev_figure)
    folders = hparams["output_folder"], hparams["save_folder"]
    teacher = hparams["teacher"] if distils(hparams) else None
    told = {"trained_with": trained_with, "teacher": teacher}
    told["heard"] = getattr(hparams.get("labels"), "speakers", ())
    run_on_main(
        export.export_training,
        args=[brain.modules, encoder, hparams["sample_rate"], folders],
        kwargs=told,
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
