"""A folder of audio becomes the CSV of utterances that have no label.

Authors: IML-KD contributors
"""

import os
from pathlib import Path

import soundfile

from imlkd_brain.data.annotations import UNLABELLED
from imlkd_brain.data.measured import MeasuredFiles
from imlkd_brain.data.preparation import write_rows
from imlkd_brain.data.sources import file_states, fingerprint
from imlkd_brain.data.speakers import speaker_of
from imlkd_brain.errors import UserError
from imlkd_brain.files import read_json, walk, write_json
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

OPTIONS = "options.json"
ANNOTATION = "unlabelled.csv"
# What soundfile reads, without headerless samples.
SUFFIXES = tuple(
    f".{name.lower()}"
    for name in (*soundfile.available_formats(), "oga", "opus", "aif", "snd")
    if name != "RAW"
)


def prepare_unlabelled(folder, save_folder, sample_rate, shortest, held_out):
    """Write the CSV of a folder's utterances, once for each state of it.

    Arguments
    ---------
    folder : str
        Searched with all folders below it.
    save_folder : str
        Where the CSV goes.
    sample_rate : int
        Of the training, in Hz. Files may have any; they are converted when
        they are read.
    shortest : float
        Seconds; shorter files are left out.
    held_out : set of str
        Speakers whose utterances are left out.

    Returns
    -------
    path : str
        The CSV. Its ``spk_id`` is the speaker by the folders that a file lies
        in, see :func:`imlkd_brain.data.speakers.speaker_of`, or empty.

    Raises
    ------
    UserError
        If there is no such folder or nothing to train on in it, or files are
        broken; these are named.
    """
    root = os.path.abspath(folder)
    paths = list_audio(root)
    n_jobs = os.cpu_count() or 1
    states = file_states(paths, n_jobs)
    wanted = {
        "format": 2,
        "folder": root,
        "sample_rate": sample_rate,
        "shortest": shortest,
        "held_out": sorted(held_out),
        "files": fingerprint(paths, states),
    }
    os.makedirs(save_folder, exist_ok=True)
    record = os.path.join(save_folder, OPTIONS)
    path = os.path.join(save_folder, ANNOTATION)
    if os.path.isfile(path) and read_json(record) == wanted:
        return path
    with MeasuredFiles(save_folder, states, n_jobs, sample_rate) as measured:
        found = measured.measure(
            paths, None, "unlabelled files", any_format=True
        )
    rows, short, unknown, known_test = [], [], [], set()
    for file, measure in zip(paths, found, strict=True):
        speaker = speaker_of(file, [root]) or ""
        if speaker in held_out:
            known_test.add(speaker)
            continue
        if measure.n_samples < shortest * sample_rate:
            short.append(file)
            continue
        if not speaker:
            unknown.append(file)
        key = os.path.relpath(file, root).replace(os.sep, "--")
        seconds = measure.n_samples / sample_rate
        rows.append(
            (UNLABELLED + key, seconds, file, 0, measure.n_samples, speaker)
        )
    if not rows:
        raise UserError(
            f"{folder}: no utterance is left of {len(paths)} files "
            f"({len(short)} are shorter than {shortest:g} s, the others are of "
            "speakers of the trial lists); give other audio as "
            "unlabelled_folder, or a shorter sentence_len."
        )
    if short:
        logger.warning(
            f"{folder}: {len(short)} of {len(paths)} files are shorter than "
            f"{shortest:g} s and are left out, the first is {short[0]}."
        )
    if known_test:
        logger.warning(
            f"{folder}: {len(known_test)} of its speakers are in the trial "
            f"lists and are left out, the first is {min(known_test)}."
        )
    if unknown:
        logger.warning(
            f"{folder}: {len(unknown)} of {len(rows)} utterances lie in no "
            f"folder of a speaker, the first is {unknown[0]}; nobody can say "
            "whether test speakers are among them."
        )
    write_rows(path, rows)
    write_json(record, wanted, indent=1)
    return path


def list_audio(root):
    """List all audio files below a folder, sorted.

    Arguments
    ---------
    root : str
        The folder. Hidden files and folders are passed over.

    Returns
    -------
    list of str

    Raises
    ------
    UserError
        If there is no such folder, or no audio in it.
    """
    if not os.path.isdir(root):
        raise UserError(
            f"unlabelled_folder: {root} is no folder; give one of audio files, "
            "or `--unlabelled_folder null`."
        )
    found = []
    for place, folders, names in walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(place, name)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and name[0] != "."
        ]
    if not found:
        raise UserError(
            f"unlabelled_folder: no audio files in {root}; expected wav, flac, "
            "ogg, mp3 or another format that soundfile reads."
        )
    return sorted(found)
