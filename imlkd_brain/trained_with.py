"""Records what a training was started with, beside its checkpoints.

A folder holds the checkpoints of one training. ``trained_with.json`` has the
hyperparameters and run options that change its result, and the content of its
data and teacher. A start with other options stops before it changes anything,
so no model is taken for another.

Authors: IML-KD contributors
"""

import csv
import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

from imlkd_brain.data.labels import FOLDER, NONE
from imlkd_brain.data.unlabelled_folder import ANNOTATION
from imlkd_brain.distributed import n_processes
from imlkd_brain.errors import UserError
from imlkd_brain.files import csv_problems, write_json
from imlkd_brain.models.folder import (
    INFERENCE,
    find_inference_folder,
    load_speaker_model,
)
from imlkd_brain.options import differences, resolved_options
from imlkd_brain.settings import as_mapping, parse_command, resolve_base
from imlkd_brain.training import run_option
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

RECORD = "trained_with.json"

# Run options of SpeechBrain that change the result. Those left out say where
# and how fast it runs, how dev figures are computed, or what to do about a step
# that is not finite: a training without one is the same with and without them.
RUN_OPTIONS = (
    "precision",
    "auto_mix_prec",
    "bfloat16_mix_prec",
    "max_grad_norm",
    "grad_accumulation_factor",
    "remove_vector_weight_decay",
)


class TrainingRecord:
    """What a start of a training asks for, to compare with what was trained.

    Arguments
    ---------
    hparams_file : str
        The training YAML.
    overrides : str or dict
        The command line's overrides.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's run options.
    files : dict, optional
        Files and models that the result depends on, see :meth:`add_data`.
    folders : list of str, optional
        Output folder and save folder, see :meth:`check`.

    Attributes
    ----------
    content : dict
        What is written to ``trained_with.json``.
    """

    def __init__(
        self,
        hparams_file,
        overrides="",
        run_opts=None,
        files=None,
        folders=None,
    ):
        self.files = dict(files or {})
        self.folders = folders
        keys, resolved = resolved_options(hparams_file, as_mapping(overrides))
        self.is_try = bool(run_option("debug", run_opts, keys))
        self.content = {
            "limits": {
                "number_of_epochs": keys.get("number_of_epochs"),
                "optimizer_step_limit": run_option(
                    "optimizer_step_limit", run_opts, keys
                ),
            },
            # A finished training may export another of its checkpoints.
            "export": keys.get("export"),
            "hyperparameters": resolved,
            "run_options": {
                name: run_option(name, run_opts, keys) for name in RUN_OPTIONS
            },
            "data": {},
        }

    @classmethod
    def of_command(cls, argv):
        """The record of a command line, without building its objects.

        Arguments
        ---------
        argv : list of str
            Arguments after the script's name.

        Returns
        -------
        record : TrainingRecord
        """
        hparams_file, run_opts, overrides = parse_command(argv)
        hparams_file, overrides = resolve_base(hparams_file, overrides)
        return cls(hparams_file, overrides, run_opts)

    def begin(self, augments, distils):
        """Say what the training reads, and check it before it begins.

        Arguments
        ---------
        augments : bool
            Whether it adds noise and reverberation.
        distils : bool
            Whether it has a teacher.
        """
        if not augments:
            self.files.pop("noise_annotation", None)
            self.files.pop("rir_annotation", None)
        if not distils:
            self.files.pop("teacher", None)
        self.add_data(**self.files)
        self.check_before_training(*self.folders)

    def keep(self):
        """Check again, with the data that were prepared, and write it down.

        All processes of a training call it; the main one writes.
        """
        self.add_data(**self.files)
        self.add_processes(n_processes())
        self.check(*self.folders)
        run_on_main(self.write, args=[self.folders[1]])

    def add_data(self, **files):
        """Add what files hold; a file that is not there yet is left out.

        Arguments
        ---------
        **files : str or None
            ``train_annotation`` and ``valid_annotation``: CSVs, known by
            their utterances, wherever these lie. ``teacher`` and
            ``initial_weights``: folders of a model, known by its weights and
            description. ``teacher_answers``: a folder of stored answers, and
            how many chunks of a row are read. ``unlabelled``: a folder of
            audio and the save folder, which has its utterances.
            ``labelled_speakers``: a file or ``none``. Anything else by its
            bytes. None where the training does without.
        """
        for name, path in files.items():
            pair = name in ("teacher_answers", "unlabelled")
            if path is None or (pair and not path[0]):
                self.content["data"][name] = None
            elif name == "labelled_speakers" and path == NONE:
                self.content["data"][name] = NONE
            elif name == "unlabelled":
                csv_file = os.path.join(path[1], FOLDER, ANNOTATION)
                if os.path.isfile(csv_file):
                    identity = annotation_identity(csv_file)
                    self.content["data"][name] = identity
            elif name == "teacher_answers":
                content = os.path.join(path[0], "answers.json")
                if os.path.isfile(content):
                    self.content["data"][name] = {
                        "chunks": path[1],
                        "content": file_identity(content),
                    }
            elif name in ("teacher", "initial_weights"):
                try:
                    folder = find_inference_folder(path)
                except UserError:
                    continue
                self.content["data"][name] = model_identity(folder)
            elif os.path.isfile(path):
                identify = (
                    annotation_identity
                    if name.endswith("annotation")
                    else file_identity
                )
                self.content["data"][name] = identify(path)

    def add_processes(self, number):
        """Add the number of processes, which share an update's batches."""
        self.content["data"]["processes"] = number

    def check(self, output_folder, save_folder, same_limits=False):
        """Stop where these folders hold a training with other options.

        Arguments
        ---------
        output_folder : str or Path
            Its ``inference`` is the finished model.
        save_folder : str or Path
            Has the checkpoints.
        same_limits : bool
            Whether the number of epochs and updates and the exported
            checkpoint must be the same too; otherwise the former may be
            raised and the latter may change.

        Returns
        -------
        known : bool
            Whether what is there has a record. False as well where there is
            nothing, and with ``--debug``, which begins anew.

        Raises
        ------
        UserError
            Naming the keys with both values.
        """
        known = False
        if self.is_try:
            return known
        for folder, there in (
            (Path(save_folder), has_checkpoint(save_folder)),
            (Path(output_folder, INFERENCE), _has_model(output_folder)),
        ):
            if not there:
                continue
            before = read_record(folder)
            if before is None:
                continue
            known = True
            found = differences(before, self.content, same_limits)
            if found:
                more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
                whole = Path(output_folder)
                # Checkpoints may lie elsewhere.
                place = whole if whole in folder.parents else folder
                raise UserError(
                    f"{place}: trained with other options "
                    f"({'; '.join(found[:5])}{more}); give another "
                    "output_folder or the options of before, or remove this "
                    "folder to train anew."
                )
        return known

    def check_before_training(self, output_folder, save_folder):
        """:meth:`check`, and a warning where there is no record to go by."""
        there = has_checkpoint(save_folder) or _has_model(output_folder)
        known = self.check(output_folder, save_folder)
        if there and not known and not self.is_try:
            logger.warning(
                f"{output_folder}: there is a training without {RECORD}, of "
                "an earlier version of this recipe; whether it had the same "
                "options cannot be checked."
            )

    def write(self, folder):
        """Write the record whole; the same one is left as it is.

        Arguments
        ---------
        folder : str or Path
            Where ``trained_with.json`` goes.
        """
        if read_record(folder) == self.content:
            return
        path = Path(folder, RECORD)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Sorted: the same content is the same file.
        write_json(
            path, self.content, indent=1, ensure_ascii=False, sort_keys=True
        )


def read_record(folder):
    """Return a folder's record; None if there is none.

    Arguments
    ---------
    folder : str or Path
        Where ``trained_with.json`` may be.

    Returns
    -------
    content : dict or None

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    path = Path(folder, RECORD)
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("a mapping is expected")
        # Earlier versions wrote null for the whole utterance.
        given = content.get("hyperparameters", {})
        if "valid_durations" in given:
            given["valid_durations"] = [
                "full" if duration is None else duration
                for duration in given["valid_durations"]
            ]
        return content
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); restore it, or give another "
            "output_folder."
        ) from error


def annotation_identity(path):
    """Return what identifies the utterances of an annotation, in order.

    Arguments
    ---------
    path : str or Path
        A CSV of ``prepare_voxceleb``. Where the audio files lie does not
        count.

    Returns
    -------
    str
        SHA-256 in hex.
    """
    digest = hashlib.sha256()
    with csv_problems(path), open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream, skipinitialspace=True):
            row["wav"] = os.path.basename(row.get("wav") or "")
            digest.update(repr(sorted(row.items(), key=str)).encode())
    return digest.hexdigest()


def file_identity(path):
    """Return the SHA-256 of a file's bytes, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def model_identity(folder):
    """Return the key of a model in an inference folder.

    Arguments
    ---------
    folder : str or Path
        See :func:`imlkd_brain.models.folder.load_speaker_model`.

    Returns
    -------
    str
        See :class:`imlkd_brain.models.speaker_model.SpeakerModel`.
    """
    folder = find_inference_folder(folder)
    weights = os.stat(folder / "embedding_model.ckpt")
    return _model_key(str(folder), weights.st_mtime_ns, weights.st_ino)


@lru_cache(maxsize=64)
def _model_key(folder, changed, inode):
    """The key of a model, computed once as long as its file is the same."""
    return load_speaker_model(folder).key


def has_checkpoint(save_folder):
    """Whether a folder holds a checkpoint to go on from."""
    return any(Path(save_folder).glob("CKPT+*"))


def _has_model(output_folder):
    """Whether there is a finished model."""
    return Path(output_folder, INFERENCE, "embedding_model.ckpt").is_file()
