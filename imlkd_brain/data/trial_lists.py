"""Finds trial lists, and downloads them.

Authors: IML-KD contributors
"""

import os
from pathlib import Path

from imlkd_brain.data.presence import LIST_FOLDERS
from imlkd_brain.data.speakers import data_folders
from imlkd_brain.data.trials import parse_trials
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.distributed import run_on_main

# The cleaned VoxCeleb1 lists: official file name and number of trials.
OFFICIAL_LISTS = {
    "Vox1-O": ("veri_test2.txt", 37611),
    "Vox1-E": ("list_test_all2.txt", 579818),
    "Vox1-H": ("list_test_hard2.txt", 550894),
}
OFFICIAL_SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"


def find_list(source, data_folder, save_folder=None):
    """Find a trial list, or download it.

    Only the main process looks for it and downloads it, so that processes
    which train together do not write the same file. All of them have to call
    it.

    Arguments
    ---------
    source : str or None
        ``Vox1-O``, ``Vox1-E`` or ``Vox1-H`` (the cleaned lists), the URL of a
        list, or a path, absolute, relative to the working directory or to the
        data folder. Official lists and URLs are known by their file's name.
        Files are looked for in the data folder, its ``meta`` and its
        ``trials``. Several lists with commas.
    data_folder : str or Path
        The corpus; several folders with commas.
    save_folder : str, optional
        Where the list of a URL is downloaded to. Without it nothing is
        downloaded.

    Returns
    -------
    path : str or None
        None if ``source`` is None.

    Raises
    ------
    UserError
        If a data folder or the list is not there, or the download fails.
    """
    return run_on_main(_find_lists, args=[source, data_folder, save_folder])


def preparation_options(
    begun, source, data_folder, save_folder, dev_pairs_file, sample_rate
):
    """Return what ``prepare_voxceleb`` takes beside SpeechBrain's arguments.

    Arguments
    ---------
    begun : bool
        Whether a training on the prepared data has begun.
    source, data_folder, save_folder
        The test list, see :func:`find_list`.
    dev_pairs_file : str or None
        The list of dev trials.
    sample_rate : int
        In Hz.

    Returns
    -------
    dict
        Values by the names of arguments.
    """
    return {
        "verification_pairs_file": find_list(source, data_folder, save_folder),
        "dev_pairs_file": dev_pairs_file,
        "begun": begun,
        "sample_rate": sample_rate,
    }


def _find_lists(source, data_folder, save_folder):
    """See :func:`find_list`."""
    if source is None or os.path.isfile(source):
        return source
    found = [
        _find_list(part.strip(), data_folder, save_folder)
        for part in str(source).split(",")
        if part.strip()
    ]
    return ",".join(found) or None


def _find_list(source, data_folder, save_folder):
    """Find or download one list."""
    if os.path.isfile(source):
        return source
    roots = existing_folders(data_folder)
    name = source
    if source in OFFICIAL_LISTS:
        name, _ = OFFICIAL_LISTS[source]
    elif "://" in source:
        name = os.path.basename(source)
    for root in roots:
        for folder in LIST_FOLDERS:
            if (root / folder / name).is_file():
                return str(root / folder / name)
    if "://" in source and save_folder is not None:
        return _download(source, Path(save_folder, name), roots)
    where = f"neither in {data_folder} nor in its meta or trials folder"
    if name != source:
        url = source if "://" in source else f"{OFFICIAL_SOURCE}{name}"
        raise UserError(f"{source}: {name} is {where}; get it from {url}.")
    raise UserError(
        f"{source}: no such trial list; it is no official list "
        f"({', '.join(OFFICIAL_LISTS)}), not a file here, and {where}."
    )


def _download(url, path, roots):
    """Download a list to a path, whole or not at all."""
    if path.is_file():
        return str(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_place_of(path) as temporary:
            download_file(url, str(temporary), replace_existing=True)
            _check_downloaded(temporary, url)
    except OSError as error:
        raise UserError(
            f"{url}: cannot be downloaded ({error}); put the trial list into "
            f"{roots[0]} as {path.name}."
        ) from error
    return str(path)


def _check_downloaded(path, source):
    """Refuse what a server gave in place of a list, so that it is not kept.

    Raises
    ------
    OSError
        If it is no list, or not all of an official one.
    """
    try:
        trials = parse_trials(path)
    except UserError:
        raise OSError("what comes is no trial list") from None
    for name, n_trials in OFFICIAL_LISTS.values():
        if source == OFFICIAL_SOURCE + name and len(trials) != n_trials:
            raise OSError(f"{len(trials)} trials come, expected {n_trials}")


def existing_folders(data_folder):
    """Return the folders of a list with commas.

    Arguments
    ---------
    data_folder : str or Path
        The corpus; several folders with commas.

    Returns
    -------
    list of Path

    Raises
    ------
    UserError
        If one of them is missing.
    """
    roots = [Path(part) for part in data_folders(data_folder)]
    for root in roots:
        if not root.is_dir():
            raise UserError(
                f"{root}: there is no such folder; --data_folder must name the "
                "one that holds wav/<speaker>/<session>/<utterance>.wav."
            )
    return roots
