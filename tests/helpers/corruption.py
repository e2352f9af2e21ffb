"""What can happen to a file: every kind of damage, under its name."""

import os
import shutil

import numpy as np

GARBAGE = np.random.default_rng(29).bytes(4096)


def emptied(path):
    path.write_bytes(b"")


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_byte_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def garbage(path):
    path.write_bytes(GARBAGE)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def of_another_type(path):
    path.write_text("[1, 2]\n")


def pickled(path):
    """A pickle that would write a file if it were loaded."""
    mark = f"{path}.executed"
    call = f"cposix\nsystem\n(Vtouch '{mark}'\ntR."
    path.write_bytes(call.encode())


def a_folder(path):
    path.unlink()
    path.mkdir()


def gone(path):
    path.unlink()


def a_dangling_link(path):
    path.unlink()
    os.symlink(path.with_name("nowhere"), path)


def a_link_to_itself(path):
    path.unlink()
    os.symlink(path, path)


CORRUPTIONS = {
    function.__name__: function
    for function in (
        emptied,
        halved,
        one_byte_short,
        garbage,
        flipped,
        of_another_type,
        pickled,
        a_folder,
        gone,
        a_dangling_link,
        a_link_to_itself,
    )
}


def replaced_by(path, other):
    """Another run's file in its place."""
    if path.is_dir():
        shutil.rmtree(path)
    shutil.copy(other, path)


def nothing_ran(folder):
    """Whether no pickle in a folder was executed."""
    return not list(folder.rglob("*.executed"))
