"""What a training script decides before it trains.

Authors: IML-KD contributors
"""

import math
import os
import shlex
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from hyperpyyaml import load_hyperpyyaml

from imlkd_brain.data.datasets import batches_per_epoch, check_batches
from imlkd_brain.data.presence import check_sources
from imlkd_brain.distributed import n_processes, settle_backend
from imlkd_brain.errors import UserError
from imlkd_brain.keys import SCHEMA
from imlkd_brain.locks import sole_use
from imlkd_brain.models.folder import INFERENCE
from imlkd_brain.settings import as_mapping, load_hyperparameters
from speechbrain.utils.distributed import get_rank, infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

DEBUG = "debug"
SAVE = "save"
# Keys that an object of the YAML reads. One without the other does nothing.
READ_BY = {
    "valid_trials": "dev_trials",
    "initial_weights": "start_from",
    "teacher_cache": "open_teacher_cache",
    "teacher_answers": "open_answers",
    "labelled_speakers": "labels",
    "unlabelled_folder": "labels",
}


def load_training(argv):
    """Parse the training's command line, and keep tries from real models.

    ``--debug`` goes to the folder ``debug`` of the output folder, so that it
    leaves everything else there as it is. It begins anew each time.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.

    Returns
    -------
    hparams_file, hparams, run_opts, overrides
        See :func:`imlkd_brain.settings.load_hyperparameters`.

    Raises
    ------
    UserError
        For ``--test_only``, for processes that cannot meet, for data that are
        not there, and as ``load_hyperparameters``.
    """
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(
        argv, SCHEMA, check_sources
    )
    run_opts = settle_backend(run_opts)
    if run_option("test_only", run_opts, hparams):
        raise UserError(
            "--test_only: this script trains and has no test; nothing was "
            "changed, test the trained model with verify.py."
        )
    for key, reader in READ_BY.items():
        if hparams.get(key) is not None and reader not in hparams:
            raise UserError(
                f"{hparams_file}: it gives {key}, but lacks the key "
                f"`{reader}`, which reads it; copy that key from "
                "hparams/iml_kd.yaml."
            )
    if run_option("debug", run_opts, hparams):
        folder = os.path.join(hparams["output_folder"], DEBUG)
        places = {
            "output_folder": folder,
            "save_folder": os.path.join(folder, SAVE),
            "train_log": os.path.join(folder, "train_log.txt"),
        }
        if _is_first_process() and not run_opts.debug_persistently:
            # Of the try before, which may have had other options
            shutil.rmtree(folder, ignore_errors=True)
        overrides = as_mapping(overrides)
        overrides.update({k: v for k, v in places.items() if k in hparams})
        with open(hparams_file, encoding="utf-8") as stream:
            hparams = load_hyperpyyaml(stream, overrides)
        if get_rank() is not None:
            # SpeechBrain gives each process a temporary folder of its own.
            # They would wait for each other to delete checkpoints for ever.
            given = run_opts.overridden_args | {"debug_persistently"}
            run_opts = replace(
                run_opts, debug_persistently=True, overridden_args=given
            )
    return hparams_file, hparams, run_opts, overrides


def next_step(yaml, hparams):
    """Say where the trained model is, and what to type next.

    Arguments
    ---------
    yaml : str
        The YAML of the command line. The next one lies beside it.
    hparams : dict
        Of the training.

    Returns
    -------
    str
        Commands that can be typed in the same folder: a teacher is followed
        by its student, and every model can be verified.
    """
    place, folder = os.path.dirname(yaml), hparams["output_folder"]
    lines = [f"Trained model: {folder}/{INFERENCE}"]
    student = os.path.join(place, "iml_kd.yaml")
    test = os.path.join(place, "eval.yaml")
    data = shlex.join(["--data_folder", str(hparams["data_folder"])])
    if "objective" not in hparams and os.path.isfile(student):
        teacher = shlex.join(["--teacher_folder", str(folder)])
        lines += ["A student of it:"]
        lines += [f"    python train_kd.py {student} {data} {teacher}"]
    if hparams["data_folder"] is not None and os.path.isfile(test):
        models = shlex.join(["--models", f"[{folder}]"])
        lines += ["Its error rates:"]
        lines += [f"    python verify.py {test} {data} {models}"]
    return "\n".join(lines)


@contextmanager
def sole_training(output_folder):
    """Keep other trainings out of an output folder.

    Two of them, such as a job that is queued twice, would write the same
    annotations and remove each other's checkpoints.

    Arguments
    ---------
    output_folder : str or Path
        Made if missing.

    Raises
    ------
    UserError
        If another process on this machine trains there.
    """
    with ExitStack() as stack:
        if _is_first_process():
            stack.enter_context(sole_use(output_folder, "training"))
        yield


def speaker_names(label_encoder):
    """Return the speakers in the order of their indices.

    Example
    -------
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> encoder = CategoricalEncoder()
    >>> encoder.update_from_iterable(["anna", "bert"])
    >>> speaker_names(encoder)
    ['anna', 'bert']
    """
    return [label_encoder.ind2lab[i] for i in range(len(label_encoder))]


def updates_per_epoch(n_train, options, accumulated):
    """How often the optimiser steps in an epoch.

    Arguments
    ---------
    n_train : int
        Training segments, which all processes share.
    options : dict
        Of the training set's data loader.
    accumulated : int
        Batches that make one update (gradient accumulation).

    Returns
    -------
    int

    Raises
    ------
    UserError
        If there is none, or a batch would have one utterance.

    Example
    -------
    >>> updates_per_epoch(17, {"batch_size": 2, "drop_last": True}, 2)
    4
    """
    processes = n_processes()
    check_batches(options, math.ceil(n_train / processes))
    updates = n_batches(n_train, options) // accumulated
    if not updates:
        raise UserError(
            f"batch_size: {options['batch_size']} on {processes} process(es), "
            f"{accumulated} batch(es) an update, is more than the {n_train} "
            "training segments; lower it."
        )
    return updates


def n_batches(n_train, options):
    """How many batches each process has in an epoch.

    Arguments
    ---------
    n_train : int
        Training segments, which all processes share.
    options : dict
        Of the training set's data loader.

    Returns
    -------
    int

    Example
    -------
    >>> n_batches(17, {"batch_size": 2})
    9
    """
    return batches_per_epoch(
        n_train,
        n_processes(),
        options.get("batch_size", 1),
        options.get("drop_last", False),
    )


def all_batches(n_train, options):
    """How many batches all processes have in an epoch, see :func:`n_batches`."""
    return n_processes() * n_batches(n_train, options)


def device_of(run_opts, hparams):
    """Return the device that a training runs on."""
    return run_opts.device or hparams.get("device") or infer_device()


def run_option(name, run_opts, hparams):
    """A run option: from the command line, else the YAML, else SpeechBrain.

    Arguments
    ---------
    name : str
        Of the option.
    run_opts : speechbrain.utils.run_opts.RunOptions or None
        The command line's, with SpeechBrain's defaults.
    hparams : dict
        Keys of the YAML.
    """
    value = getattr(run_opts, name, None)
    if run_opts is not None and name in run_opts.overridden_args:
        return value
    return hparams.get(name, value)


class NoClasses(torch.nn.Module):
    """Stands for the classifier where no utterance has a label.

    It gives a cosine for each of no speakers.

    Example
    -------
    >>> NoClasses()(torch.ones(2, 1, 192)).shape
    torch.Size([2, 1, 0])
    """

    def forward(self, embeddings):
        """Return nothing, (batch, 1, 0), of embeddings (batch, 1, dim)."""
        return embeddings[..., :0]


def make_classifier(constructor, n_speakers):
    """Return a new classifier of a number of speakers.

    Arguments
    ---------
    constructor : callable
        Called with ``out_neurons``.
    n_speakers : int
        Of the training data that have a label.

    Returns
    -------
    torch.nn.Module
        From (batch, 1, dim) to cosines (batch, 1, speakers).
    """
    if not n_speakers:
        return NoClasses()
    return constructor(out_neurons=n_speakers)


def make_projection(student_dim, teacher_dim, seed):
    """Return a learnt map of embeddings into the teacher's space.

    It has its own random stream, so that the student starts the same for all
    methods.

    Arguments
    ---------
    student_dim, teacher_dim : int
        Dimensions of the embeddings.
    seed : int
        The experiment's seed.

    Returns
    -------
    torch.nn.Linear
        From (batch, student_dim) to (batch, teacher_dim).

    Example
    -------
    >>> make_projection(2, 3, seed=1)(torch.ones(1, 2)).shape
    torch.Size([1, 3])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Linear(student_dim, teacher_dim, bias=False)


def _is_first_process():
    """Whether this is the main process, also before processes have met.

    SpeechBrain's ``if_main_process`` is true for all of them until then.
    """
    return get_rank() in (None, 0)
