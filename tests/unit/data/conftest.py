"""Fixtures that several test files of this folder share."""

import zipfile

import pytest
from helpers.noises import wav
from helpers.prepared import rows_of, write_wav

from imlkd_brain.data.augmentation_data import prepare_augmentation_data


@pytest.fixture
def voxceleb(tmp_path):
    """Six speakers of two sessions of two utterances of 7 s; two lists."""
    data = tmp_path / "data"
    for speaker in "abcdef":
        for session in "xy":
            for utterance in "12":
                write_wav(
                    data / "wav" / speaker / session / f"{utterance}.wav", 7
                )
    (data / "test.txt").write_text(
        "1 a/x/1.wav a/y/2.wav\n0 a/x/1.wav b/x/2.wav\n"
    )
    (data / "dev.txt").write_text("1 c/x/1.wav c/y/1.wav\n")
    return data


@pytest.fixture
def archive(tmp_path):
    """A zip of three noises, as a file:// URL with a space in its path."""
    path = tmp_path / "a server" / "noises.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        for i in range(3):
            file.writestr(f"noises/n.{i}.wav", wav(0.5 + 0.1 * i))
        file.writestr("noises/licence.txt", "free")
    return path.as_uri()


@pytest.fixture
def prepare(tmp_path, archive):
    """Prepare noise for one data folder; the rows, by file name."""

    def prepare(**options):
        options = {
            "URL": archive,
            "data_folder": str(tmp_path / "A"),
            "name": "noise",
            "csv_file": str(tmp_path / "save" / "noise.csv"),
            **options,
        }
        prepare_augmentation_data(**options)
        found = rows_of(options["csv_file"])
        return {row["wav"].rpartition("/")[2]: row for row in found}

    return prepare
