"""The folder to deploy, and what is not overwritten."""

import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.deployment import FACTS, check_place, write_deployment
from imlkd_brain.models.folder import load_speaker_model


def names(folder):
    """Files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_run_becomes_a_folder_without_paths_of_this_machine(tmp_path):
    inference = write_model(tmp_path / "run")
    (inference / "stray.wav").write_bytes(b"")
    out = tmp_path / "out" / "model"
    facts = write_deployment(tmp_path / "run", out)
    assert facts["graphs"] == {} and FACTS in names(out)
    assert "stray.wav" not in names(out)
    for path in out.glob("*.[yj]*"):
        assert str(tmp_path) not in path.read_text(), path
    models = [load_speaker_model(one) for one in (inference, out)]
    assert models[0].key == models[1].key
    assert models[0].speakers == models[1].speakers
    assert names(tmp_path / "out") == ["model"]


def test_a_model_of_a_hub_is_written_without_its_paths(tmp_path):
    inference = write_model(tmp_path / "run")
    description = inference / "hyperparams.yaml"
    before = description.read_text()
    description.write_text(
        f"pretrained_path: /elsewhere\nextra: 1\n{before}    paths:\n"
        "        embedding_model: !ref <pretrained_path>/embedding_model.ckpt\n"
    )
    out = tmp_path / "model"
    write_deployment(inference, out)
    text = (out / "hyperparams.yaml").read_text()
    assert "pretrained_path" not in text and "/elsewhere" not in text
    assert load_speaker_model(out).key == load_speaker_model(inference).key


def test_an_older_export_is_replaced_and_nothing_else_is(tmp_path):
    write_model(tmp_path / "run")
    out = tmp_path / "model"
    write_deployment(tmp_path / "run", out)
    write_model(tmp_path / "run", seed=3)
    facts = write_deployment(tmp_path / "run", out)
    assert load_speaker_model(out).key == facts["model_key"]
    other = tmp_path / "home"
    other.mkdir()
    check_place(other)  # empty
    (other / "letter.txt").write_text("dear")
    for place in (other, other / "letter.txt"):
        with pytest.raises(UserError, match="something that is no export"):
            write_deployment(tmp_path / "run", place)
    assert names(other) == ["letter.txt"]


def test_a_broken_model_leaves_the_older_export(tmp_path):
    inference = write_model(tmp_path / "run")
    out = tmp_path / "model"
    key = write_deployment(tmp_path / "run", out)["model_key"]
    torch.save({}, inference / "embedding_model.ckpt")
    with pytest.raises(UserError, match="does not fit the model"):
        write_deployment(tmp_path / "run", out)
    assert load_speaker_model(out).key == key
    assert names(tmp_path) == ["model", "run"]
