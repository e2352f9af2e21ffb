"""A handful of own recordings: docs/own_recordings.md, with short settings.

The corpus is a tree of FLAC in LibriSpeech's layout, and the trial list has a
byte-order mark, a header, labels at the end and names without a suffix.
"""

import json
from itertools import combinations
from pathlib import Path

import explain
import numpy as np
import pytest
import soundfile
import train_kd
import verify
from synthetic import HPARAMS

from imlkd_brain.models.decision import read_decision
from imlkd_brain.models.folder import load_speaker_model

OWN = HPARAMS.parent / "own"
RATE = 16000
SPEAKERS = ["103", "1034", "1040", "1069", "1081"]  # the last two are tested
QUICK = ["--device=cpu", "--noprogressbar"]


def voice(pitch, seed, seconds=1.2):
    """Harmonics and some noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
    noise = np.random.default_rng(seed).normal(size=len(time))
    return 0.2 * wave / np.abs(wave).max() + 0.02 * noise


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """``<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac``."""
    folder = tmp_path_factory.mktemp("LibriSpeech")
    for i, speaker in enumerate(SPEAKERS):
        for chapter in ("1240", "1241"):
            for number in range(2):
                name = f"{speaker}-{chapter}-{number:04d}.flac"
                path = folder / speaker / chapter / name
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = 100 * i + 10 * int(chapter) + number
                soundfile.write(path, voice(90 + 35 * i, seed), RATE)
    keys = [
        str(path.relative_to(folder).with_suffix(""))
        for speaker in SPEAKERS[-2:]
        for path in sorted((folder / speaker).rglob("*.flac"))
    ]
    lines = [
        f"{one}\t{other}\t{'target' if one[:4] == other[:4] else 'nontarget'}"
        for one, other in combinations(keys, 2)
    ]
    text = "\r\n".join(["enrol\ttest\tlabel", *lines, ""])
    (folder / "trials.txt").write_bytes(text.encode("utf-8-sig"))
    return folder


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The model in the package, trained on for a few updates."""
    folder = tmp_path_factory.mktemp("results") / "own"
    options = {
        "data_folder": corpus,
        "output_folder": folder,
        "number_of_epochs": 1,
        "batch_size": 4,
        "sentence_len": 0.5,
        "speed_perturb": "[1.0]",
    }
    train_kd.main(
        [str(OWN / "train.yaml"), *(f"--{k}={v}" for k, v in options.items())]
        + QUICK
    )
    return folder


def test_a_tree_of_flac_trains(corpus, trained):
    """Whole chapters are dev; the speakers of the list are left out."""
    assert load_speaker_model(trained).speakers == SPEAKERS[:3]
    rows = (trained / "save" / "train.csv").read_text().splitlines()[1:]
    assert len(rows) == 3 * 2 and all(".flac," in row for row in rows)
    dev = (trained / "save" / "dev.csv").read_text()
    chapter = Path(rows[0].split(",")[2]).parent.name
    assert chapter in ("1240", "1241")
    assert f"103/{chapter}/" not in dev and "103/" in dev


def test_and_is_verified_beside_the_model_that_it_came_from(
    corpus, trained, tmp_path
):
    options = {
        "data_folder": corpus,
        "output_folder": tmp_path,
        "models": f"{{package: ecapa80, own: {trained}}}",
        "durations": "[full]",
        "bootstrap_samples": 0,
        "plots": False,
        # In earnest, other speakers decide.
        "decision_list": "trials.txt",
        "store_decision": True,
        "allow_training_speakers": True,
    }
    before = (HPARAMS.parents[1] / "imlkd_brain/models/shipped").rglob("*.json")
    before = {path: path.read_bytes() for path in before}
    verify.main(
        [str(OWN / "eval.yaml"), *(f"--{k}={v}" for k, v in options.items())]
        + QUICK[:1]
    )
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert {row["model"] for row in rows} == {"package", "own"}
    assert all(0 <= row["eer"] <= 1 for row in rows)
    folder = trained / "inference"
    assert read_decision(folder, load_speaker_model(folder)).list == "trials"
    # The package's threshold is of all corpora.
    assert before == {path: path.read_bytes() for path in before}


def test_and_explained(corpus, trained, tmp_path):
    options = {
        "wav_folder": corpus,
        "output_folder": tmp_path,
        "models": f"{{teacher: ecapa80, own: {trained}}}",
        "n_verification": 2,
        "n_identification": 1,
        "durations": "[1]",
        "methods": "{gradient: null, gradient_x_input: null, random: null, "
        "integrated_gradients: {n_steps: 2}}",
        "n_bootstrap": 20,
        "figure_formats": "[]",
    }
    explain.main(
        [str(OWN / "explain.yaml"), *(f"--{k}={v}" for k, v in options.items())]
        + QUICK
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["student"] for row in results["fidelity"]} >= {"own"}
