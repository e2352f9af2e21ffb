"""Unit tests of ``imlkd_brain.data.augmentation_data``."""

import re
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import soundfile
import torch
from helpers.noises import NAMES, RATE, wav
from helpers.prepared import rows_of
from hyperpyyaml import load_hyperpyyaml

from imlkd_brain.data import archives
from imlkd_brain.errors import UserError
from speechbrain.augment.time_domain import AddNoise
from tests.synthetic import ROOT


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


def test_trainings_that_begin_together_download_once(
    prepare, tmp_path, monkeypatch
):
    """Two at once: one downloads, the other waits for it."""
    download, count = archives._download, []

    def slow(*args):
        count.append(1)
        download(*args)
        time.sleep(0.3)

    monkeypatch.setattr(archives, "_download", slow)
    paths = [str(tmp_path / name / "noise.csv") for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda path: prepare(csv_file=path), paths))
    assert [list(rows) for rows in found] == [NAMES, NAMES]
    assert len(count) == 1
    assert [p.name for p in (tmp_path / "A").iterdir()] == ["noise"]


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


def test_without_an_archive_files_have_to_be_there(prepare, tmp_path):
    with pytest.raises(UserError, match="noise: no .wav files there.*noise"):
        prepare(URL=None)
    place = tmp_path / "A" / "noise"
    place.mkdir(parents=True)
    (place / "own.wav").write_bytes(wav())
    assert list(prepare(URL=None)) == ["own.wav"]


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
