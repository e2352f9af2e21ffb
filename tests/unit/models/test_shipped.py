"""Models in the package are known by name."""

import shutil

import pytest
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models import shipped
from imlkd_brain.models.folder import find_inference_folder, load_speaker_model


def test_a_shipped_model_is_a_model_by_name(tmp_path, monkeypatch):
    place = tmp_path / "shipped"
    monkeypatch.setattr(shipped, "SHIPPED", place)
    assert shipped.shipped_models() == {}
    with pytest.raises(UserError, match="--model FOLDER"):
        shipped.default_model()
    for name in ("small", "large"):
        shutil.copytree(write_model(tmp_path / name), place / name)
    (place / "notes").mkdir()
    assert list(shipped.shipped_models()) == ["large", "small"]
    assert shipped.default_model() == place / "large"
    monkeypatch.chdir(place.parent.parent)
    assert find_inference_folder("small") == place / "small"
    assert load_speaker_model("small").speakers
    # A folder of that name in the working folder goes first.
    monkeypatch.chdir(tmp_path)
    assert str(find_inference_folder("small")) == "small/inference"


def test_every_model_in_the_package_loads():
    for folder in shipped.shipped_models().values():
        assert load_speaker_model(folder).embedding_dim > 0
