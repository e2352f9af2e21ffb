"""A model of known classes is built without HyperPyYAML, and is the same."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from synthetic import write_model

from imlkd_brain.models import folder
from imlkd_brain.models.features import plain_settings
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.plain import KEYS, build_plain
from imlkd_brain.models.public import CAMPPLUS_DESCRIPTION


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path)


def settings_of(module):
    """Plain settings of a module and all of its parts."""
    return {
        place: (type(part), plain_settings(part))
        for place, part in module.named_modules()
    }


@pytest.mark.parametrize("kind", ["export", "campplus"])
def test_the_modules_are_those_of_hyperpyyaml(model, kind):
    path = model / "hyperparams.yaml"
    if kind == "campplus":
        path.write_text(CAMPPLUS_DESCRIPTION)
    plain = build_plain(path)
    with open(path) as stream:
        built = load_hyperpyyaml(stream)
    assert plain.keys() == set(KEYS) & set(built)
    for key, ours in plain.items():
        if isinstance(ours, torch.nn.Module):
            assert settings_of(ours) == settings_of(built[key])
        else:
            assert ours == built[key] and type(ours) is type(built[key])


def test_our_exports_need_no_hyperpyyaml(model, monkeypatch):
    before = load_speaker_model(model).key
    monkeypatch.setattr(folder, "load_hyperpyyaml", lambda _: 1 / 0)
    assert load_speaker_model(model).key == before


def test_references_of_published_models_are_followed(model):
    path = model / "hyperparams.yaml"
    text = path.read_text().replace("n_mels: 20", "n_mels: !ref <mels>")
    path.write_text(text + "mels: 20\nrun: !apply:os.system [touch ran]\n")
    assert build_plain(path)["compute_features"].compute_fbanks.n_mels == 20


@pytest.mark.parametrize(
    "old, new",
    [
        ("!new:speechbrain.lobes.features.Fbank", "!new:os.system"),
        ("n_mels: 20", "n_mels: !apply:os.getpid []"),
        ("n_mels: 20", "n_mels: !ref <a> * 2"),
        ("n_mels: 20", "n_mels: !ref <n>\nn: !ref <n>\nx:"),
        ("n_mels: 20", "n_melts: 20"),
        ("sample_rate: 16000\nc", "sample_rate: [\nc"),
    ],
)
def test_anything_else_is_left_to_hyperpyyaml(model, old, new):
    path = model / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert build_plain(path) is None
    path.write_text("- a list\n")
    assert build_plain(path) is None
    assert build_plain(model / "none.yaml") is None
