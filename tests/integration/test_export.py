"""An exported student gives verify.py's scores without this repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import export
import numpy as np
import pytest
import verify
from synthetic import write_model, write_wav

from imlkd_brain.errors import UserError

RECIPE = Path(export.__file__).resolve().parent
SECONDS = (0.5, 2.7, 20.0)
BATCH = 8
# What a product runs: SpeechBrain or onnxruntime, and no file of ours.
ELSEWHERE = """
import importlib.util, json, sys

# An editable installation puts finders and folders in; this takes them out.
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f)]
sys.path[:] = [p for p in sys.path if p != sys.argv[3]]
sys.path_importer_cache.clear()
assert importlib.util.find_spec("imlkd_brain") is None, sys.path

import numpy, soundfile
folder, corpus = sys.argv[1:3]
groups = json.load(sys.stdin)


def read(names):
    return numpy.stack(
        [soundfile.read(f"{corpus}/wav/{n}.wav", dtype="float32")[0] for n in names]
    )


import onnxruntime
session = onnxruntime.InferenceSession(folder + "/waveform.onnx")
from speechbrain.inference.speaker import EncoderClassifier, SpeakerRecognition
import torch

speechbrain = SpeakerRecognition.from_hparams(source=folder, savedir=folder)
encoder = EncoderClassifier.from_hparams(source=folder, savedir=folder)
found = {"speechbrain": {}, "encoder": {}, "onnx": {}}
for group in groups:
    for size in (1, len(group)):
        for start in range(0, len(group), size):
            names = group[start : start + size]
            wavs = read(names)
            (onnx,) = session.run(None, {"waveform": wavs})
            wavs = torch.from_numpy(wavs)
            results = {
                "speechbrain": speechbrain.encode_batch(wavs).squeeze(1).numpy(),
                "encoder": encoder.encode_batch(wavs).squeeze(1).numpy(),
                "onnx": onnx,
            }
            for way, rows in results.items():
                for name, row in zip(names, rows):
                    found[way][f"{name} {size}"] = row.tolist()
assert "imlkd_brain" not in sys.modules
print("RESULT" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight utterances of each length, of eight speakers, and trials."""
    folder = tmp_path_factory.mktemp("corpus")
    groups = []
    for seconds in SECONDS:
        groups.append([f"spk{i}/s/{seconds}" for i in range(BATCH)])
        for i, name in enumerate(groups[-1]):
            path = folder / "wav" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_wav(path, seconds, 100 + 20 * i, seed=i)
    names = [name for group in groups for name in group]
    lines = [
        f"{int(a.split('/')[0] == b.split('/')[0])} {a}.wav {b}.wav\n"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    (folder / "trials.txt").write_text("".join(lines))
    return folder, groups


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory):
    """A student, exported by the script, with error rates of int8."""
    work = tmp_path_factory.mktemp("export")
    write_model(work / "run", speakers=["nobody", "noone"], dim=24)
    done = subprocess.run(
        [
            sys.executable,
            "export.py",
            "hparams/export.yaml",
            f"--model={work / 'run'}",
            f"--output_folder={work / 'out'}",
            f"--model_folder={work / 'student'}",
            f"--data_folder={corpus[0]}",
            f"--trial_lists={corpus[0] / 'trials.txt'}",
            "--durations=[full, 1]",
        ],
        cwd=RECIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "largest distance to PyTorch" in done.stdout + done.stderr
    return work / "student"


def test_scores_of_verify_without_this_repository(corpus, exported, tmp_path):
    folder, groups = corpus
    verify.main(
        [
            str(RECIPE / "hparams" / "eval.yaml"),
            f"--data_folder={folder}",
            f"--trial_lists={folder / 'trials.txt'}",
            f"--models=[{exported}]",
            f"--output_folder={tmp_path / 'verified'}",
            "--durations=[full]",
            "--bootstrap_samples=0",
            "--plots=False",
        ]
    )
    root = str(Path(export.__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(exported), str(folder), root],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            "CUDA_VISIBLE_DEVICES": "",
        },
        input=json.dumps(groups),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    (scores,) = (tmp_path / "verified").rglob("scores.txt")
    lines = [line.split() for line in scores.read_text().splitlines()][1:]
    assert len(lines) == 24 * 23 // 2
    limits = {"speechbrain": 1e-5, "encoder": 1e-5, "onnx": 1e-4}
    for way, limit in limits.items():
        for size in (1, BATCH):
            unit = {
                name: np.array(vector) / np.linalg.norm(vector)
                for key, vector in found[way].items()
                for name, found_size in [key.split()]
                if int(found_size) == size
            }
            for line in lines:
                a, b = (unit[name] for name in line[1:3])
                assert abs(a @ b - float(line[4])) < limit, (way, line)


def test_the_folder_carries_its_check_and_its_card(exported):
    facts = json.loads((exported / "export.json").read_text())
    assert set(facts["graphs"]) == {
        "features.onnx",
        "features_int8.onnx",
        "waveform.onnx",
        "waveform_int8.onnx",
    }
    assert (
        facts["graphs"]["waveform.onnx"]["largest_distance_to_pytorch"] < 5e-5
    )
    rates = {
        (row["model"], row["duration"]): row["eer"]
        for row in facts["error_rates"]
    }
    assert len(rates) == 3 * 3  # full, 1 s and pooled
    # Scores differ by 1e-4 at most: of 276 trials hardly one changes its side.
    assert abs(rates["ONNX", "full"] - rates["PyTorch", "full"]) < 0.02
    card = (exported / "README.md").read_text()
    assert card.startswith("---\n") and "ONNX int8" in card
    text = "".join(
        path.read_text()
        for path in exported.iterdir()
        if path.suffix in (".md", ".json", ".yaml")
    )
    assert str(exported.parent) not in text


def test_mistakes_are_one_sentence(corpus, tmp_path, monkeypatch):
    write_model(tmp_path / "run")
    common = [
        str(RECIPE / "hparams" / "export.yaml"),
        f"--output_folder={tmp_path / 'out'}",
    ]
    model = f"--model={tmp_path / 'run'}"
    lists = f"--trial_lists={corpus[0] / 'trials.txt'}"
    for options, said in (
        ([f"--model={tmp_path / 'none'}"], "no trained model there"),
        ([model, lists], "data_folder is null"),
        (
            [model, lists, "--data_folder=x", "--graphs=[features]"],
            "graphs has no waveform",
        ),
        ([model, f"--model_folder={tmp_path / 'run'}"], "no export"),
        ([model, "--graphs=[mfcc]"], "graphs"),
    ):
        with pytest.raises(UserError, match=said):
            export.main([*common, *options])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="need onnx, which is not installed"):
        export.main([*common, model])
    assert not (tmp_path / "out").exists()
