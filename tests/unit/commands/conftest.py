"""A model with a threshold, recordings of two pitches, and the command."""

import json

import pytest
from synthetic import write_model, write_wav

from imlkd_brain.commands.parser import main
from imlkd_brain.models.decision import Decision, fingerprint, write_decision
from imlkd_brain.models.folder import load_speaker_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained model whose folder carries a threshold."""
    folder = write_model(tmp_path_factory.mktemp("model") / "run", dim=16)
    mark = fingerprint(load_speaker_model(folder))
    decision = Decision(0.9, 20.0, -18.0, 0.125, 8, "dev", "full", mark)
    write_decision(folder, decision)
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two recordings of anna and one of bert."""
    for seed, (name, pitch) in enumerate(
        (("anna/1", 100), ("anna/2", 102), ("bert/1", 700))
    ):
        write_wav(tmp_path / f"{name}.wav", 1.0, pitch, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(model, capsys):
    """Calls the command; exit code, standard output and standard error."""

    def call(*words, with_model=True):
        more = ["--model", model] if with_model else []
        try:
            code = main([*map(str, words), *more])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        if "--json" in words and said.out:
            return code, json.loads(said.out), said.err
        return code, said.out, said.err

    return call
