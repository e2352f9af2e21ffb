"""Noise and room responses for augmentation: downloaded whole, listed in a CSV.

Does what SpeechBrain's ``prepare_dataset_from_URL`` does, with the same archive
name and CSV columns, so folders can be shared. Unlike it, this module leaves
nothing half done, takes several data folders, and lists only files that exist.

Authors: IML-KD contributors
"""

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
from contextlib import contextmanager

import soundfile

from imlkd_brain.data.archives import complete_folder
from imlkd_brain.data.audio import opened
from imlkd_brain.data.sources import file_states, fingerprint
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of, read_json, walk, write_whole
from imlkd_brain.locks import locked
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)
COLUMNS = ("ID", "duration", "wav", "wav_format", "wav_opts")
FORMAT = 1  # raised whenever the same files would give another CSV


def prepare_augmentation_data(
    URL,
    data_folder,
    name,
    csv_file,
    dest_folder=None,
    ext="wav",
    sample_rate=None,
):
    """Make the CSV of noises or room responses; download them where needed.

    A CSV that this function did not write is used as it is.

    Arguments
    ---------
    URL : str or None
        Of a zip archive; a local path or a ``file://`` URL as well. None:
        nothing is downloaded.
    data_folder : str
        Corpus folder, or several separated by commas.
    name : str
        ``noise`` or ``rir``: the folder's name in the data folder, and in
        messages the key ``data_folder_<name>``.
    csv_file : str
        The CSV to write.
    dest_folder : str, optional
        Folder of the files. Without, it is ``name`` in the first data folder
        that has one with files, else in the first data folder.
    ext : str
        Extension of the files that are listed.
    sample_rate : int, optional
        What the files should have, in Hz; not checked without.

    Raises
    ------
    UserError
        If the archive can neither be found nor downloaded, or if the files
        are not whole mono files.

    Example
    -------
    >>> prepare_augmentation_data(
    ...     "https://nowhere.invalid/noises.zip", "data", "noise", "noise.csv"
    ... )  # doctest: +SKIP
    """
    if _is_users(csv_file):
        return
    key = f"data_folder_{name}"
    folder = dest_folder or _choose_folder(data_folder, name, ext)
    busy = f"{folder}: another process completes it"
    with _writing_problems(folder, key):
        with locked(_lock_of(folder), busy):
            own = _list_files(folder, ext)
            downloaded = complete_folder(URL, folder, own, key)
    files = _list_files(folder, ext)
    if not files:
        raise UserError(
            f"{folder}: no .{ext} files there; give their folder (`--{key}`), "
            "or train without noise and reverberation (`--augmentation False`)."
        )
    made = {
        "format": FORMAT,
        "files": fingerprint(files, file_states(files, 1)),
    }
    record = f"{csv_file}.json"
    if os.path.isfile(csv_file) and read_json(record) == made:
        return
    rows = _rows(files, ext, downloaded, sample_rate)
    os.makedirs(os.path.dirname(os.path.abspath(csv_file)), exist_ok=True)
    # The record says whose the CSV is before it says that it is whole.
    write_whole(record, json.dumps({"format": FORMAT, "files": None}))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_whole(csv_file, text.getvalue())
    write_whole(record, json.dumps(made))
    logger.info(f"{csv_file}: {len(rows)} files of {folder}")


def _lock_of(folder):
    """A lock file for a folder, outside of it: the corpus may be read-only."""
    name = f"{os.path.realpath(folder)}\0{os.path.expanduser('~')}"
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
    return os.path.join(tempfile.gettempdir(), f"imlkd-{digest[:16]}.lock")


def _is_users(csv_file):
    """Whether there is a usable CSV that was not written here."""
    if not os.path.isfile(csv_file) or os.path.isfile(f"{csv_file}.json"):
        return False
    try:
        with open(csv_file, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{csv_file}: cannot be read ({error}); delete it, and it is made."
        ) from error
    # An interrupted SpeechBrain leaves a CSV with a header alone.
    if not rows:
        return False
    for row in rows:
        path = row.get("wav")
        if not path or not os.path.isfile(path):
            raise UserError(
                f"{csv_file}: expected the columns {','.join(COLUMNS)} and "
                f"files that exist, found {path!r} under wav; delete the CSV, "
                "and it is made, or mend it."
            )
    return True


def _choose_folder(data_folder, name, ext):
    """Return the sub-folder of the first data folder that has files there."""
    if data_folder is None:
        raise UserError(
            f"data_folder: null, so there is no place for {name}; give "
            f"`--data_folder_{name}`, or `--augmentation False`."
        )
    folders = [
        os.path.join(folder.strip(), name)
        for folder in str(data_folder).split(",")
        if folder.strip()
    ]
    if not folders:
        raise UserError("data_folder: expected the path of a folder.")
    for folder in folders:
        if _list_files(folder, ext):
            return folder
    return folders[0]


def _list_files(folder, ext):
    """The files of an extension below a folder, sorted; no hidden ones."""
    found = []
    for place, folders, names in walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(
            os.path.join(place, name)
            for name in names
            if name.endswith(f".{ext}") and not name.startswith(".")
        )
    return sorted(found)


@contextmanager
def _writing_problems(folder, key):
    """Say which key gives another folder, if one cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); give another "
            f"folder for these files (`--{key}`), or train without noise and "
            "reverberation (`--augmentation False`)."
        ) from error


def _rows(files, ext, may_change, sample_rate):
    """Rows of a CSV, after a look at every file's header.

    Arguments
    ---------
    files : list of str
        Paths.
    ext : str
        Their extension.
    may_change : bool
        Whether a file of several channels may be replaced by its first one,
        as SpeechBrain does; else it is refused.
    sample_rate : int or None
        What the files should have, in Hz.

    Returns
    -------
    list of tuple
        In the order of COLUMNS; durations in seconds.
    """
    rows, rates = [], {}
    for index, path in enumerate(files):
        channels, frames, rate = _format(path)
        if channels > 1 and may_change:
            _keep_first_channel(path)
            channels = 1
        if frames == 0 or channels > 1:
            raise UserError(
                f"{path}: {channels} channels, {frames} samples; "
                "expected a mono file with sound, convert it (`ffmpeg -i IN "
                "-ac 1 OUT`), or move it out of the folder."
            )
        rates.setdefault(rate, path)
        stem = os.path.splitext(os.path.basename(path))[0]
        rows.append((f"{stem}_{index}", frames / rate, path, ext, ""))
    if sample_rate is not None:
        _check_rates(rates, sample_rate)
    return rows


def _format(path):
    """Channels, samples and rate in Hz of an audio file."""
    with opened(path) as file:
        return file.channels, file.frames, file.samplerate


def _check_rates(rates, sample_rate):
    """Refuse files that would all be heard at another speed."""
    others = sorted(rate for rate in rates if rate != sample_rate)
    if others and sample_rate not in rates:
        raise UserError(
            f"{rates[others[0]]}: {others[0]} Hz where augmentation_sample_rate"
            f" is {sample_rate} Hz; give the files' rate "
            f"(`--augmentation_sample_rate {others[0]}`)."
        )
    if others:
        logger.warning(
            f"{rates[others[0]]}: {others[0]} Hz, but it is taken for "
            f"{sample_rate} Hz (augmentation_sample_rate); resample such files."
        )


def _keep_first_channel(path):
    """Replace a file of several channels by its first one."""
    with opened(path) as file:
        samples = file.read(dtype="float32", always_2d=True)
        rate, subtype, kind = file.samplerate, file.subtype, file.format
    with in_place_of(path) as temporary:
        soundfile.write(
            temporary, samples[:, 0], rate, subtype=subtype, format=kind
        )
