"""Writes files whole or not at all: text, JSON, CSV, cached results.

A file is first written under another name and then renamed, so an interrupted
program leaves the old file or the new one, never half of it.

Authors: IML-KD contributors
"""

import csv
import hashlib
import json
import math
import os
import pickle
import shutil
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import torch

# What zipfile raises for a damaged archive: NotImplementedError for a method
# of compression that it does not know, RuntimeError for an encrypted file.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def write_whole(path, text):
    """Write a text file, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        Where to.
    text : str
        Its content, written as UTF-8.
    """
    with replacing(path) as stream:
        stream.write(text)


def write_json(path, content, indent=2, **options):
    """Write a JSON file, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        Where to.
    content : dict or list
        What JSON can hold.
    indent : int
        Spaces of a level.
    **options
        More arguments of ``json.dump``.
    """
    with replacing(path) as stream:
        json.dump(content, stream, indent=indent, **options)
        stream.write("\n")


def free_bytes(folder):
    """Return how much room the disk of a folder has, also of one to be made.

    Arguments
    ---------
    folder : str or pathlib.Path
        It may be missing.

    Returns
    -------
    int
        Bytes.

    Example
    -------
    >>> free_bytes(getfixture("tmp_path") / "not" / "there") > 0
    True
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def in_place_of(path):
    """Write a file under a temporary name and rename it when it is complete.

    After an error the temporary file is removed and the old file stays.

    Arguments
    ---------
    path : str or pathlib.Path
        The file's place.

    Yields
    ------
    temporary : pathlib.Path
        Where to write it, in the same folder.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path):
    """Open a text file that takes its place only when it is complete."""
    with in_place_of(path) as temporary:
        # A CSV writer chooses its own newlines.
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            yield stream


def replace_folder(building, folder):
    """Put a finished folder in the place of an older one.

    The older one goes when the new one is there, so one of them always is.

    Arguments
    ---------
    building : pathlib.Path
        The finished folder, on the same disk.
    folder : pathlib.Path
        Its place.
    """
    older = folder.with_name(folder.name + ".older")
    shutil.rmtree(older, ignore_errors=True)
    if folder.exists():
        os.rename(folder, older)
    os.replace(building, folder)
    shutil.rmtree(older, ignore_errors=True)


def zip_damage(path):
    """Say what is wrong with a ZIP file, such as torch writes.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    str
        A few words; empty if every member has its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except DAMAGED_ZIP as error:
        return str(error) or type(error).__name__
    return "" if member is None else f"{member} has another checksum"


def load_whole(path):
    """Read what torch wrote, without pickle.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    object
        Tensors, or lists and dicts of them, on the CPU; None if there is no
        such file, or a damaged one.
    """
    try:
        # torch does not look at the checksums of its own files.
        if not zip_damage(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, pickle.UnpicklingError, *DAMAGED_ZIP):
        pass
    return None


def cached(folder, name, ingredients, compute):
    """Return a stored result, or compute and store it.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where results are stored; made if missing.
    name : str
        The result's file, without its suffix ``.pt``.
    ingredients : dict or list
        Everything that the result depends on. A file of other ingredients,
        or a damaged one, is replaced.
    compute : callable
        Returns the result: tensors, or lists and dicts of them.

    Returns
    -------
    object
        As ``compute`` returned it.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> cached(folder, "sum", [1, 2], lambda: 1 + 2)
    3
    >>> cached(folder, "sum", [1, 2], lambda: 1 / 0)
    3
    """
    path, signature = Path(folder) / f"{name}.pt", _signature(ingredients)
    kept = load_whole(path)
    if isinstance(kept, dict) and kept.get("signature") == signature:
        return kept["data"]
    data = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with in_place_of(path) as temporary:
        torch.save({"signature": signature, "data": data}, temporary)
    return data


def is_cached(folder, name, ingredients):
    """Whether :func:`cached` finds a result there and computes nothing."""
    kept = load_whole(Path(folder) / f"{name}.pt")
    found = kept.get("signature") if isinstance(kept, dict) else None
    return found == _signature(ingredients)


def _signature(ingredients):
    """Hash of what a stored result depends on."""
    return hashlib.sha256(
        json.dumps(ingredients, sort_keys=True, default=str).encode()
    ).hexdigest()


def write_csv(path, rows):
    """Write rows (dicts) as a CSV with the union of their columns."""
    if not rows:
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def without_nan(value):
    """Replace NaN and infinity by None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def append_epoch(path, row):
    """Add an epoch to a CSV; a repeated epoch replaces the later ones.

    Arguments
    ---------
    path : str
        The CSV; made if missing.
    row : dict
        Values by column, with the number ``epoch``. Rows may have different
        columns; the file has all of them.
    """
    rows = []
    if os.path.isfile(path):
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    rows = [r for r in rows if int(r["epoch"]) < row["epoch"]] + [row]
    columns = list(dict.fromkeys(key for r in rows for key in r))
    with replacing(path) as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
