"""A gallery keeps who was enrolled, and refuses what is not its own."""

import numpy as np
import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.verification.gallery import Gallery, read_gallery


@pytest.fixture
def gallery():
    made = Gallery("model-1")
    for row, name in enumerate(("anna", "bert", "anna")):
        vector = torch.eye(3)[row] * (row + 1)
        made.add(name, vector, 2.0 + row, f"{row}.wav", f"hash{row}")
    return made


def test_a_speaker_is_the_mean_of_unit_embeddings(gallery):
    scores = dict(gallery.scores(torch.tensor([5.0, 0.0, 0.0])))
    # anna is (1, 0, 1) / 2 whatever the lengths: a cosine of 1 / sqrt(2).
    assert scores["anna"] == pytest.approx(2**-0.5, abs=1e-6)
    assert scores["bert"] == 0


def test_a_gallery_is_read_as_it_was_written(gallery, tmp_path):
    path = tmp_path / "g.npz"
    gallery.write(path)
    again = read_gallery(path, "model-1")
    assert again.names == gallery.names and again.files == gallery.files
    assert torch.equal(
        torch.stack(again.embeddings), torch.stack(gallery.embeddings)
    )
    assert again.owner("hash1") == "bert" and again.owner("other") is None
    assert again.counts() == {"anna": 2, "bert": 1}
    again.forget("anna")
    assert again.names == ["bert"] and again.seconds == [3.0]
    with pytest.raises(UserError, match="made with another model"):
        read_gallery(path, "model-2")


def test_no_pickle_is_read(tmp_path):
    path = tmp_path / "g.npz"
    columns = dict.fromkeys(("names", "embeddings", "seconds", "files"), [1])
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(path, fingerprint="m", hashes=evil, **columns)
    with pytest.raises(UserError, match="no gallery, or a damaged one"):
        read_gallery(path)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "column", "nan"])
def test_a_damaged_gallery_is_refused(gallery, tmp_path, damage):
    path = tmp_path / "g.npz"
    if damage == "nan":
        gallery.embeddings[0] = torch.full((3,), torch.nan)
    gallery.write(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no gallery")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "column":
        np.savez(path, fingerprint="m", names=["a"])
    with pytest.raises(UserError, match="g.npz: this file is no gallery"):
        read_gallery(path)
    with pytest.raises(UserError, match="there is no such gallery"):
        read_gallery(tmp_path / "none.npz")
