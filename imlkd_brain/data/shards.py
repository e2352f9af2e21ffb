"""Packs the audio files of a training into shards, a few large tar files.

They are for disks where opening a file is what costs, such as network file
systems; see :mod:`imlkd_brain.data.in_shard` for how a training reads them.
WebDataset reads the shards as well: a member is ``<key>.<extension>``, and no
key has a dot.

Authors: IML-KD contributors
"""

import argparse
import hashlib
import json
import os
import re
import stat
import tarfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from imlkd_brain.data.annotations import read_annotation
from imlkd_brain.data.in_shard import (
    FORMAT,
    INDEX,
    ROOT,
    record_path,
    shard_path,
)
from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.files import (
    free_bytes,
    in_place_of,
    read_json,
    sha256_of,
    write_json,
)
from imlkd_brain.locks import sole_use

SHARD_SIZE = 1e9  # bytes
# Of a member beside its bytes: a header, a long name and its header, padding
OVERHEAD = 4 * tarfile.BLOCKSIZE


def build(annotation, data_folder, folder, shard_size=SHARD_SIZE):
    """Pack the files of a training into shards, or go on with it.

    Shards that are whole stay, by their checksums.

    Arguments
    ---------
    annotation : str
        The CSV of the training, as ``prepare_voxceleb`` writes it.
    data_folder : str
        Stands for ``$data_root`` in it.
    folder : str or pathlib.Path
        Where the shards go; made if missing.
    shard_size : float
        Bytes of audio in a shard, at most; a longer file has its own.

    Returns
    -------
    dict
        The index: ``n_files``, ``n_shards`` and what it was built of.

    Raises
    ------
    UserError
        If a file is missing, the disk has too little room, or the folder holds
        something else.
    """
    folder = Path(folder)
    with sole_use(folder, "build of shards", "--shards"):
        plan = _plan(annotation, data_folder, shard_size)
        n_files = sum(map(len, plan))
        signature = hashlib.sha256(
            json.dumps([[f[::2] for f in files] for files in plan]).encode()
        ).hexdigest()
        index = {"format": FORMAT, "signature": signature, "complete": False}
        index |= {"n_shards": len(plan), "n_files": n_files}
        _claim(folder, index)
        for half in folder.glob(".shard-*.tmp"):
            half.unlink()  # of a build that was killed
        left = []
        for number, files in enumerate(tqdm(plan, "looking", unit="shard")):
            if not _is_whole(folder, number, signature):
                left.append((number, files))
        _check_room(folder, left)
        with tqdm(
            total=n_files, initial=n_files - sum(len(f) for _, f in left)
        ) as bar:
            first = np.cumsum([0, *map(len, plan)]).tolist()
            for number, files in left:
                record = _write(folder, number, files, first[number], bar)
                record = {"signature": signature, **record}
                write_json(record_path(folder, number), record, indent=None)
        index["complete"] = True
        write_json(folder / INDEX, index)
    return index


def _plan(annotation, data_folder, shard_size):
    """The shards: lists of (name in the CSV, path, bytes) of their files."""
    if not shard_size > 0:
        raise UserError(
            f"--shard_size is {shard_size:g}, but must be bytes above 0."
        )
    plan, room = [], 0
    rows = read_annotation(annotation, ROOT)
    names = dict.fromkeys(row["wav"] for row in rows.values())
    for name in tqdm(names, "sizes", unit="file"):
        path = name.replace(ROOT, str(data_folder))
        try:
            status = os.stat(path)
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            state = "missing" if status is None else "no file"
            raise UserError(
                f"{path}: is {state}, but {annotation} names it; check "
                "--data_folder, or prepare the data again."
            )
        if not plan or status.st_size > room:
            plan.append([])
            room = shard_size
        plan[-1].append((name, path, status.st_size))
        room -= status.st_size
    return plan


def _claim(folder, index):
    """Begin an index, or refuse a folder that holds something else."""
    found = read_json(folder / INDEX)
    if not found and not any(folder.glob("shard-*.tar")):
        write_json(folder / INDEX, index)
    elif found.get("signature") != index["signature"]:
        raise UserError(
            f"{folder}: holds shards of other files, or of another "
            "--shard_size; give --shards another folder, or remove this one."
        )


def _is_whole(folder, number, signature):
    """Whether a shard is there as it was built."""
    path = shard_path(folder, number)
    record = read_json(record_path(folder, number))
    return (
        record.get("signature") == signature
        and path.is_file()
        and path.stat().st_size == record["bytes"]
        and sha256_of(path) == record["sha256"]
    )


def _check_room(folder, left):
    """Refuse a disk that has no room for the shards that are left."""
    needed = (
        sum(size + OVERHEAD for _, files in left for _, _, size in files)
        + len(left) * tarfile.RECORDSIZE
    )
    free = free_bytes(folder)
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:.1f} GB are free and {needed / 1e9:.1f} GB "
            "are needed for the shards; free some space, or give --shards a "
            "folder on another disk."
        )


def _write(folder, number, files, first, bar):
    """Write a shard, and say what is where in it."""
    path, where = shard_path(folder, number), []
    with in_place_of(path) as temporary:
        with (
            open(temporary, "wb") as stream,
            tarfile.open(
                fileobj=stream, mode="w", format=tarfile.GNU_FORMAT
            ) as tar,
        ):
            for place, (name, source, size) in enumerate(files):
                info = tarfile.TarInfo(member_name(first + place, name))
                info.size = size
                with open(source, "rb") as audio:
                    if os.fstat(audio.fileno()).st_size != size:
                        raise UserError(
                            f"{source}: has changed just now; run the same "
                            "command again when nothing writes there."
                        )
                    tar.addfile(info, audio)
                blocks = -(-size // tarfile.BLOCKSIZE)
                offset = stream.tell() - blocks * tarfile.BLOCKSIZE
                where.append((name, offset, size))
                bar.update()
        record = {"bytes": temporary.stat().st_size, "files": where}
        record["sha256"] = sha256_of(temporary)
    return record


def member_name(number, name):
    """Return the name of a file in a shard, as WebDataset wants it.

    Example
    -------
    >>> member_name(7, "$data_root/wav/id10001/1zcIwhmdeo4/00001.wav")
    '00000007-id10001-1zcIwhmdeo4-00001.wav'
    """
    extension = os.path.splitext(name)[1].lower()
    key = re.sub(r"\W+", "-", utterance_key(name)).strip("-")
    return f"{number:08d}-{key}{extension}"


def main(arguments=None):
    """Parse the command line, build, and say how to train with the shards."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name if __spec__ else __name__}",
        description="Pack the audio files of a training into large tar files.",
    )
    parser.add_argument(
        "--annotation", required=True, help="the training's save/train.csv"
    )
    parser.add_argument(
        "--data_folder", required=True, help="the training's data_folder"
    )
    parser.add_argument("--shards", required=True, help="where the shards go")
    parser.add_argument(
        "--shard_size",
        type=float,
        default=SHARD_SIZE,
        help="bytes of audio in a shard (default: %(default)g)",
    )
    chosen = parser.parse_args(arguments)
    index = build(
        chosen.annotation, chosen.data_folder, chosen.shards, chosen.shard_size
    )
    print(
        f"{index['n_files']} files in {index['n_shards']} shards; train with "
        f"--train_shards {chosen.shards}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
