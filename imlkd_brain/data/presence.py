"""Looks for the corpus and trial lists of a training before anything is made.

Authors: IML-KD contributors
"""

import os

from imlkd_brain.data.speakers import separated
from imlkd_brain.errors import UserError
from imlkd_brain.schema import Made

KEYS = ("data_folder", "skip_prep", "verification_file", "valid_trials")
LIST_FOLDERS = ("", "meta", "trials")  # of a data folder, with trial lists


def check_sources(values):
    """Refuse a training whose corpus or trial lists are not there.

    Nothing is downloaded and no folder is made.

    Arguments
    ---------
    values : dict
        Of the YAML: ``data_folder``, ``skip_prep``, ``verification_file`` and,
        where it has it, ``valid_trials``. What a function of the YAML returns
        is not known yet, and is passed over.

    Raises
    ------
    UserError
        If a data folder or a list is missing. A list that has a URL, or the
        name of an official one, may be downloaded later.
    """
    data_folder, skip_prep, tests, dev = (
        None if isinstance(values.get(key), Made) else values.get(key)
        for key in KEYS
    )
    if data_folder is None or skip_prep:
        return
    folders = separated(data_folder)
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(
                f"{folder}: there is no such folder; --data_folder must name "
                "the one that holds wav/<speaker>/<session>/<utterance>.wav."
            )
    places = ["", *(os.path.join(f, p) for f in folders for p in LIST_FOLDERS)]
    for source in separated(tests):
        later = "://" in source or "." not in source
        if not later and not _is_there(source, places):
            raise UserError(
                f"verification_file: {source}: there is no such trial list, "
                f"neither here nor in {data_folder} or its meta or "
                "trials folder; correct the path."
            )
    for path in separated(dev):
        if not _is_there(path, [""]):
            raise UserError(
                f"valid_trials: {path}: there is no such trial list; give the "
                "path of dev trials, or `--valid_trials null`."
            )


def _is_there(path, places):
    """Whether a path leads to something from one of these folders."""
    return any(os.path.exists(os.path.join(p, path)) for p in places)
