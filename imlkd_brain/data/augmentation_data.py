"""Noise and room responses for augmentation: downloaded whole, listed in a CSV.

Does what SpeechBrain's ``prepare_dataset_from_URL`` does, with the same archive
name and CSV columns, so that folders can be shared. What is different: an
interrupted download or unpacking leaves nothing that is taken for done, several
data folders are understood, and a CSV has rows of files that exist.

Authors: IML-KD contributors
"""

import csv
import errno
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import urllib.parse
import urllib.request
import zipfile
import zlib
from contextlib import contextmanager

import soundfile

from imlkd_brain.data.audio import opened
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of, write_whole
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)
ARCHIVE = "data.zip"  # SpeechBrain's name
COLUMNS = ("ID", "duration", "wav", "wav_format", "wav_opts")
FORMAT = 1  # raised whenever the same files would give another CSV
TIMEOUT = 60  # seconds without an answer until a download is given up
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


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
    URL : str
        Of a zip archive; a local path or a ``file://`` URL as well.
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
    with _writing_problems(folder, key):
        downloaded = _complete(URL, folder, ext, key)
    files = _list_files(folder, ext)
    if not files:
        raise UserError(
            f"{folder}: no .{ext} files there; give their folder (`--{key}`), "
            "or train without noise and reverberation (`--augmentation False`)."
        )
    made = {"format": FORMAT, "files": _fingerprint(files)}
    record = f"{csv_file}.json"
    if os.path.isfile(csv_file) and _read_record(record) == made:
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
    """The first data folder's sub-folder that has files, else the first."""
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
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(
            os.path.join(place, name)
            for name in names
            if name.endswith(f".{ext}") and not name.startswith(".")
        )
    return sorted(found)


def _fingerprint(files):
    """SHA-256 of the paths, sizes and times of change of files."""
    digest = hashlib.sha256()
    for path in files:
        stat = os.stat(path)
        digest.update(
            f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(
                "utf-8", "replace"
            )
        )
    return digest.hexdigest()


def _read_record(path):
    """What a CSV was made from, None if that is not known."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


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


def _complete(URL, folder, ext, key):
    """Have all files of the archive in a folder; what the user put there stays.

    Returns
    -------
    downloaded : bool
        Whether the files come from an archive, so that they may be changed.
    """
    archive = os.path.join(folder, ARCHIVE)
    own = _list_files(folder, ext)
    if zipfile.is_zipfile(archive):
        return _unpack_missing(archive, folder, bool(own), archive)
    if own:
        return False
    # Empty, or with half of an archive, which goes when a whole one is there.
    others = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    if others - {ARCHIVE}:
        raise UserError(
            f"{folder}: no .{ext} files there, but {min(others - {ARCHIVE})}; "
            f"empty the folder, and they are downloaded into it, or give "
            f"another one (`--{key}`)."
        )
    partial = os.path.normpath(folder) + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        whole = os.path.join(partial, ARCHIVE)
        _download(URL, whole, folder)
        _unpack_missing(whole, partial, False, URL)
        if others:
            os.remove(archive)
        if os.path.isdir(folder):
            os.rmdir(folder)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _download(URL, path, folder):
    """Bring a zip archive to ``path``, or say what to do without a network."""
    way_out = (
        f"download it elsewhere and save it as {os.path.join(folder, ARCHIVE)}"
        ", or train without noise and reverberation (`--augmentation False`)."
    )
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        parts = urllib.parse.urlsplit(URL)
        if parts.scheme in ("http", "https"):
            download_file(URL, path)
        elif parts.scheme == "file":
            shutil.copyfile(urllib.request.url2pathname(parts.path), path)
        else:
            shutil.copyfile(URL, path)
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise UserError(
            f"{URL}: cannot be downloaded ({error}); {way_out}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    if not zipfile.is_zipfile(path):
        raise UserError(f"{URL}: what comes is no zip archive; {way_out}")


def _unpack_missing(archive, folder, has_files, source):
    """Unpack what a folder lacks of an archive; each file comes whole.

    Arguments
    ---------
    archive : str
        A zip archive.
    folder : str
        Where its files belong.
    has_files : bool
        Whether the folder has audio files. If none of them is of the archive,
        they are the user's own, and nothing is added to them.
    source : str
        Where the archive comes from, for the message.

    Returns
    -------
    unpacked : bool
        False if the files are the user's own.
    """
    place = os.path.join(folder, ".unpacking")
    shutil.rmtree(place, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [m for m in file.infolist() if not m.is_dir()]
            there = [
                os.path.isfile(os.path.join(folder, m.filename))
                for m in members
            ]
            if has_files and not any(there):
                return False
            if all(there):
                return True
            missing = [
                m for m, found in zip(members, there, strict=True) if not found
            ]
            # Unpacking that was interrupted elsewhere left the file before
            # the first missing one, perhaps cut short.
            first = there.index(False)
            if first:
                missing.insert(0, members[first - 1])
            if has_files:
                logger.warning(
                    f"{folder}: {there.count(False)} of {len(members)} files "
                    f"of {ARCHIVE} are missing and are unpacked again."
                )
            for member in missing:
                file.extract(member, place)
                target = os.path.join(folder, member.filename)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.replace(os.path.join(place, member.filename), target)
    except DAMAGED as error:
        raise UserError(
            f"{source}: the archive is damaged ({error}); get a whole one and "
            "run the same command again."
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return True


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
