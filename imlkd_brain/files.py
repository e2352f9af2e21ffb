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
import stat
import sys
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import torch

from imlkd_brain.errors import UserError

SUMS = "checksums.json"
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


def check_regular(path):
    """Refuse a pipe or a device, which somebody else may never fill.

    Arguments
    ---------
    path : str or pathlib.Path
        What is missing is left to whoever opens it.

    Raises
    ------
    UserError
        Naming the path.

    Example
    -------
    >>> check_regular(os.devnull)
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: /dev/null: is a pipe or a device; give a file.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: is a pipe or a device; give a file.")


def walk(folder):
    """Walk over a folder and the links in it, as ``os.walk``.

    Arguments
    ---------
    folder : str
        Where to begin.

    Yields
    ------
    place, below, names
        As ``os.walk`` does.

    Raises
    ------
    UserError
        If a link leads back to a folder that it is in: that has no end.

    Example
    -------
    >>> list(walk(getfixture("tmp_path")))[0][1:]
    ([], [])
    """
    start = os.path.abspath(folder)
    for place, below, names in os.walk(folder, followlinks=True):
        for name in below:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                continue
            target, above = os.path.realpath(path), os.path.abspath(place)
            while len(above) >= len(start):
                real = os.path.realpath(above)
                if real == target or real.startswith(target + os.sep):
                    raise UserError(
                        f"{path}: is a link to a folder that it is in; remove "
                        "the link."
                    )
                above = os.path.dirname(above)
                if above == os.path.dirname(above):
                    break
        yield place, below, names


def sha256_of(path):
    """Return the SHA-256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder):
    """Write the SHA-256 of a folder's files into it, ``checksums.json``.

    Arguments
    ---------
    folder : str or Path
        All of its files are there.
    """
    folder = Path(folder)
    sums = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    text = json.dumps(sums, indent=1)
    (folder / SUMS).write_text(text, encoding="utf-8")


def differing_sum(folder):
    """Say which file is not the one that :func:`write_sums` saw.

    Arguments
    ---------
    folder : Path
        It has ``checksums.json``.

    Returns
    -------
    str
        A few words; empty if all are there as they were.

    Raises
    ------
    OSError, ValueError, AttributeError
        If ``checksums.json`` is damaged.
    """
    sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    for name, wanted in sorted(sums.items()):
        if not os.path.isfile(folder / name):
            return f"{name} is missing"
        if sha256_of(folder / name) != wanted:
            return f"{name} has another checksum"
    return ""


def read_json(path):
    """Read a mapping that can be made again.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    dict
        Empty if there is no such file, or a damaged one.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.json"
    >>> write_json(path, {"a": 1})
    >>> read_json(path), read_json(path / "none"), path.write_text("{")
    ({'a': 1}, {}, 1)
    >>> read_json(path)
    {}
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


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


@contextmanager
def csv_problems(path):
    """Turn what the csv module complains about into a sentence.

    Arguments
    ---------
    path : str or pathlib.Path
        The CSV that is read inside.

    Raises
    ------
    UserError
        If it is no CSV, or a pipe.
    """
    check_regular(path)
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: is no readable CSV ({error}); restore it, or make it "
            "again."
        ) from error


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

    A damaged file is set aside: a training does not end for it.
    """
    _set_damaged_aside(path)
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


def _set_damaged_aside(path):
    """Rename a CSV of epochs that is not whole, and say so."""
    if not os.path.lexists(path):
        return
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            text = stream.read()
        rows = list(csv.DictReader(text.splitlines(keepends=True)))
        if not text.endswith("\n") or not rows:
            raise ValueError("it ends within a line")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError("a line has too many or too few values")
            if not row.get("epoch", "").isdigit():
                raise ValueError("a line has no epoch")
    except (OSError, ValueError, csv.Error) as error:
        os.replace(path, f"{path}.damaged")
        print(
            f"{path}: is damaged ({error}); it is set aside as {path}.damaged, "
            "and begins anew.",
            file=sys.stderr,
        )
