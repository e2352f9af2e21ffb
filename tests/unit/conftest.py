"""Fixtures that several test files of this folder share."""

from pathlib import Path

import compare
import numpy as np
import pytest
import soundfile
from helpers.runs import finish
from synthetic import ROOT

from imlkd_brain.comparison.plan import plan

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]

RATE = 16000


@pytest.fixture
def hparams(tmp_path):
    trials = tmp_path / "data" / "trials"
    trials.mkdir(parents=True)
    for fold in (0, 1):
        for part in ("dev", "test"):
            (trials / f"fold{fold}_{part}.txt").write_text("1 a b\n")
    return {
        "output_folder": str(tmp_path / "out"),
        "data_folder": str(tmp_path / "data"),
        "runs": RUNS,
        "train_teacher": "teacher.yaml",
        "train_student": "student.yaml",
        "teacher_overrides": {"number_of_epochs": 3},
        "student_overrides": {"number_of_epochs": 4},
        "pairs": {"p": {"teacher": {"lr": 0.1}, "student": {"lr": 0.2}}},
        "methods": {
            "scratch": {"method": "scratch"},
            "long": {"method": "iml_kd", "number_of_epochs": 9},
        },
        "device": "cpu",
        "teacher_cache": True,
        "train_script": Path(compare.__file__).with_name("train_kd.py"),
    }


@pytest.fixture
def trained(hparams, tmp_path, monkeypatch):
    """Every run of a comparison as finished, by YAMLs of its own."""
    monkeypatch.setattr(
        "imlkd_brain.trained_with.model_identity", lambda _: "before"
    )
    for part in ("teacher", "student"):
        path = tmp_path / f"{part}.yaml"
        yaml = ROOT / "hparams" / "minivox" / "iml_kd.yaml"
        path.write_text(yaml.read_text())
        hparams[f"train_{part}"] = str(path)
    for job in plan(hparams):
        finish(job)
    return hparams


@pytest.fixture
def corpus(tmp_path):
    """Noise of 3 speakers in 2 packs, 2 utterances each, 1 to 2 seconds."""
    rng = np.random.default_rng(0)
    for index, speaker in enumerate(("x-a", "x-b", "y-c")):
        for utterance in range(2):
            path = tmp_path / "wav" / speaker / "s1" / f"0000{utterance}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = rng.uniform(-0.5, 0.5, RATE + 4000 * (index % 2))
            soundfile.write(path, samples.astype(np.float32), RATE)
    (tmp_path / "list.txt").write_text(
        "1 x-a/s1/00000.wav x-a/s1/00001.wav\n"
        "0 x-a/s1/00000.wav x-b/s1/00001.wav\n"
        "1 x-b/s1/00000.wav x-b/s1/00001.wav\n"
        "0 y-c/s1/00000.wav x-a/s1/00001.wav\n"
    )
    return tmp_path
