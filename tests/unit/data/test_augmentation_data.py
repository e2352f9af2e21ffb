"""Noise and room responses: whole or absent, and a CSV of files that exist."""

import csv
import io
import re
import urllib.request
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from imlkd_brain.data import augmentation_data
from imlkd_brain.data.augmentation_data import prepare_augmentation_data
from imlkd_brain.errors import UserError
from speechbrain.augment.time_domain import AddNoise
from tests.synthetic import ROOT

RATE = 16000


def wav(seconds=0.5, rate=RATE, channels=1):
    """A wav file of noise as bytes."""
    samples = np.random.default_rng(0).uniform(
        -0.1, 0.1, (int(seconds * rate), channels)
    )
    file = io.BytesIO()
    soundfile.write(file, samples, rate, "PCM_16", format="WAV")
    return file.getvalue()


def rows_of(path):
    """The rows of a CSV as dicts."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


NAMES = ["n.0.wav", "n.1.wav", "n.2.wav"]


def test_archive_becomes_a_csv_that_addnoise_reads(prepare, tmp_path):
    rows = prepare()
    assert list(rows) == NAMES
    assert [float(row["duration"]) for row in rows.values()] == pytest.approx(
        [0.5, 0.6, 0.7]
    )
    assert sorted(p.name for p in (tmp_path / "A").iterdir()) == ["noise"]
    add_noise = AddNoise(str(tmp_path / "save" / "noise.csv"))
    clean = torch.full((2, 4000), 0.1)
    noisy = add_noise(clean, torch.ones(2))
    assert noisy.shape == clean.shape and not torch.equal(noisy, clean)


@pytest.mark.parametrize("existing", [None, "B"])
def test_of_several_data_folders_one_is_taken(prepare, tmp_path, existing):
    """The one that has the files, else the first; none is named `A,`."""
    if existing:
        place = tmp_path / existing / "noise"
        place.mkdir(parents=True)
        (place / "own.wav").write_bytes(wav())
    rows = prepare(data_folder=f"{tmp_path / 'A'}, {tmp_path / 'B'}")
    if existing:
        assert [row["wav"] for row in rows.values()] == [str(place / "own.wav")]
        assert not (tmp_path / "A").exists()
    else:
        assert rows["n.0.wav"]["wav"].startswith(str(tmp_path / "A" / "noise/"))
    assert not list(tmp_path.glob("*,*"))


def test_a_folder_of_ones_own_is_used_as_it_is(prepare, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "one.wav").write_bytes(wav())
    rows = prepare(dest_folder=str(own), URL="https://nowhere.invalid/n.zip")
    assert list(rows) == ["one.wav"]
    # A file more is noticed, without anything being asked of the user.
    (own / "two.wav").write_bytes(wav())
    assert list(prepare(dest_folder=str(own))) == ["one.wav", "two.wav"]
    # SpeechBrain downloads its archive into such a folder, and leaves it so.
    with zipfile.ZipFile(own / "data.zip", "w") as file:
        file.writestr("noises/other.wav", wav())
    assert list(prepare(dest_folder=str(own))) == ["one.wav", "two.wav"]


@pytest.mark.parametrize("stage", ["_download", "_unpack_missing"])
def test_an_interrupted_download_leaves_nothing(
    prepare, tmp_path, monkeypatch, stage
):
    whole = getattr(augmentation_data, stage)

    def interrupt(*arguments):
        if stage == "_unpack_missing":
            whole(*arguments)
        else:
            open(arguments[1], "wb").close()
        raise KeyboardInterrupt

    monkeypatch.setattr(augmentation_data, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare()
    assert not list((tmp_path / "A").iterdir())
    monkeypatch.setattr(augmentation_data, stage, whole)
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

    monkeypatch.setattr(
        "imlkd_brain.data.augmentation_data.download_file", fail
    )
    with pytest.raises(UserError, match="no route to host.*save it as"):
        prepare(URL="https://nowhere.invalid/noises.zip")

    def login_page(source, path):
        with open(path, "w") as file:
            file.write("<html>")

    monkeypatch.setattr(
        "imlkd_brain.data.augmentation_data.download_file", login_page
    )
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


def test_a_csv_of_the_users_is_kept_or_named(prepare, tmp_path):
    own, path = tmp_path / "own.wav", tmp_path / "own.csv"
    own.write_bytes(wav())
    text = f"ID,duration,wav,wav_format,wav_opts\na,0.5,{own},wav,\n"
    path.write_text(text)
    assert list(prepare(csv_file=str(path))) == ["own.wav"]
    assert path.read_text() == text and not (tmp_path / "A").exists()
    own.unlink()
    with pytest.raises(UserError, match="own.csv: .*own.wav.*delete the CSV"):
        prepare(csv_file=str(path))
    assert path.read_text() == text


def test_a_file_that_went_is_no_row(prepare, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in ("one", "two"):
        (own / f"{name}.wav").write_bytes(wav())
    prepare(dest_folder=str(own))
    (own / "two.wav").unlink()
    assert list(prepare(dest_folder=str(own))) == ["one.wav"]
    (own / "one.wav").unlink()
    (own / "notes.txt").write_text("none")
    with pytest.raises(UserError, match="but notes.txt.*data_folder_noise"):
        prepare(dest_folder=str(own))


def test_several_channels(prepare, archive, tmp_path):
    """The first is kept of a download; a user's own file is not changed."""
    with zipfile.ZipFile(tmp_path / "a server" / "noises.zip", "a") as file:
        file.writestr("noises/wide.wav", wav(channels=2))
    rows = prepare()
    assert soundfile.info(rows["wide.wav"]["wav"]).channels == 1
    assert float(rows["wide.wav"]["duration"]) == 0.5
    own = tmp_path / "own"
    own.mkdir()
    (own / "wide.wav").write_bytes(wav(channels=2))
    with pytest.raises(UserError, match="wide.wav: 2 channels"):
        prepare(dest_folder=str(own))
    assert soundfile.info(own / "wide.wav").channels == 2


def test_files_at_another_rate_are_named(prepare, tmp_path):
    with pytest.raises(UserError, match="--augmentation_sample_rate 16000"):
        prepare(sample_rate=8000)
    assert list(prepare(sample_rate=RATE)) == NAMES
    with open(tmp_path / "A" / "noise" / "bad.wav", "wb") as file:
        file.write(b"no audio")
    with pytest.raises(UserError, match="bad.wav: this audio file is broken"):
        prepare()


@pytest.mark.parametrize("name", ["iml_kd", "train_teacher"])
def test_the_yamls_hand_over_what_is_needed(name, tmp_path, archive):
    with open(ROOT / "hparams" / f"{name}.yaml", encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(
            stream,
            {
                "data_folder": f"{tmp_path / 'A'},{tmp_path / 'B'}",
                "output_folder": str(tmp_path / "out"),
                "NOISE_DATASET_URL": archive,
                "RIR_DATASET_URL": archive,
            },
        )
    for kind in ("noise", "rir"):
        hparams[f"prepare_{kind}_data"]()
        rows = rows_of(hparams[f"{kind}_annotation"])
        assert len(rows) == 3
        assert all(f"/A/{kind}/" in row["wav"] for row in rows)
    assert hparams["add_noise"].csv_file == hparams["noise_annotation"]


def test_the_last_checkpoint_is_what_every_training_yaml_exports():
    """The dev figure of a few speakers is not to choose the model unasked."""
    found = {
        path.name: re.findall(r"(?m)^export: *(\w+)", path.read_text())
        for path in (ROOT / "hparams").rglob("*.yaml")
    }
    assert [values for values in found.values() if values]
    assert all(values in ([], ["last"]) for values in found.values())
