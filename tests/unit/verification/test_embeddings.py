"""Unit tests of ``imlkd_brain.verification.embeddings``."""

import math
import os

import numpy as np
import pytest
import soundfile
import torch
from helpers.verification import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from imlkd_brain.data.crops import crop_start
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.embeddings import (
    EmbeddingStore,
    audio_state,
    embed_utterances,
    length_sorted_batches,
)

RATE = 16000


def test_each_utterance_is_embedded_once_and_kept(corpus):
    """A second list, or another spelling of the path, costs no embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    model = Model()
    store = EmbeddingStore(corpus / "store", model.key, "full")
    first, speech = embed_utterances(model, paths + paths[:2], store)
    assert sum(map(len, model.batches)) == 6
    assert speech.tolist() == [1, 1, 1.25, 1.25, 1, 1, 1, 1]
    for path, embedding in zip(paths, first, strict=False):
        samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        # Sums of 20,000 float32 numbers in another order.
        torch.testing.assert_close(
            embedding,
            torch.stack([(samples.abs() ** k).mean() for k in (1, 2, 3)]),
            rtol=1e-5,
            atol=0,
        )
    again = Model()
    store = EmbeddingStore(corpus / "store", again.key, "full")
    second, _ = embed_utterances(again, paths[::-1], store)
    assert again.batches == []
    assert torch.equal(second, first[:6].flip(0))
    # Changed audio, another model or another crop is not found.
    soundfile.write(paths[0], np.zeros(RATE) + 0.25, RATE)
    embed_utterances(again, paths, store)
    assert again.batches == [[RATE]]
    for key, crop in (("f" * 64, "full"), (again.key, "1s-seed0")):
        assert EmbeddingStore(corpus / "store", key, crop).rows == {}


def test_audio_that_was_edited_in_secret_is_embedded_anew(corpus):
    """Of equal size and with its old time, as tools that restore it leave."""
    path = str(corpus / "wav/x-a/s1/00000.wav")
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    before, state = audio_state(located), os.stat(path)
    model = Model()
    store = EmbeddingStore(corpus / "store", model.key, "full")
    first, _ = embed_utterances(model, [path], store)
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples / 2, RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert os.stat(path).st_size == state.st_size
    second, _ = embed_utterances(model, [path], store)
    # 16-bit samples: halving rounds each by half a step at most.
    torch.testing.assert_close(
        second[0, 0], first[0, 0] / 2, atol=2**-16, rtol=0
    )
    assert audio_state(located) != before


def test_only_equal_lengths_share_a_batch_unless_padding_is_allowed(corpus):
    """Without padding an embedding does not depend on its batch."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    exact, padded = Model(), Model()
    for name, model, padding in (("e", exact, 0.0), ("p", padded, 1.0)):
        store = EmbeddingStore(corpus / name, model.key, "full")
        embed_utterances(model, paths, store, max_padding_seconds=padding)
    assert exact.batches == [[20000] * 2, [16000] * 4]
    assert padded.batches == [[20000] * 2 + [16000] * 4]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    max_total=st.integers(1, 200),
    max_padding=st.integers(0, 10),
)
@settings(max_examples=100, deadline=None)
def test_batches_hold_every_item_once_within_the_budget(
    lengths, max_total, max_padding
):
    """Sorted, bounded, and no batch that the next item would still fit."""
    batches = length_sorted_batches(lengths, max_total, max_padding)
    items = [item for batch in batches for item in batch]
    assert sorted(items) == list(range(len(lengths)))
    ordered = [lengths[item] for item in items]
    assert ordered == sorted(ordered, reverse=True)
    for batch in batches:
        longest, shortest = lengths[batch[0]], lengths[batch[-1]]
        assert len(batch) == 1 or len(batch) * longest <= max_total
        assert longest - shortest <= max_padding
    for batch, following in zip(batches, batches[1:], strict=False):
        longest, item = lengths[batch[0]], lengths[following[0]]
        assert (
            len(batch) + 1
        ) * longest > max_total or longest - item > max_padding


def test_crops_depend_on_seed_and_utterance_only(corpus):
    """The same samples whatever the list; another seed gives other ones."""
    path = str(corpus / "wav/x-b/s1/00000.wav")
    samples, _ = soundfile.read(path, dtype="float32")
    start = crop_start("x-b/s1/00000", len(samples), RATE // 2, seed=5)
    model = Model()
    store = EmbeddingStore(corpus / "store", model.key, "crop")
    embedding, speech = embed_utterances(
        model, [path], store, seconds=0.5, seed=5
    )
    assert speech.tolist() == [0.5]
    crop = torch.from_numpy(samples[start : start + RATE // 2])
    # Sums of 8,000 float32 numbers in another order.
    torch.testing.assert_close(
        embedding[0, 0], crop.abs().mean(), rtol=1e-5, atol=0
    )
    starts = {
        crop_start("x-b/s1/00000", len(samples), RATE // 2, seed)
        for seed in range(20)
    }
    assert len(starts) > 10 and max(starts) <= len(samples) - RATE // 2
    # Shorter than the crop: whole.
    _, speech = embed_utterances(
        model,
        [path],
        EmbeddingStore(corpus / "store", model.key, "long"),
        seconds=3,
    )
    assert speech.tolist() == [1.25]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_audio_that_is_not_finite_is_named(corpus, value):
    """The file, not the model, and never an embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    samples = np.zeros(16000, "float32")
    samples[123] = float(value)
    soundfile.write(paths[2], samples, 16000, "FLOAT")
    store = EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(UserError, match=f"^{paths[2]}: sample 123 is NaN or"):
        embed_utterances(Model(), paths, store)


def test_what_was_embedded_survives_an_interruption(corpus):
    """Embeddings before a failure are on disk, and only the rest is redone."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))

    class Failing(Model):
        def embed(self, wavs, lens):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().embed(wavs, lens)

    store = EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(KeyboardInterrupt):
        embed_utterances(Failing(), paths, store)
    model = Model()
    store = EmbeddingStore(corpus / "store", model.key, "full")
    embed_utterances(model, paths, store)
    assert model.batches == [[16000] * 4]


def test_a_broken_store_is_named(corpus):
    """A part that was cut short says which file to delete."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    store = EmbeddingStore(corpus / "store", Model.key, "full")
    embed_utterances(Model(), paths, store)
    (part,) = store.folder.glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{part}.*delete it"):
        EmbeddingStore(corpus / "store", Model.key, "full")


def test_audio_of_no_use_is_named(corpus):
    """Wrong rate, channels, empty, not audio, gone."""
    store = EmbeddingStore(corpus / "store", Model.key, "full")
    bad = corpus / "wav" / "bad.wav"
    for samples, rate, sentence in (
        (np.zeros(100), 8000, r"found 1 channel\(s\) at 8000 Hz"),
        (np.zeros((100, 2)), RATE, r"found 2 channel\(s\) at 16000 Hz"),
        (np.zeros(0), RATE, "is empty"),
    ):
        soundfile.write(bad, samples, rate)
        with pytest.raises(UserError, match=sentence):
            embed_utterances(Model(), [str(bad)], store)
    bad.write_text("no audio")
    with pytest.raises(UserError, match="this audio file is broken"):
        embed_utterances(Model(), [str(bad)], store)
    bad.unlink()
    with pytest.raises(UserError, match="there is no such audio file"):
        embed_utterances(Model(), [str(bad)], store)


def test_embeddings_that_are_not_finite_are_refused(corpus):
    """A diverged model is said to be one, with the utterance."""

    class Diverged(Model):
        def embed(self, wavs, lens):
            return super().embed(wavs, lens) * math.nan

    path = str(corpus / "wav/x-b/s1/00000.wav")
    store = EmbeddingStore(corpus / "store", Model.key, "full")
    with pytest.raises(UserError, match=f"{path}.*NaN or infinity"):
        embed_utterances(Diverged(), [path], store)
    assert EmbeddingStore(corpus / "store", Model.key, "full").rows == {}
