"""Unit tests of ``imlkd_brain.data.sources``."""

import pytest
from helpers.prepared import speakers_of, write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.errors import UserError


def test_several_lists_are_separated_by_commas(voxceleb, tmp_path):
    lists = f"{voxceleb / 'test.txt'}, {voxceleb / 'dev.txt'}"
    prepare_voxceleb(str(voxceleb), str(tmp_path), lists)
    assert speakers_of(tmp_path / "train.csv") == set("def")
    assert speakers_of(tmp_path / "enrol.csv") == set("ac")


def test_two_data_folders_and_a_file_in_both(tmp_path):
    write_wav(tmp_path / "one" / "wav" / "a" / "x" / "1.wav", 3)
    write_wav(tmp_path / "two" / "wav" / "b" / "x" / "1.wav", 3)
    both = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    prepare_voxceleb(both, str(tmp_path), None, ["train"])
    assert speakers_of(tmp_path / "train.csv") == {"a", "b"}
    write_wav(tmp_path / "two" / "wav" / "a" / "x" / "1.wav", 3)
    with pytest.raises(UserError, match="one data folder"):
        prepare_voxceleb(both, str(tmp_path / "again"), None, ["train"])
