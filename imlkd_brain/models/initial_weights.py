"""A training that starts from a trained model.

Authors: IML-KD contributors
"""

from pathlib import Path

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.models.export import write_names
from imlkd_brain.models.features import feature_difference
from imlkd_brain.models.folder import (
    TEACHER_SPEAKERS,
    load_speaker_model,
)
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def begin_with(modules, speakers, has_checkpoint, source, save_folder):
    """Start from a trained model, unless a checkpoint has trained it on.

    All processes of a training call it.

    Arguments
    ---------
    modules : dict
        With ``embedding_model``, ``classifier``, ``compute_features`` and
        ``mean_var_norm``, see :func:`start_from`.
    speakers, source
        See :func:`start_from`; without a source the weights stay.
    has_checkpoint : bool
        Whether the training goes on from a checkpoint.
    save_folder : str or Path
        See :func:`keep_speakers`.
    """
    if has_checkpoint:
        return
    run_on_main(keep_speakers, args=[source, save_folder])
    if source is None:
        return
    n_rows = start_from(
        source,
        modules["embedding_model"],
        modules["classifier"],
        speakers,
        (modules["compute_features"], modules["mean_var_norm"]),
    )
    logger.info(
        f"Initial weights: {source}, with the classifier's rows of {n_rows} of "
        f"{len(speakers)} training speakers."
    )


def start_from(source, embedding_model, classifier, speakers, features=None):
    """Give a new model the weights of a trained one.

    The embedding model takes all of its weights, by name. The classifier takes
    the rows of the speakers that both have, also by name; the rows of other
    speakers stay as they are. Where the classifiers are not of the same kind
    the new one stays as it is.

    Arguments
    ---------
    source : str or Path
        An inference folder or a training output folder.
    embedding_model : torch.nn.Module
        Maps (batch, time, mel) to (batch, 1, dim).
    classifier : torch.nn.Module
        Maps (batch, 1, dim) to cosines (batch, 1, speakers).
    speakers : list of str
        The new speakers, in the order of the classifier's rows.
    features : tuple, optional
        compute_features and mean_var_norm of the new model. There is a
        warning where the trained model's are others.

    Returns
    -------
    n_rows : int
        How many speakers' rows were taken.

    Raises
    ------
    UserError
        If there is no model, or a layer of the embedding model is missing or
        has another shape; the layer is named.
    """
    model = load_speaker_model(source)
    # Going on with other features is possible: speech at 8 kHz, for example.
    found = None if features is None else feature_difference(model, *features)
    if found is not None:
        key, difference = found
        logger.warning(
            f"initial_weights: {source} was trained on other features ({key}: "
            f"{difference}), so what it has learnt fits these in part only; "
            "give its own features if they are not meant to change."
        )
    state = model.embedding_model.state_dict()
    _check_same_layers(source, state, embedding_model.state_dict())
    embedding_model.load_state_dict(state)
    if model.classifier is None:
        return 0
    return _take_rows(model.classifier, model.speakers, classifier, speakers)


def keep_speakers(source, save_folder):
    """Write down whom the initial weights have learnt.

    A training that goes on may find the model gone that it started from.

    Arguments
    ---------
    source : str or Path or None
        An inference folder or a training output folder. With None, what an
        earlier start with other options wrote is removed.
    save_folder : str or Path
        Where ``teacher_speakers.txt`` goes.
    """
    path = Path(save_folder) / TEACHER_SPEAKERS
    if source is None:
        path.unlink(missing_ok=True)
        return
    write_names(path, load_speaker_model(source).learnt_speakers)


def _check_same_layers(source, theirs, ours):
    """Refuse weights that do not fit, naming the first layer."""
    for name in (*ours, *theirs):
        shapes = [
            list(state[name].shape) if name in state else None
            for state in (theirs, ours)
        ]
        if shapes[0] == shapes[1]:
            continue
        said = ["has none" if s is None else f"has {s}" for s in shapes]
        raise UserError(
            f"initial_weights: the layer `{name}` does not fit, {source} "
            f"{said[0]} and this embedding_model {said[1]}; give the model's "
            "own widths (`embedding_model`, `lin_neurons`, `n_mels`), or "
            "`--initial_weights null`."
        )


@torch.no_grad()
def _take_rows(theirs, their_speakers, ours, speakers):
    """Copy the classifier rows of the speakers that both have."""
    old, new = theirs.state_dict(), ours.state_dict()

    def kind(state):
        # Everything but the number of speakers.
        return {
            name: value.shape[1:] if name == "weight" else value.shape
            for name, value in state.items()
        }

    row_of = {speaker: row for row, speaker in enumerate(their_speakers)}
    known = [i for i, speaker in enumerate(speakers) if speaker in row_of]
    if kind(old) != kind(new) or not known:
        return 0
    rows = [row_of[speakers[i]] for i in known]
    weight = new["weight"].clone()
    weight[known] = old["weight"][rows].to(weight)
    ours.load_state_dict({**old, "weight": weight})
    return len(known)
