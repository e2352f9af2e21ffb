"""A packed model: half precision, no classes, the same embeddings."""

import pytest
import torch
from synthetic import write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models import packaging
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.packaging import pack
from imlkd_brain.models.shipped import default_model


def test_the_shipped_model_is_whole_small_and_finite():
    folder = default_model()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1_000_000
    model = load_speaker_model(folder)
    wavs = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    embeddings = model.embed(wavs)
    assert embeddings.shape == (2, 192) and embeddings.isfinite().all()
    # Noise of two draws is alike; it is not one point for all.
    assert not torch.equal(embeddings[0], embeddings[1])
    assert model.classifier is None and model.teacher_speakers


def test_half_precision_without_classes_verifies_alike(tmp_path):
    write_model(tmp_path / "run")
    folder = pack(tmp_path / "run", tmp_path / "small")
    before, after = (
        load_speaker_model(one) for one in (tmp_path / "run", folder)
    )
    state = torch.load(folder / "embedding_model.ckpt", weights_only=True)
    floats = [v for v in state.values() if v.is_floating_point()]
    assert floats and all(value.dtype == torch.float16 for value in floats)
    assert after.classifier is None
    assert after.teacher_speakers == before.speakers
    wavs = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    cosine = torch.cosine_similarity(before.embed(wavs), after.embed(wavs))
    # Half precision has 11 bits; directions differ by far less than 1e-3.
    assert cosine.item() == pytest.approx(1, abs=1e-4)


def test_a_model_too_large_for_git_leaves_the_older_one(tmp_path, monkeypatch):
    write_model(tmp_path / "run")
    folder = pack(tmp_path / "run", tmp_path / "small")
    key = load_speaker_model(folder).key
    write_model(tmp_path / "run", seed=3)
    monkeypatch.setattr(packaging, "LARGEST", 100)
    with pytest.raises(UserError, match="bytes, but a model in the package"):
        pack(tmp_path / "run", folder)
    assert load_speaker_model(folder).key == key
