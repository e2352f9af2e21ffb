"""A description from elsewhere runs nothing before somebody trusts it."""

import sys

import pytest
from synthetic import write_model

from imlkd_brain.commands.parser import main
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.sources import public_folder
from imlkd_brain.models.trust import TRUSTED, code_of, trust

MARK = "mark: !apply:pathlib.Path.touch [!new:pathlib.Path ['{path}']]\n"
# Nobody's class, so that the YAML is not plain
OWN = "front: !name:torch.nn.Identity\n"


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A model folder whose YAML would write a file."""
    monkeypatch.setenv("IMLKD_MODELS", str(tmp_path / "cache"))
    folder = write_model(tmp_path / "model")
    path = folder / "hyperparams.yaml"
    text = path.read_text().replace("n_mels: 20", "n_mels: !ref <bands>")
    assert "<bands>" in text
    mark = MARK.format(path=tmp_path / "ran")
    path.write_text(f"bands: !ref <half> * 2\nhalf: 10\n{mark}{text}")
    return folder


def test_what_is_not_trusted_is_not_run(stranger, tmp_path, capsys):
    for _ in range(2):
        with pytest.raises(UserError, match="pathlib.Path.*--trust") as raised:
            load_speaker_model(stranger)
        assert str(stranger) in str(raised.value)
        assert not (tmp_path / "ran").exists()
    # Once for a folder, and for a text
    assert main(["info", str(stranger), "--trust"]) == 0
    assert "pathlib.Path.touch" in capsys.readouterr().err
    assert (tmp_path / "ran").exists()
    assert load_speaker_model(stranger).embedding_dim == 8
    path = stranger / "hyperparams.yaml"
    path.write_text(path.read_text() + "more: !name:os.system\n")
    with pytest.raises(UserError, match="os.system"):
        load_speaker_model(stranger)


def test_a_network_of_ones_own_needs_no_question(tmp_path, monkeypatch):
    """Whoever exports it has run it."""
    monkeypatch.setenv("IMLKD_MODELS", str(tmp_path / "cache"))
    module = tmp_path / "own_network.py"
    module.write_text(
        "from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN\n"
        "class Own(ECAPA_TDNN): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = write_model(tmp_path / "plain")
    assert not (tmp_path / "cache").exists()
    path = folder / "hyperparams.yaml"
    ecapa = "!new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
    text = path.read_text().replace(ecapa, "!new:own_network.Own")
    path.write_text(text)
    with pytest.raises(UserError, match="own_network.Own"):
        load_speaker_model(folder)
    main(["info", str(folder), "--trust"])
    assert type(load_speaker_model(folder).embedding_model).__name__ == "Own"
    del sys.modules["own_network"]


def test_what_tests_trust_stays_with_the_tests(tmp_path_factory):
    """Else every export of a test would be trusted by who ran it."""
    trust(OWN)
    record = public_folder(TRUSTED)
    assert "torch.nn.Identity" in record.read_text()
    assert tmp_path_factory.getbasetemp() in record.parents


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1", []),
        ("a: !new:speechbrain.lobes.features.Fbank", []),
        ("a:\n- b: !name:os.system", ["os.system"]),
        ("a: &x !apply:print [1]\nb: *x", ["print"]),
        ("a: !include:other.yaml", ["other.yaml"]),
    ],
)
def test_what_a_yaml_runs(text, code):
    assert code_of(text) == code


def test_a_bomb_of_aliases_is_a_sentence(tmp_path):
    folder = write_model(tmp_path)
    path = folder / "hyperparams.yaml"
    levels = [
        f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)
    ]
    bomb = "\n".join(["l0: &l0 [x]", *levels, "lin: !ref <l29>"])
    path.write_text(
        f"{bomb}\n{path.read_text()}".replace(
            "n_mels: 20", "n_mels: !ref <lin>"
        )
    )
    with pytest.raises(UserError, match="aliases.*100,000"):
        load_speaker_model(folder)
