"""Finds what CSVs are prepared from: trial lists, archives and audio files.

Authors: IML-KD contributors
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from imlkd_brain.data.speakers import speaker_of
from imlkd_brain.errors import UserError
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

FIRST_OFFENDERS = 5  # how many bad files a message names
STATE_BLOCK = 1000  # files that one thread looks up at a time


def separated(paths):
    """Return a list of paths.

    Example
    -------
    >>> separated("one, two"), separated(["one"]), separated(None)
    (['one', 'two'], ['one'], [])
    """
    if paths is None:
        return []
    if isinstance(paths, str):
        paths = paths.split(",")
    return [str(path).strip() for path in paths if str(path).strip()]


def read_pairs(paths):
    """Read the pairs of trial lists of VoxCeleb.

    Labels, repeated trials and lists of target trials alone are accepted:
    only the utterances count here.

    Arguments
    ---------
    paths : list of str
        Lists with lines ``label enrol test``.

    Returns
    -------
    list of tuple
        (list and line, enrolment key, test key); a key is
        ``speaker/session/utterance``.

    Raises
    ------
    UserError
        If a list cannot be read, is empty, or has a line of another form.
    """
    trials = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: this trial list cannot be read ({error}); give the "
                "path of a text file with lines `label enrol test`."
            ) from error
        before = len(trials)
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 3 or any(
                field.count("/") != 2 for field in fields[1:]
            ):
                raise UserError(
                    f"{path}, line {number}: expected `label "
                    "speaker/session/utterance.wav "
                    f"speaker/session/utterance.wav`, found {line[:80]!r}."
                )
            keys = [os.path.splitext(field)[0] for field in fields[1:]]
            trials.append((f"{path}, line {number}", *keys))
        if len(trials) == before:
            raise UserError(f"{path}: this trial list is empty.")
    return trials


def speakers_of_pairs(trials):
    """Return the speakers of both columns of :func:`read_pairs`."""
    return {speaker_of(key) for _, *pair in trials for key in pair}


def digest_of(paths):
    """Return the SHA-256 of the contents of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def list_files(folders, sample_rate):
    """List ``wav/<speaker>/<session>/<utterance>.wav`` of all folders.

    Arguments
    ---------
    folders : list of str
        Data folders.
    sample_rate : int
        In Hz, for a message.

    Returns
    -------
    dict
        ``speaker/session/utterance`` to the file's path, sorted by key.

    Raises
    ------
    UserError
        If a folder has no such files, or an utterance is in two folders.
    """
    files, elsewhere = {}, []
    for folder in folders:
        root = os.path.join(folder, "wav")
        found = False
        for place, _, names in os.walk(root, followlinks=True):
            below = os.path.relpath(place, root).split(os.sep)
            for name in names:
                if not name.endswith(".wav"):
                    continue
                found = True
                path = os.path.join(place, name)
                if len(below) != 2:
                    elsewhere.append(path)
                    continue
                key = "/".join([*below, name[: -len(".wav")]])
                if files.setdefault(key, path) != path:
                    raise UserError(
                        f"{path}: {files[key]} has the same speaker, session "
                        "and name; an utterance may be in one data folder "
                        "only."
                    )
        if not found:
            raise UserError(_no_wav_message(folder, sample_rate))
    if not files:
        raise UserError(
            f"{min(elsewhere)}: expected files at "
            "wav/<speaker>/<session>/<utterance>.wav; move them there."
        )
    if elsewhere:
        logger.warning(
            f"{len(elsewhere)} files are not at wav/<speaker>/<session>/ and "
            f"are not used, the first is {min(elsewhere)}."
        )
    return dict(sorted(files.items()))


def _no_wav_message(folder, sample_rate):
    """Say what a data folder without wav files lacks."""
    if not os.path.isdir(folder):
        return (
            f"{folder}: there is no such folder; data_folder should hold "
            "wav/<speaker>/<session>/<utterance>.wav."
        )
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".m4a"):
                return (
                    f"{os.path.join(place, name)}: VoxCeleb2 comes as .m4a and "
                    "wav is needed; convert each file with `ffmpeg -i IN.m4a "
                    f"-ac 1 -ar {sample_rate} OUT.wav` to {folder}/wav/"
                    "<speaker>/<session>/<utterance>.wav."
                )
    return (
        f"{folder}: no wav/<speaker>/<session>/<utterance>.wav there; give the "
        "folder that holds `wav`."
    )


def find_listed(trials, folders):
    """Find the files of trial lists.

    Arguments
    ---------
    trials : list of tuple
        See :func:`read_pairs`.
    folders : list of str
        Data folders; the first one that has a file is taken.

    Returns
    -------
    dict
        Key to the file's path, sorted by key.

    Raises
    ------
    UserError
        If a list names missing files.
    """
    files = {}
    for key in sorted({key for _, *pair in trials for key in pair}):
        for folder in folders:
            path = os.path.join(folder, "wav", *key.split("/")) + ".wav"
            if os.path.isfile(path):
                files[key] = path
                break
    missing = [
        (where, key)
        for where, *pair in trials
        for key in pair
        if key not in files
    ]
    if missing:
        first = "; ".join(
            f"{where}: {key}.wav" for where, key in missing[:FIRST_OFFENDERS]
        )
        raise UserError(
            f"{len({key for _, key in missing})} utterances of the trial list "
            f"are not in {', '.join(folders)} ({first}); check data_folder, "
            "or give the list that belongs to it."
        )
    return files


def file_states(paths, n_jobs):
    """Look up the sizes and times of change of files.

    Arguments
    ---------
    paths : iterable of str
        The files.
    n_jobs : int
        Threads: a file server takes its time for each answer.

    Returns
    -------
    dict
        (bytes, nanoseconds) by path; (-1, 0) for a dangling link.
    """

    def look_up(block):
        found = []
        for path in block:
            try:
                stat = os.stat(path)
                found.append((path, (stat.st_size, stat.st_mtime_ns)))
            except OSError:
                found.append((path, (-1, 0)))
        return found

    paths = sorted(paths)
    blocks = [
        paths[i : i + STATE_BLOCK] for i in range(0, len(paths), STATE_BLOCK)
    ]
    with ThreadPoolExecutor(n_jobs) as pool:
        return dict(
            entry for found in pool.map(look_up, blocks) for entry in found
        )


def fingerprint(paths, states):
    """Return the SHA-256 of the paths, sizes and times of change of files."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size, changed = states[path]
        digest.update(f"{path}\0{size}\0{changed}\n".encode("utf-8", "replace"))
    return digest.hexdigest()
