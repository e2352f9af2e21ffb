"""Finds what CSVs are prepared from: trial lists, archives and audio files.

Authors: IML-KD contributors
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from imlkd_brain.data.speakers import (
    AUDIO_SUFFIXES,
    WAV,
    slashed,
    speaker_of,
    utterance_key,
)
from imlkd_brain.data.trials import parse_trials
from imlkd_brain.errors import UserError
from imlkd_brain.files import walk
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

FIRST_OFFENDERS = 5  # how many bad files a message names
MOST_UNKNOWN = 1000  # names that are looked for in vain
# Formats without loss, of which any part is read quickly; the first is taken
# where an utterance is there in both.
TRAINED_SUFFIXES = (".wav", ".flac")
NOISE_FOLDERS = ("noise", "rir")  # where a training downloads noise to
STATE_BLOCK = 1000  # files that one thread looks up at a time


def read_pairs(paths, folders=()):
    """Read the pairs of trial lists.

    Every form that verification scores is read: label first or last, names
    absolute or below ``wav``, with and without suffix, and Kaldi's
    ``speaker-session-utterance``. Labels, repeated trials and lists of target
    trials alone are accepted: only the utterances count here.

    Arguments
    ---------
    paths : list of str
        Lists, see :func:`imlkd_brain.data.trials.parse_trials`.
    folders : list of str
        Data folders; what is in them says where a dash parts two names.

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
    trials, keys = [], {}
    for path in paths:
        for number, _, *names in parse_trials(path):
            where = f"{path}, line {number}"
            for name in names:
                if name not in keys:
                    keys[name] = _listed_key(name, folders, where)
            trials.append((where, *(keys[name] for name in names)))
    return trials


def _listed_key(name, folders, where):
    """``speaker/session/utterance`` of a name in a trial list."""
    key = utterance_key(name, folders)
    if key.count("/") == 2:
        return key
    keys = list(slashed(key))
    if not keys:
        raise UserError(
            f"{where}: {name!r} has no speaker and session; a training needs "
            "names as speaker/session/utterance.wav, or absolute paths."
        )
    for key in keys:
        if _file_of(key, folders):
            return key
    for key in keys:
        speaker = speaker_of(key)
        if any(os.path.isdir(os.path.join(_root(f), speaker)) for f in folders):
            return key
    return keys[0]


def _root(folder):
    """The folder of the speakers' folders: ``wav``, or the data folder."""
    root = os.path.join(folder, WAV)
    return root if os.path.isdir(root) else folder


def _file_of(key, folders):
    """The file of a key in the first folder that has it, or None."""
    for folder in folders:
        stem = os.path.join(_root(folder), *key.split("/"))
        for suffix in TRAINED_SUFFIXES:
            if os.path.isfile(stem + suffix):
                return stem + suffix
    return None


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
    """List ``<speaker>/<session>/<utterance>`` of all folders, WAV and FLAC.

    The speakers' folders lie in ``wav`` where there is one, else in the data
    folder itself, as LibriSpeech's ``<speaker>/<chapter>/<utterance>.flac``.

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
        root, found = _root(folder), False
        for place, below, names in walk(root):
            if place == folder:
                # Noise that a training downloads is no speaker's.
                below[:] = [n for n in below if n not in NOISE_FOLDERS]
            levels = os.path.relpath(place, root).split(os.sep)
            for suffix in TRAINED_SUFFIXES:
                for name in names:
                    if not name.endswith(suffix):
                        continue
                    found = True
                    path = os.path.join(place, name)
                    if len(levels) != 2:
                        elsewhere.append(path)
                        continue
                    stem = name[: -len(suffix)]
                    key = "/".join([*levels, stem])
                    first = files.setdefault(key, path)
                    if os.path.dirname(first) != place:
                        raise UserError(
                            f"{path}: {first} has the same speaker, session "
                            "and name; an utterance may be in one data folder "
                            "only."
                        )
        if not found:
            raise UserError(_no_wav_message(folder, sample_rate))
    if not files:
        raise UserError(
            f"{min(elsewhere)}: expected files at <speaker>/<session>/"
            "<utterance>.wav (or .flac) in the data folder or its wav folder; "
            "give the folder that holds the speakers' folders, or move them to "
            "wav/<speaker>/<session>/<utterance>.wav."
        )
    if elsewhere:
        logger.warning(
            f"{len(elsewhere)} files are not at <speaker>/<session>/ and "
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
            suffix = os.path.splitext(name)[1].lower()
            if suffix in AUDIO_SUFFIXES and suffix not in TRAINED_SUFFIXES:
                return (
                    f"{os.path.join(place, name)}: a training reads .wav and "
                    f".flac, not {suffix} (as VoxCeleb2 comes in .m4a); "
                    f"convert each file with `ffmpeg -i IN{suffix} -ac 1 -ar "
                    f"{sample_rate} OUT.wav` to {folder}/wav/<speaker>/"
                    "<session>/<utterance>.wav."
                )
    return (
        f"{folder}: no wav/<speaker>/<session>/<utterance>.wav there, and no "
        "<speaker>/<session>/<utterance>.flac; give the folder that holds "
        "`wav` or the speakers' folders."
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
    files, unknown = {}, 0
    for key in sorted({key for _, *pair in trials for key in pair}):
        path = _file_of(key, folders)
        if path:
            files[key] = path
            continue
        unknown += 1
        if unknown == MOST_UNKNOWN:
            # Looking for a million names that are nowhere takes hours.
            raise UserError(
                f"{MOST_UNKNOWN} utterances or more of the trial list are not "
                f"in {', '.join(folders)} (such as {key}); check data_folder, "
                "or give the list that belongs to it."
            )
    missing = [
        (where, key)
        for where, *pair in trials
        for key in pair
        if key not in files
    ]
    if missing:
        first = "; ".join(
            f"{where}: {key}" for where, key in missing[:FIRST_OFFENDERS]
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
