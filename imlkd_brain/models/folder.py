"""Finds and loads a model folder.

:func:`load_speaker_model` reads a folder that
:func:`imlkd_brain.models.export.export_inference_folder` wrote, a SpeechBrain
hub model, or the output folder of a training, which holds one. Loading is
strict: a checkpoint that does not fit the model is an error, not a warning.
For public models and runs of SpeechBrain see
:mod:`imlkd_brain.models.sources`.

Authors: IML-KD contributors
"""

import os
import zipfile
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from imlkd_brain.aliases import check_aliases
from imlkd_brain.errors import UserError
from imlkd_brain.files import SUMS, differing_sum, zip_damage
from imlkd_brain.models.features import check_features, has_statistics
from imlkd_brain.models.plain import build_plain
from imlkd_brain.models.sources import (
    RUN_STATISTICS,
    best_checkpoint,
    is_name,
    is_run,
    named_folder,
    only_keys,
    run_of,
)
from imlkd_brain.models.speaker_model import SpeakerModel
from imlkd_brain.models.trust import check_trusted
from speechbrain.dataio.encoder import CategoricalEncoder

INFERENCE = "inference"
MODEL_KEYS = ("compute_features", "mean_var_norm", "embedding_model")
EXECUTED = (*MODEL_KEYS, "classifier", "sample_rate")  # of a run's YAML
STATISTICS_FILE = "mean_var_norm.ckpt"  # of a global normalisation
LABEL_FILES = ("label_encoder.ckpt", "label_encoder.txt")
TEACHER_SPEAKERS = "teacher_speakers.txt"  # a name a line

STATS_FILE = "train_stats.csv"


def find_inference_folder(source):
    """Return the inference folder in ``source``, or ``source`` if it is one.

    Arguments
    ---------
    source : str or Path
        An inference folder, a training output folder, that of SpeechBrain's
        own training, or a name, see :mod:`imlkd_brain.models.sources`.

    Returns
    -------
    folder : Path
        It holds ``embedding_model.ckpt``.

    Raises
    ------
    UserError
        If there is none, with the way to get one.
    """
    source = Path(source)
    if is_name(source):
        source = named_folder(str(source))
    for folder in (source / INFERENCE, source):
        if (folder / "embedding_model.ckpt").is_file():
            return folder
    if is_run(source):
        return best_checkpoint(source)
    if (source / "save").is_dir():
        raise UserError(
            f"{source}: the training there has not finished (there is no "
            f"`{INFERENCE}` folder); run its train_kd.py command again, it "
            "goes on from the last checkpoint."
        )
    raise UserError(
        f"{source}: no trained model there (expected a folder with "
        "hyperparams.yaml and embedding_model.ckpt, or a training output "
        "folder that holds one as `inference`); train it with train_kd.py or "
        "correct the path."
    )


def load_speaker_model(source, device="cpu"):
    """Load a trained speaker model, strictly.

    A YAML of known classes, as our exports are, is not executed, see
    :func:`imlkd_brain.models.plain.build_plain`. Any other is executed, as in
    SpeechBrain's ``from_hparams``, where a user has said that it is to be
    trusted, see :mod:`imlkd_brain.models.trust`.

    Arguments
    ---------
    source : str or Path
        See :func:`find_inference_folder`.
    device : str
        Where the model goes.

    Returns
    -------
    model : SpeakerModel

    Raises
    ------
    UserError
        If files or keys are missing, a checkpoint does not fit the model, or
        the YAML is not trusted.
    """
    folder = find_inference_folder(source)
    run = run_of(folder)
    # A checkpoint of a run is no model alone: the rest lies above it.
    description = (
        folder / "hyperparams.yaml" if run is None else run / "hyperparams.yaml"
    )
    if not description.is_file():
        raise UserError(
            f"{description}: missing; an inference folder needs it beside "
            "the checkpoints, export the model again."
        )
    _check_sums(folder)
    # Building modules draws random numbers: the caller's stream must not
    # depend on whether there is a teacher.
    with torch.random.fork_rng(devices=[]):
        hparams = _build(description, run)
    for key in MODEL_KEYS:
        if key not in hparams:
            raise UserError(
                f"{description}: the key `{key}` is missing; SpeechBrain's "
                "speaker models have it, export the model again."
            )
    _check_modules(hparams, description)
    sample_rate = hparams.get("sample_rate", 16000)
    try:
        check_features(
            hparams["compute_features"], hparams["mean_var_norm"], sample_rate
        )
    except UserError as error:
        raise UserError(f"{description}: {error}") from error
    if has_statistics(hparams["mean_var_norm"]):
        name = STATISTICS_FILE if run is None else RUN_STATISTICS
        _load_statistics(hparams["mean_var_norm"], folder / name)
    _load_strictly(hparams["embedding_model"], folder / "embedding_model.ckpt")
    classifier = hparams.get("classifier")
    classifier_file = folder / "classifier.ckpt"
    speakers = _read_speakers(folder if run is None else folder.parent)
    has_rows = hasattr(classifier, "weight") and classifier_file.is_file()
    if not has_rows or not speakers:
        # None, or one that ends in a softmax as the x-vector's: no cosines.
        # Rows without names are of no use either.
        classifier = None
    else:
        _load_strictly(classifier, classifier_file)
    n_rows = 0 if classifier is None else len(classifier.weight)
    if run is not None:
        # Its number of classes is typed by hand, and may be too large.
        n_rows = min(n_rows, len(speakers))
    if classifier is not None and len(speakers) != n_rows:
        raise UserError(
            f"{folder}: the label encoder names {len(speakers)} speakers but "
            f"the classifier has {n_rows}; these files are "
            "of different models, export the model again."
        )
    model = SpeakerModel(
        hparams["compute_features"],
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        classifier,
        speakers,
        sample_rate,
        source,
        read_names(folder / TEACHER_SPEAKERS),
    )
    return model.to(device)


def _build(description, run=None):
    """Build the modules that a model's YAML describes; of a run only these."""
    try:
        plain = build_plain(description)
        if plain is not None:
            return plain
        with open(description, encoding="utf-8") as stream:
            text = stream.read()
        check_aliases(text, description)
        if run is not None:
            text = only_keys(text, EXECUTED)
        check_trusted(text, description)
        # A hub model's own paths are not needed: the files are here.
        return load_hyperpyyaml(text) or {}
    except UserError:
        raise
    except Exception as error:
        # YAML, imports and constructors raise many types.
        reason = " ".join(" ".join(map(str, error.args)).split())
        raise UserError(
            f"{description}: cannot be read as a model's description "
            f"({type(error).__name__}: {reason}); export the model again."
        ) from error


def _check_sums(folder):
    """Refuse a folder with a file that is not the one that was exported."""
    if not os.path.lexists(folder / SUMS):
        return
    try:
        damage = differing_sum(folder)
    except (OSError, ValueError, AttributeError) as error:
        damage = f"{SUMS} cannot be read: {error}"
    if damage:
        raise UserError(
            f"{folder}: this model is damaged ({damage}); restore it or export "
            f"it again. If you changed it yourself, remove {SUMS}."
        )


def _check_modules(hparams, description):
    """Refuse parts that are functions, as those of Tacotron's mels."""
    for key in MODEL_KEYS:
        if not isinstance(hparams[key], torch.nn.Module):
            raise UserError(
                f"{description}: `{key}` is no module "
                f"({type(hparams[key]).__name__}); give a model whose features "
                "are one, such as speechbrain.lobes.features.Fbank."
            )


def _load_statistics(mean_var_norm, path):
    """Load the statistics of a global normalisation, or say what is wrong."""
    state = _load_dict(path)
    missing = {"count", "glob_mean", "glob_std"} - set(state)
    if missing:
        raise UserError(
            f"{path}: no statistics of a normalisation ({min(missing)} is "
            "missing); export the model again."
        )
    finite = all(
        value.numel() and torch.isfinite(value).all()
        for value in (state["glob_mean"], state["glob_std"])
    )
    if not finite:
        raise UserError(
            f"{path}: the statistics are empty, NaN or infinite; train and "
            "export the model again."
        )
    mean_var_norm._load_statistics_dict(state)


def _load_dict(path):
    """Read a checkpoint that holds a dict."""
    try:
        _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; export the model again.") from None
    except Exception as error:
        # torch.load raises many types for a truncated or foreign file.
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); "
            "the file is broken or cut short, train or export it again."
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"{path}: not a readable checkpoint (it holds a "
            f"{type(state).__name__}); expected a module's state dict."
        )
    return state


def _check_zip(path):
    """Check the sums in a file of torch, which torch does not look at."""
    damage = zip_damage(path) if zipfile.is_zipfile(path) else ""
    if damage:
        raise ValueError(damage)


def _load_strictly(module, path):
    """Load a state dict and raise if keys or shapes differ, or on NaN."""
    state = _load_dict(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        found = misfit(state, module.state_dict())
        found = found or str(error).splitlines()[-1].strip()
        raise UserError(
            f"{path}: does not fit the model in hyperparams.yaml ({found}); "
            "give the folder whose checkpoint and YAML belong together."
        ) from error
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(
                f"{path}: `{name}` holds NaN or infinite values; the training "
                "diverged, train again with a lower learning rate."
            )


def misfit(theirs, ours):
    """Say which tensors of a checkpoint do not fit a module.

    Arguments
    ---------
    theirs : dict of str to torch.Tensor
        The checkpoint.
    ours : dict of str to torch.Tensor
        The module's state dict.

    Returns
    -------
    str
        Names of the missing, the unknown and the mis-shaped tensors: the
        first three of each kind, and how many more there are.

    Example
    -------
    >>> one, two = torch.zeros(1), torch.zeros(2)
    >>> misfit({"a": one, "c": one}, {"a": two, "b": one})
    'missing: b; unknown: c; of another shape: a (1,), expected (2,)'
    """
    shapes = [
        {
            name: tuple(getattr(value, "shape", ()))
            for name, value in side.items()
        }
        for side in (theirs, ours)
    ]
    kinds = {
        "missing": [name for name in ours if name not in theirs],
        "unknown": [name for name in theirs if name not in ours],
        "of another shape": [
            f"{name} {shapes[0][name]}, expected {shapes[1][name]}"
            for name in ours
            if name in theirs and shapes[0][name] != shapes[1][name]
        ],
    }
    said = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"{kind}: {', '.join(map(str, names[:3]))}{more}")
    return "; ".join(said)


def _read_speakers(folder):
    """Return the label encoder's names in index order; [] if there is none."""
    for name in LABEL_FILES:
        path = folder / name
        if path.is_file():
            encoder = CategoricalEncoder()
            try:
                encoder.load(path)
                return [encoder.ind2lab[i] for i in range(len(encoder))]
            except (KeyError, SyntaxError, ValueError) as error:
                raise UserError(
                    f"{path}: not a readable label encoder; the file is "
                    "broken or cut short, export the model again."
                ) from error
    return []


def read_names(path):
    """Return the names in a file, one a line; [] if there is no file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable text file with a speaker a line; export "
            "the model again."
        ) from error
