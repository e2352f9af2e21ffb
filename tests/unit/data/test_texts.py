"""Unit tests of ``imlkd_brain.data.texts``."""

import os

import pytest

from imlkd_brain.data.texts import read_lines
from imlkd_brain.errors import UserError
from imlkd_brain.files import csv_problems
from imlkd_brain.settings import describe


def a_list(path):
    return read_lines(path, "list", "lines")


def a_csv(path):
    with csv_problems(path), open(path) as stream:
        return list(stream)


LINES = ["1 ä/s/1 ä/s/2", "", "0 ä/s/1 b/s/1"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("last", ["", "end"])
def test_every_encoding_and_line_end_gives_the_same(
    tmp_path, end, encoding, last
):
    path = tmp_path / "list.txt"
    text = end.join(LINES) + (end if last else "")
    path.write_bytes(text.encode(encoding))
    assert read_lines(path, "list", "lines") == LINES


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"RIFF\0\0", b"\xe4 1 2\n"]
)
def test_what_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="list.txt: this is no text"):
        read_lines(path, "list", "lines")
    with pytest.raises(UserError, match="no such list"):
        read_lines(tmp_path / "none", "list", "lines")
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path, "list", "lines")


@pytest.mark.parametrize("reader", [a_list, describe, a_csv])
def test_a_pipe_is_not_waited_for(tmp_path, reader):
    """Whoever should write to it may never come."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UserError, match="pipe: is a pipe or a device"):
        reader(str(path))
