"""What the verbs share: the model, output for people and programs, bad files.

Authors: IML-KD contributors
"""

import json
import sys
from pathlib import Path

from imlkd_brain.commands.exit_codes import SOME_BAD
from imlkd_brain.errors import UserError
from imlkd_brain.files import without_nan
from imlkd_brain.models.decision import DECISION_FILE, read_decision
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model
from imlkd_brain.models.shipped import default_model


def open_model(source):
    """Load a model and its decision.

    Arguments
    ---------
    source : str or None
        A folder or name; None for the shipped model.

    Returns
    -------
    model : SpeakerModel
    decision : Decision or None
        None where the folder has none.

    Raises
    ------
    UserError
        If there is no model, or a file of it is broken.
    """
    folder = find_inference_folder(source or default_model())
    model = load_speaker_model(folder)
    return model, read_decision(folder, model)


def chosen_threshold(given, decision):
    """The threshold given, else that of the model; None without either."""
    if given is not None:
        return given
    return None if decision is None else decision.threshold


def check_threshold(threshold, model):
    """Refuse to decide without a threshold."""
    if threshold is None:
        raise UserError(
            f"{model.source}: this model has no {DECISION_FILE} with a "
            "threshold, so nothing is decided; give --threshold SCORE, or let "
            "verify.py measure it with `--decision_list` (dev trials) and "
            "`--store_decision True`."
        )


def check_output(path, option):
    """Refuse a file that cannot be written, before the work starts.

    Arguments
    ---------
    path : str
        Where the file goes.
    option : str
        The option that names it.

    Raises
    ------
    UserError
        If its name does not end in .npz, its folder is missing, or it is a
        folder itself.
    """
    place = Path(path)
    if place.suffix != ".npz":
        raise UserError(f"{option} {path}: expected a name that ends in .npz.")
    if place.is_dir():
        raise UserError(f"{option} {path}: this is a folder; give a file.")
    if not place.parent.is_dir():
        raise UserError(
            f"{option} {path}: there is no folder {place.parent}; make it, or "
            "correct the path."
        )


def say(as_json, content, text):
    """Print the JSON object or the text on standard output."""
    if as_json:
        print(json.dumps(without_nan(content), indent=2))
    else:
        print(text)


def list_bad(bad, n_files):
    """List bad files on standard error, after the others are done.

    Arguments
    ---------
    bad : dict
        Reasons by path.
    n_files : int
        How many files there were.

    Returns
    -------
    int
        The exit code: 0 without bad files.

    Raises
    ------
    UserError
        If all files are bad.
    """
    if not bad:
        return 0
    lines = "\n".join(f"  {reason}" for reason in bad.values())
    if len(bad) == n_files:
        raise UserError(f"none of the {n_files} files can be used:\n{lines}")
    print(
        f"{len(bad)} of {n_files} files were left out:\n{lines}",
        file=sys.stderr,
    )
    return SOME_BAD
