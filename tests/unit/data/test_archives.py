"""Unit tests of ``imlkd_brain.data.archives``."""

import urllib.request
import zipfile

import pytest
from helpers.noises import NAMES, wav
from helpers.prepared import speakers_of
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.data import archives
from imlkd_brain.errors import UserError


@pytest.mark.parametrize("stage", ["_download", "_unpack_missing"])
def test_an_interrupted_download_leaves_nothing(
    prepare, tmp_path, monkeypatch, stage
):
    whole = getattr(archives, stage)

    def interrupt(*arguments):
        if stage == "_unpack_missing":
            whole(*arguments)
        else:
            open(arguments[1], "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    assert not list((tmp_path / "A").iterdir())
    monkeypatch.setattr(archives, stage, whole)
    assert list(prepare()) == NAMES


@pytest.mark.parametrize("state", ["empty", "half an archive", "half a folder"])
def test_what_an_interrupted_speechbrain_left_is_made_whole(
    prepare, archive, tmp_path, state
):
    folder = tmp_path / "A" / "noise"
    folder.mkdir(parents=True)
    content = (tmp_path / "a server" / "noises.zip").read_bytes()
    if state == "half an archive":
        (folder / "data.zip").write_bytes(content[:1000])
    if state == "half a folder":
        (folder / "data.zip").write_bytes(content)
        (folder / "noises").mkdir()
        (folder / "noises" / "n.0.wav").write_bytes(wav(0.5))
        (folder / "noises" / "n.1.wav").write_bytes(wav(0.6)[:5000])
    # SpeechBrain's CSV of an empty folder has a header alone.
    (tmp_path / "save").mkdir()
    (tmp_path / "save" / "noise.csv").write_text(
        "ID,duration,wav,wav_format,wav_opts\n"
    )
    rows = prepare()
    assert list(rows) == NAMES
    assert float(rows["n.1.wav"]["duration"]) == pytest.approx(0.6)


def test_without_a_network_a_sentence_says_what_to_do(prepare, tmp_path):
    url = f"file://{tmp_path}/none.zip"
    with pytest.raises(UserError) as error:
        prepare(URL=url)
    message = str(error.value)
    assert message.startswith(f"{url}: cannot be downloaded")
    assert f"save it as {tmp_path}/A/noise/data.zip" in message
    assert "`--augmentation False`" in message
    # And doing it helps.
    folder = tmp_path / "A" / "noise"
    folder.mkdir()
    content = (tmp_path / "a server" / "noises.zip").read_bytes()
    (folder / "data.zip").write_bytes(content)
    assert list(prepare(URL=url)) == NAMES


def test_a_download_that_fails_is_a_sentence(prepare, monkeypatch):
    def fail(source, path):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("imlkd_brain.data.archives.download_file", fail)
    with pytest.raises(UserError, match="no route to host.*save it as"):
        prepare(URL="https://nowhere.invalid/noises.zip")

    def login_page(source, path):
        with open(path, "w") as file:
            file.write("<html>")

    monkeypatch.setattr("imlkd_brain.data.archives.download_file", login_page)
    with pytest.raises(UserError, match="no zip archive"):
        prepare(URL="https://nowhere.invalid/noises.zip")


def test_a_damaged_archive_is_a_sentence(prepare, archive, tmp_path):
    path = tmp_path / "a server" / "noises.zip"
    content = bytearray(path.read_bytes())
    content[2000] ^= 255  # in the samples of the first file
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"noises.zip: the archive is damaged"):
        prepare()
    assert not list((tmp_path / "A").iterdir())


def test_source_archive_is_unpacked_once(voxceleb, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "vox1_test_wav.zip", "w") as archive:
        archive.write(
            voxceleb / "wav" / "a" / "x" / "1.wav", "wav/id10270/x/1.wav"
        )
    for _ in range(2):
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), None, ["train"], source=str(source)
        )
    assert "id10270" in speakers_of(tmp_path / "train.csv")
    assert not (voxceleb / ".unpacking").exists()
