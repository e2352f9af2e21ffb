"""``imlkd verify`` and ``imlkd embed``."""

import math
import shutil

import numpy as np
import pytest
import soundfile
import torch

from imlkd_brain.models.folder import load_speaker_model


def cosine(model, *paths):
    """The cosine of two recordings at the model's rate, by hand."""
    model, vectors = load_speaker_model(model), []
    for path in paths:
        samples, _ = soundfile.read(path, dtype="float32")
        with torch.no_grad():
            vectors.append(model.embed(torch.from_numpy(samples)[None])[0])
    return float(torch.cosine_similarity(*vectors, dim=0))


def test_the_exit_code_is_the_decision(call, here, model):
    files = "anna/1.wav", "bert/1.wav"
    score = cosine(model, *files)
    for threshold, expected in ((score - 0.01, 0), (score + 0.01, 1)):
        words = ("verify", *files, "--threshold", f"{min(threshold, 1):.6f}")
        code, said, _ = call(*words)
        assert code == expected
        assert f"score        {score:.3f}\n" in said
        assert ("one speaker\n" if expected == 0 else "two speakers\n") in said
        code, content, _ = call(*words, "--json")
        assert code == expected
        assert content["same_speaker"] is (expected == 0)
        assert content["score"] == pytest.approx(score, abs=1e-6)


def test_the_models_threshold_and_calibration(call, here, model):
    code, content, _ = call("verify", "anna/1.wav", "anna/2.wav", "--json")
    score = cosine(model, "anna/1.wav", "anna/2.wav")
    assert content["threshold"] == 0.9
    assert content["same_speaker"] == (score > 0.9) == (code == 0)
    expected = 1 / (1 + math.exp(-(20 * score - 18)))
    assert content["probability"] == pytest.approx(expected, abs=1e-5)
    words = ("verify", "anna/1.wav", "anna/2.wav", "--json", "--prior", "0.1")
    _, content, _ = call(*words)
    odds = expected / (1 - expected) / 9
    assert content["probability"] == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_a_folder_is_one_speaker(call, here, model):
    code, content, _ = call("verify", "anna", "bert/*.wav", "--json")
    one, two = (cosine(model, f"anna/{i}.wav", "bert/1.wav") for i in (1, 2))
    angle = cosine(model, "anna/1.wav", "anna/2.wav")
    # The mean of two unit vectors, made a unit vector.
    expected = (one + two) / math.sqrt(2 + 2 * angle)
    assert content["score"] == pytest.approx(expected, abs=1e-5)
    assert content["files"] == [["anna/1.wav", "anna/2.wav"], ["bert/1.wav"]]
    assert content["seconds"] == pytest.approx([2.0, 1.0])


def test_a_bad_file_is_no_other_speaker(call, here):
    (here / "bad.wav").write_text("text")
    code, said, error = call("verify", "anna/1.wav", "bad.wav")
    assert code == 2 and not said and "bad.wav: no recording" in error
    shutil.copy(here / "bad.wav", here / "anna")
    code, said, error = call("verify", "anna", "anna/1.wav")
    assert code == 3 and "score" in said
    assert "1 of 4 files were left out:\n  anna/bad.wav" in error
    for name in ("1", "2"):
        (here / "anna" / f"{name}.wav").write_bytes(b"")
    code, said, error = call("verify", "anna", "bert")
    assert code == 2 and not said and "none of the 3 files" in error


def test_a_model_without_a_threshold(call, here, model):
    shutil.copytree(model, here / "plain")
    (here / "plain" / "decision.json").unlink()
    words = ("verify", "anna/1.wav", "anna/2.wav", "--model", "plain")
    code, said, error = call(*words, with_model=False)
    assert code == 2 and said.startswith("score ") and "decision" not in said
    assert "--decision_list" in error and "Traceback" not in error
    code, content, _ = call(*words, "--json", with_model=False)
    assert code == 2 and content["same_speaker"] is None
    assert content["probability"] is None


@pytest.mark.parametrize("verb", ["verify", "embed", "enrol", "identify"])
def test_a_missing_model(call, here, verb):
    words = {
        "verify": ["anna/1.wav", "bert/1.wav"],
        "embed": ["anna", "--out", "x.npz"],
        "enrol": ["anna", "anna", "--gallery", "g.npz"],
        "identify": ["anna", "--gallery", "g.npz"],
    }[verb]
    code, said, error = call(verb, *words, "--model", "none", with_model=False)
    assert code == 2 and not said
    assert "error: none: no trained model there" in error
    assert not list(here.glob("*.npz"))


def test_embeddings_are_written_without_pickle(call, here, model):
    (here / "anna" / "bad.wav").write_text("text")
    code, said, error = call("embed", "anna", "bert", "--out", "x.npz")
    assert code == 3 and said == "3 embeddings of 16 numbers in x.npz\n"
    assert "1 of 4 files were left out" in error
    with np.load("x.npz", allow_pickle=False) as arrays:
        content = dict(arrays)
    files = ["anna/1.wav", "anna/2.wav", "bert/1.wav"]
    assert content["files"].tolist() == files
    assert content["seconds"].tolist() == [1.0, 1.0, 1.0]
    one, two = torch.from_numpy(content["embeddings"])[[0, 2]]
    score = float(torch.cosine_similarity(one, two, dim=0))
    assert score == pytest.approx(cosine(model, files[0], files[2]), abs=1e-6)
    code, content, _ = call("embed", "bert", "--out", "y.npz", "--json")
    assert code == 0 and content["files"] == ["bert/1.wav"]


@pytest.mark.parametrize(
    "out, says",
    [
        ("x.csv", "ends in .npz"),
        ("none/x.npz", "no folder none"),
        ("folder.npz", "this is a folder"),
    ],
)
def test_where_nothing_can_be_written(call, here, out, says):
    (here / "folder.npz").mkdir()
    code, _, error = call("embed", "anna", "--out", out)
    assert code == 2 and f"--out {out}: " in error and says in error


def test_short_recordings_get_a_note(call, here):
    _, said, _ = call("verify", "anna/1.wav", "anna/2.wav")
    assert "note         1.0 s of speech on one side" in said
