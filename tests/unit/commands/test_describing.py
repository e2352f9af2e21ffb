"""``imlkd info``."""

import shutil

from imlkd_brain.commands.describing import read_card
from imlkd_brain.models.folder import load_speaker_model


def test_a_model_is_described(call, model):
    network = load_speaker_model(model).embedding_model
    expected = sum(weight.numel() for weight in network.parameters())
    code, content, _ = call("info", model, "--json", with_model=False)
    assert code == 0 and content["parameters"] == expected
    assert content["macs"] > expected and content["macs_seconds"] == 3
    assert content["embedding_dimension"] == 16
    assert content["front_end"] == {
        "features": "Fbank",
        "sample_rate": 16000,
        "dimension": 20,
        "hop_samples": 160,
        "normalisation": "sentence",
    }
    assert content["training"]["speakers"] == 4
    assert content["decision"]["eer"] == 0.125
    code, said, _ = call("info", model, with_model=False)
    assert "EER          12.50 % at threshold 0.900 (8 trials of dev" in said
    assert "trained on   4 speakers\n" in said


def test_the_card_is_read(call, model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    card = tmp_path / "m" / "README.md"
    card.write_text("---\nlicense: apache-2.0\ndatasets: [a, b]\n---\n# x\n")
    _, content, _ = call("info", tmp_path / "m", "--json", with_model=False)
    assert content["licence"] == "apache-2.0"
    assert content["training"]["datasets"] == ["a", "b"]
    for text in ("no head", "---\n[: \n---\n", "---\n- a list\n---\n"):
        card.write_text(text)
        assert read_card(card) == {}
    assert read_card(tmp_path / "none.md") == {}


def test_a_gallery_is_described(call, here):
    call("enrol", "anna", "anna", "--gallery", "g.npz")
    code, said, _ = call("info", "g.npz", with_model=False)
    assert code == 0 and "anna: 2 recordings\n1 speakers" in said


def test_no_model(call):
    code, said, error = call("info", "none", with_model=False)
    assert code == 2 and "no trained model there" in error and not said
