"""A packed model: half precision, no classes, the same embeddings."""

import torch

from imlkd_brain.models.folder import load_speaker_model
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
