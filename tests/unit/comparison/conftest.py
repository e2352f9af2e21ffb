"""Fixtures that several test files of this folder share."""

import shutil

import pytest
from helpers.runs import change
from synthetic import TRAIN_SPEAKERS, write_corpus, write_model

from imlkd_brain.comparison.plan import run_folder

RUNS = [{"fold": 0, "seed": 1}, {"fold": 1, "seed": 2}]


@pytest.fixture
def finished(tmp_path):
    """Two runs of a teacher and a student, and a list over four speakers."""
    data = write_corpus(tmp_path / "data")
    names = [f"{s}/s{i}/1.wav" for s in TRAIN_SPEAKERS for i in range(2)]
    lines = [
        f"{int(a[:4] == b[:4])} {a} {b}\n"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    trials = data / "trials.txt"
    trials.write_text("".join(lines))
    output = tmp_path / "out"
    model = write_model(tmp_path / "model", speakers=["nora", "otto"])
    for run in RUNS:
        place = run_folder(output, "p", run)
        for method, seed in (("teacher", 0), ("scratch", run["seed"])):
            shutil.copytree(model, place / method / "inference")
            change(place / method, seed)
            (place / method / "train_stats.csv").write_text(
                "epoch,updates,train seconds,valid EER\n"
                "1,10,60,20\n2,20,30,15\n"
            )
    hparams = {
        "pairs": {"p": {}},
        "runs": RUNS,
        "methods": {"scratch": {}},
        "baselines": ["scratch", "teacher"],
        "durations": [None, 0.3],
        "data_folder": str(data),
        "test_folder": str(data),
        "test_trials": None,
        "output_folder": str(output),
        "report_folder": str(tmp_path / "report"),
        "crop_seed": 1,
        "bootstrap_samples": 50,
        "plots": False,
    }
    return hparams, trials
