"""Brings and unpacks archives, whole or not at all.

An interrupted download or unpacking leaves nothing that is taken for done.

Authors: IML-KD contributors
"""

import errno
import http.client
import os
import shutil
import socket
import urllib.parse
import urllib.request
import zipfile
import zlib

from imlkd_brain.errors import UserError
from imlkd_brain.files import DAMAGED_ZIP
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

TEST_WAV = "vox1_test_wav.zip"
META = "meta"
ARCHIVE = "data.zip"  # SpeechBrain's name
TIMEOUT = 60  # seconds without an answer until a download is given up


def complete_folder(URL, folder, own, key):
    """Fill a folder with all files of an archive, unless it has a user's own.

    Arguments
    ---------
    URL : str or None
        Of a zip archive; a local path or a ``file://`` URL as well. It is
        not asked where the folder holds the archive as ``data.zip``. None:
        nothing is downloaded.
    folder : str
        Where the files belong.
    own : sequence of str
        The audio files that the folder has.
    key : str
        The YAML's key of the folder, for messages.

    Returns
    -------
    downloaded : bool
        True if the files come from the archive, False if they are the user's.

    Raises
    ------
    UserError
        If the archive cannot be had, or the folder holds other things.
    """
    archive = os.path.join(folder, ARCHIVE)
    if zipfile.is_zipfile(archive):
        return _unpack_missing(archive, folder, bool(own), archive)
    if own or not URL:
        return False
    # Empty, or with half of an archive, which goes when a whole one is there.
    others = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    if others - {ARCHIVE}:
        raise UserError(
            f"{folder}: no audio files there, but {min(others - {ARCHIVE})}; "
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
    except DAMAGED_ZIP as error:
        raise UserError(
            f"{source}: the archive is damaged ({error}); get a whole one and "
            "run the same command again."
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return True


def unpack_source(source, data_folder):
    """Unpack the test archive of VoxCeleb1 and copy the metadata.

    Nothing happens where both are there already.

    Arguments
    ---------
    source : str
        Folder with ``vox1_test_wav.zip`` and, if wanted, ``meta``.
    data_folder : str
        Where ``wav`` and ``meta`` go.

    Raises
    ------
    UserError
        If the archive is missing, damaged or another one.
    """
    wavs = os.path.join(data_folder, "wav")
    if not os.path.exists(os.path.join(wavs, "id10270")):
        archive = os.path.join(source, TEST_WAV)
        if not zipfile.is_zipfile(archive):
            raise UserError(
                f"{archive}: missing or no zip archive; source should be the "
                "folder of VoxCeleb's archives, or None if they are unpacked."
            )
        logger.info(f"Extracting {archive} to {data_folder}")
        partial = os.path.join(data_folder, ".unpacking")
        shutil.rmtree(partial, ignore_errors=True)
        unpacked = os.path.join(partial, "wav")
        try:
            shutil.unpack_archive(archive, partial)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"{archive}: the archive is damaged ({error}); get it again."
            ) from error
        if not os.path.isdir(unpacked):
            shutil.rmtree(partial)
            raise UserError(
                f"{archive}: holds no folder `wav`; source should have the "
                "test archive of VoxCeleb1."
            )
        os.makedirs(wavs, exist_ok=True)
        # id10270 comes last: where it is, the archive was unpacked whole.
        for speaker in sorted(os.listdir(unpacked), reverse=True):
            place = os.path.join(wavs, speaker)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(os.path.join(unpacked, speaker), place)
        shutil.rmtree(partial)
    meta = os.path.join(data_folder, META)
    if os.path.isdir(os.path.join(source, META)) and not os.path.exists(meta):
        partial = f"{meta}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(os.path.join(source, META), partial)
        os.rename(partial, meta)
