"""compare.py as a process on real speech: stop, go on, report, refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare
import pandas as pd
import pytest
import yaml
from helpers.scripts import run_script

from imlkd_brain.comparison.plan import CACHE
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.shipped import default_model

RECIPE = Path(compare.__file__).resolve().parent
SMALL = {
    "embedding_model": {
        "channels": [8, 8, 8, 8, 24],
        "attention_channels": 8,
        "se_channels": 8,
    },
    "lin_neurons": 16,
    "n_mels": 40,
    "batch_size": 16,
    "sentence_len": 1.0,
    "speed_perturb": [1.0],
    "valid_durations": ["full", 1.0],
    "number_of_epochs": 2,
    "lr_step_epochs": 1,
}


@pytest.fixture
def options(tiny_minivox, tmp_path):
    """A comparison of seconds: one fold, a teacher and two students."""
    pytest.importorskip("matplotlib")
    data = tmp_path / "data"
    (data / "trials").mkdir(parents=True)
    (data / "wav").symlink_to(tiny_minivox / "wav")
    for part in ("dev", "test"):
        shutil.copy(
            tiny_minivox / "trials" / f"{part}.txt",
            data / "trials" / f"fold0_{part}.txt",
        )
    return {
        "output_folder": str(tmp_path / "out"),
        "report_folder": str(tmp_path / "out" / "main"),
        "data_folder": str(data),
        "runs": [{"fold": 0, "seed": 7}],
        "teacher": None,
        "answers": {},
        "store_answers": "hparams/minivox/teach.yaml",
        "train_teacher": "hparams/minivox/train_teacher.yaml",
        "train_student": "hparams/minivox/iml_kd.yaml",
        "teacher_overrides": SMALL,
        "student_overrides": {**SMALL, "durations": [0.5, 0.8]},
        "pairs": {"tiny": {"teacher": {}, "student": {}}},
        "methods": {
            "scratch": {"method": "scratch"},
            "iml_kd_plus": {"method": "iml_kd_plus"},
        },
        "baselines": ["scratch", "teacher"],
        "evaluate": "test",
        "test_folder": str(data),
        "test_trials": None,
        "durations": ["full", 1.0],
        "crop_seed": 1,
        "bootstrap_samples": 20,
        "plots": True,
        "jobs": 2,
        "threads": 1,
        "teacher_cache": True,
    }


def written(options, tmp_path):
    """The YAML of a comparison."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(options))
    return str(path)


def start(options, tmp_path):
    """Start the script as a user does, nothing installed but SpeechBrain."""
    path = written(options, tmp_path)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONPATH", None)
    return subprocess.Popen(
        [sys.executable, "compare.py", path],
        cwd=RECIPE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_comparison_goes_on_and_reports(
    options, tmp_path, monkeypatch, capsys
):
    place = tmp_path / "out" / "runs" / "tiny" / "fold0_seed7"
    teacher = place / "teacher" / "inference" / "hyperparams.yaml"
    process = start(options, tmp_path)
    for _ in range(1200):
        if teacher.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130, said[-3000:]
    assert "run the same command again to go on" in said
    finished = teacher.stat().st_mtime_ns

    process = start(options, tmp_path)
    table, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    assert teacher.stat().st_mtime_ns == finished
    # Given back when the last student of the run was done.
    assert not (place / CACHE).exists()
    report = tmp_path / "out" / "main"
    assert (report / "table.md").read_text().strip() in table
    for name in ("curves", "methods", "differences"):
        assert (report / f"{name}.png").stat().st_size > 0
    results = json.loads((report / "results.json").read_text())
    assert results["runs"] == options["runs"] and results["date"]
    eers = {
        row["method"]: row["mean"]
        for row in results["summary"]
        if (row["group"], row["figure"], row["duration"])
        == ("all", "eer", "pooled")
    }
    assert set(eers) == {"teacher", "scratch", "iml_kd_plus"}
    # All of them have learnt something of speakers they have not seen.
    assert max(eers.values()) < 50

    # Another list for all runs: of strangers, and of a training speaker.
    lists = Path(options["data_folder"], "trials")
    options["test_trials"] = str(lists / "fold0_dev.txt")
    options["report_folder"] = str(tmp_path / "out" / "dev")
    options.update(test_teacher=False, baselines=["scratch"])
    monkeypatch.chdir(RECIPE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    capsys.readouterr()
    compare.main([written(options, tmp_path)])
    other = capsys.readouterr().out
    assert other != table and (tmp_path / "out" / "dev" / "table.md").is_file()
    rows = pd.read_csv(tmp_path / "out" / "dev" / "runs.csv")
    assert set(rows["method"]) == {"scratch", "iml_kd_plus"}
    rows = pd.read_csv(place / "csv" / "train.csv")
    wavs = [Path(wav).parts[-3:] for wav in rows["wav"].unique()[:40]]
    known = tmp_path / "known.txt"
    known.write_text(
        "".join(
            f"{int(wav[0] == wavs[0][0])} {'/'.join(wavs[0])} {'/'.join(wav)}\n"
            for wav in wavs[1:]
        )
    )
    options["test_trials"] = str(known)
    with pytest.raises(UserError, match="is a training speaker") as caught:
        compare.main([written(options, tmp_path)])
    assert f"{known}: {wavs[0][0]} is a training" in str(caught.value)

    options["test_trials"] = None
    options["methods"]["scratch"]["number_of_epochs"] = 3
    # This process holds the other report until it ends.
    options["report_folder"] = str(tmp_path / "out" / "more")
    done = run_script("compare.py", written(options, tmp_path))
    said = done.stderr
    assert done.returncode == 2 and "Traceback" not in said
    assert "scratch: trained with other options" in said
    assert "number_of_epochs: 2 before, 3 now" in said


@pytest.mark.slow
def test_one_teacher_is_asked_once_for_all_runs_and_some_have_labels(
    options, tmp_path
):
    """The fold's own list of labelled speakers; answers are shared."""
    trials = Path(options["data_folder"], "trials")
    tested = {
        Path(wav).parts[0]
        for part in ("dev", "test")
        for line in (trials / f"fold0_{part}.txt").read_text().splitlines()
        for wav in line.split()[1:]
    }
    everybody = {path.name for path in (trials.parent / "wav").iterdir()}
    few = sorted(everybody - tested)[:3]
    (tmp_path / "fold0_few.txt").write_text("\n".join(few))
    options["teacher"] = str(default_model())
    options["answers"] = {
        "sentence_len": 1.0,
        "durations": [0.5, 0.8],
        "speed_perturb": [1.0],
        "n_mels": 40,
        "attribution_target": "own_embedding",
        "answers_variants": 1,
    }
    options["student_overrides"].update(
        labelled_speakers=str(tmp_path / "fold{fold}_few.txt"),
        attribution_target="own_embedding",
        teacher_classes="prototypes",
        answers_variants=1,
        number_of_epochs=1,
    )
    options["methods"] = {
        "scratch": {"method": "scratch"},
        "iml_kd_attention": {"method": "iml_kd_attention"},
    }
    options.update(teacher_cache=False, plots=False, durations=["full"])
    process = start(options, tmp_path)
    table, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    assert "iml_kd_attention" in table and "teacher" in table
    place = tmp_path / "out" / "runs" / "tiny" / "fold0_seed7"
    assert not (place / "teacher" / "inference").exists()
    for name in options["methods"]:
        model = load_speaker_model(place / name)
        assert sorted(model.speakers) == few
    answers = tmp_path / "out" / "answers"
    blocks = {path: path.stat() for path in answers.glob("variant*/*")}

    # Again: nobody is asked or trained again.
    process = start(options, tmp_path)
    again, said = process.communicate()
    assert process.returncode == 0, said[-3000:]
    assert again.splitlines()[-5:] == table.splitlines()[-5:]
    assert {path: path.stat() for path in answers.glob("variant*/*")} == blocks
