"""Unit tests of ``imlkd_brain.verification.store``."""

import os

import pytest
import soundfile
import torch
from helpers.verification import RATE, Model

from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.store import EmbeddingStore, audio_state


def test_audio_that_was_edited_in_secret_is_embedded_anew(corpus):
    """Of equal size and with its old time, as tools that restore it leave."""
    path = str(corpus / "wav/x-a/s1/00000.wav")
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    before, state = audio_state(located), os.stat(path)
    model = Model()
    embed = Embedder(corpus / "store")
    first, _ = embed(model, [path])
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples / 2, RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert os.stat(path).st_size == state.st_size
    second, _ = embed(model, [path])
    # 16-bit samples: halving rounds each by half a step at most.
    torch.testing.assert_close(
        second[0, 0], first[0, 0] / 2, atol=2**-16, rtol=0
    )
    assert audio_state(located) != before


def test_a_broken_store_is_named(corpus):
    """A part that was cut short says which file to delete."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    embed = Embedder(corpus / "store")
    embed(Model(), paths)
    (part,) = embed.store(Model()).folder.glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{part}.*delete it"):
        EmbeddingStore(corpus / "store", Model.key, "full")
