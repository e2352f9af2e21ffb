"""Models that are no folder of this recipe: names, and SpeechBrain's runs.

A name is that of a model in the package, see
:mod:`imlkd_brain.models.shipped`, or one of ``PUBLIC_MODELS``, which
:mod:`imlkd_brain.models.public` brings, or that of a SpeechBrain model on Hugging Face, such as
``speechbrain/spkrec-ecapa-voxceleb``, which is fetched when it is first used.
A run is what SpeechBrain's own ``train_speaker_embeddings.py`` leaves.

Authors: IML-KD contributors
"""

import io
import os
import re
from pathlib import Path

from hyperpyyaml import resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from imlkd_brain.errors import UserError
from imlkd_brain.locks import locked
from imlkd_brain.models.shipped import shipped_models
from speechbrain.utils.checkpoints import Checkpointer

PUBLIC_MODELS = ("campplus",)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DESCRIPTION = "hyperparams.yaml"
WEIGHTS = "embedding_model.ckpt"
# Parts of a hub model; the weights come last and complete the folder.
PARTS = ("mean_var_norm", "label_encoder", "classifier", "embedding_model")
SAVE = "save"  # of a run
RUN_STATISTICS = "normalizer.ckpt"  # as that recipe names them
ERROR_RATE = "ErrorRate"  # of a checkpoint on the dev set
OURS = "imlkd_brain"  # what the YAMLs of this recipe name


def is_name(source):
    """Whether a source is the name of a model, not a path.

    Arguments
    ---------
    source : str or Path
        Something that is there, or whose parent is there, is a path.

    Returns
    -------
    bool

    Example
    -------
    >>> is_name("campplus"), is_name("speechbrain/spkrec-ecapa-voxceleb")
    (True, True)
    >>> is_name("results/teacher/1986"), is_name("/models/teacher")
    (False, False)
    """
    source = Path(source)
    if source.exists():
        return False
    if str(source) in PUBLIC_MODELS or str(source) in shipped_models():
        return True
    is_hub_name = HUB_NAME.fullmatch(str(source)) is not None
    return is_hub_name and not source.parent.exists()


def named_folder(name):
    """Return the folder of a model that is given by its name.

    Arguments
    ---------
    name : str
        See :func:`is_name`.

    Returns
    -------
    folder : Path
        A hub model is fetched into it if it is not there yet.

    Raises
    ------
    UserError
        If a public model was not brought, or a hub model cannot be fetched.
    """
    shipped = shipped_models()
    if name in shipped:
        return shipped[name]
    folder = public_folder(name)
    if name not in PUBLIC_MODELS:
        return _hub_folder(name, folder)
    if not folder.exists():
        raise UserError(
            f"{name}: this public model is not on this machine yet; "
            f"`python -m imlkd_brain.models.public {name}` brings it."
        )
    return folder


def public_folder(name):
    """Return the folder of a public model on this machine.

    Arguments
    ---------
    name : str
        One of ``PUBLIC_MODELS`` or a hub name.

    Returns
    -------
    folder : Path
        Below the environment variable ``IMLKD_MODELS``, else below
        ``~/.cache/imlkd_brain``.

    Example
    -------
    >>> public_folder("campplus").name
    'campplus'
    """
    root = os.environ.get("IMLKD_MODELS") or "~/.cache/imlkd_brain"
    return Path(root).expanduser() / name


def _hub_folder(name, folder):
    """The folder of a hub model, fetched once for all processes."""
    if (folder / WEIGHTS).is_file():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: no folder can be made there for {name} "
            f"({error.strerror}); set IMLKD_MODELS to another."
        ) from None
    busy = f"{name}: another process is fetching this model"
    with locked(folder / ".lock", busy):
        if not (folder / WEIGHTS).is_file():
            _fetch(name, folder)
    return folder


def _fetch(name, folder):
    """Fetch the files of a hub model, by SpeechBrain's own function."""
    # The hub's client takes a third of a second to import.
    from speechbrain.utils.fetching import FetchFrom, FetchSource
    from speechbrain.utils.parameter_transfer import Pretrainer

    print(f"fetching {name} from Hugging Face into {folder} ...", flush=True)
    hub = FetchSource(FetchFrom.HUGGING_FACE, name)
    description = _fetched(name, DESCRIPTION, hub, folder, DESCRIPTION)
    for part, path in _parts(name, description).items():
        source, filename = hub, f"{part}.ckpt"
        if path is not None:
            source, filename = Pretrainer.split_path(path)
        _fetched(name, filename, source, folder, f"{part}.ckpt")


def _fetched(name, filename, source, folder, save_filename):
    """The path of one file of a hub model."""
    from speechbrain.utils.fetching import fetch

    try:
        return fetch(filename, source, folder, save_filename)
    except Exception as error:
        # Of the network, the hub's client and the disk; its types vary.
        reason = " ".join(str(error).split()) or "no reason given"
        reason = reason.split(". ")[0].rstrip(".")
        raise UserError(
            f"{name}: there is no such folder, and {filename} could not be "
            f"fetched from Hugging Face ({type(error).__name__}: {reason}); "
            "correct the name or the path, or give the model's folder, brought "
            "from a machine with a network."
        ) from error


def _parts(name, description):
    """{part: path or None} of what a hub model's pretrainer loads."""
    try:
        with open(description, encoding="utf-8") as stream:
            resolved = resolve_references(stream)
        pretrainer = YAML().load(resolved).get("pretrainer") or {}
        loadables = pretrainer.get("loadables") or {}
        paths = pretrainer.get("paths") or {}
    except Exception as error:
        # YAML and the references in it raise many types.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{description}: cannot be read as the description of {name} "
            f"({type(error).__name__}: {reason}); give a SpeechBrain model "
            "for speaker recognition."
        ) from error
    if "embedding_model" not in loadables:
        raise UserError(
            f"{description}: {name} loads no `embedding_model`, so it is no "
            "speaker model; give a SpeechBrain model for speaker recognition."
        )
    return {part: paths.get(part) for part in PARTS if part in loadables}


def is_run(folder):
    """Whether a folder was left by SpeechBrain's own training.

    Arguments
    ---------
    folder : Path
        Its results folder.

    Returns
    -------
    bool
        True for a folder with ``hyperparams.yaml`` and ``save`` that is not
        of this recipe.
    """
    description = folder / DESCRIPTION
    if not (folder / SAVE).is_dir() or not description.is_file():
        return False
    text = description.read_text(encoding="utf-8", errors="replace")
    return OURS not in text


def run_of(folder):
    """Return the run that a folder is a checkpoint of, or None.

    Arguments
    ---------
    folder : Path
        A folder with weights.

    Returns
    -------
    Path or None
    """
    if not folder.name.startswith("CKPT"):
        return None
    run = folder.absolute().parent.parent
    return run if is_run(run) else None


def best_checkpoint(run):
    """Return the checkpoint of a run with the lowest error rate.

    Arguments
    ---------
    run : Path
        See :func:`is_run`.

    Returns
    -------
    folder : Path

    Raises
    ------
    UserError
        If no epoch was finished, or a checkpoint's figures cannot be read.
    """
    try:
        found = Checkpointer(run / SAVE).find_checkpoint(
            min_key=ERROR_RATE,
            ckpt_predicate=lambda one: (one.path / WEIGHTS).is_file(),
        )
    except Exception as error:
        # OSError, and what YAML raises for a file that is cut short.
        reason = " ".join(str(error).split())
        raise UserError(
            f"{run / SAVE}: the CKPT.yaml of a checkpoint cannot be read "
            f"({reason}); remove that checkpoint."
        ) from error
    if found is None:
        raise UserError(
            f"{run / SAVE}: no checkpoint there has an {ERROR_RATE}, so no "
            "epoch of this training was finished; go on with it, or give one "
            "of the checkpoints itself, a folder CKPT+..."
        )
    return found.path


def only_keys(text, keys):
    """Return a YAML with some of its keys alone, references resolved.

    The rest of a training's YAML seeds the generators, builds optimisers and
    augmentations and reads their files: none of that is run.

    Arguments
    ---------
    text : str
        A HyperPyYAML document.
    keys : sequence of str
        Top-level keys.

    Returns
    -------
    str

    Example
    -------
    >>> only_keys("a: 1\\nb: !ref <a>\\nc: !apply:exit [1]\\n", ["b", "d"])
    'b: 1\\n'
    """
    source = YAML().load(resolve_references(text))
    kept = CommentedMap((key, source[key]) for key in keys if key in source)
    stream = io.StringIO()
    YAML().dump(kept, stream)
    return stream.getvalue()
