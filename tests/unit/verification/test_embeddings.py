"""Unit tests of ``imlkd_brain.verification.embeddings``."""

import math

import numpy as np
import pytest
import soundfile
import torch
from helpers.verification import Model
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import in_processes, write_model

from imlkd_brain.data.audio import read_waveform
from imlkd_brain.data.crops import crop_start
from imlkd_brain.distributed import rank
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.verification.embeddings import (
    Embedder,
    length_sorted_batches,
)
from imlkd_brain.verification.store import EmbeddingStore
from speechbrain.lobes.features import Fbank

RATE = 16000


def test_each_utterance_is_embedded_once_and_kept(corpus):
    """A second list, or another spelling of the path, costs no embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    model = Model()
    first, speech = Embedder(corpus / "store")(model, paths + paths[:2])
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
    embed = Embedder(corpus / "store")
    second, _ = embed(again, paths[::-1])
    assert again.batches == []
    assert torch.equal(second, first[:6].flip(0))
    # Changed audio, another model or another crop is not found.
    soundfile.write(paths[0], np.zeros(RATE) + 0.25, RATE)
    embed(again, paths)
    assert again.batches == [[RATE]]
    for key, crop in (("f" * 64, "full"), (again.key, "1s-seed0")):
        assert EmbeddingStore(corpus / "store", key, crop).rows == {}


def test_only_equal_lengths_share_a_batch_unless_padding_is_allowed(corpus):
    """Without padding an embedding does not depend on its batch."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    exact, padded = Model(), Model()
    for name, model, padding in (("e", exact, 0.0), ("p", padded, 1.0)):
        Embedder(corpus / name, max_padding_seconds=padding)(model, paths)
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
    embed = Embedder(corpus / "store", seed=5)
    embedding, speech = embed(model, [path], 0.5)
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
    _, speech = embed(model, [path], 3)
    assert speech.tolist() == [1.25]


@pytest.mark.parametrize("layout", ["{}.wav", "x/{}.wav", "wav/x/s/{}.wav"])
def test_a_corpus_that_is_moved_has_the_same_crops(tmp_path, layout):
    """Also where its own name is among the last folders of a path."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    crops = []
    for name in ("one", "two"):
        paths = [tmp_path / name / layout.format(i) for i in range(20)]
        paths[0].parent.mkdir(parents=True)
        for path in paths:
            soundfile.write(path, samples, RATE)
        embed = Embedder(tmp_path / f"{name}-store", 5, tmp_path / name)
        crops.append(embed(Model(), list(map(str, paths)), 0.25)[0])
    assert torch.equal(*crops)
    # The crops of 20 utterances with the same samples are not one crop.
    assert len(set(crops[0][:, 0].tolist())) > 10


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_audio_that_is_not_finite_is_named(corpus, value):
    """The file, not the model, and never an embedding."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    samples = np.zeros(16000, "float32")
    samples[123] = float(value)
    soundfile.write(paths[2], samples, 16000, "FLOAT")
    embed = Embedder(corpus / "store")
    with pytest.raises(UserError, match=f"^{paths[2]}: sample 123 is NaN or"):
        embed(Model(), paths)


def test_what_was_embedded_survives_an_interruption(corpus):
    """Embeddings before a failure are on disk, and only the rest is redone."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))

    class Failing(Model):
        def embed(self, wavs, lens):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().embed(wavs, lens)

    embed = Embedder(corpus / "store")
    with pytest.raises(KeyboardInterrupt):
        embed(Failing(), paths)
    model = Model()
    embed = Embedder(corpus / "store")
    embed(model, paths)
    assert model.batches == [[16000] * 4]


def test_audio_of_no_use_is_named(corpus):
    """Empty, not audio, gone."""
    embed = Embedder(corpus / "store")
    bad = corpus / "wav" / "bad.wav"
    soundfile.write(bad, np.zeros(0), RATE)
    with pytest.raises(UserError, match="is empty"):
        embed(Model(), [str(bad)])
    bad.write_text("no audio")
    with pytest.raises(UserError, match="this audio file is broken"):
        embed(Model(), [str(bad)])
    bad.unlink()
    with pytest.raises(UserError, match="there is no such audio file"):
        embed(Model(), [str(bad)])


@pytest.mark.parametrize("rate, channels", [(44100, 2), (8000, 1), (RATE, 2)])
def test_files_of_another_format_are_converted(corpus, rate, channels, caplog):
    """Whole and cut, as they would be if they were converted before."""
    generator = np.random.default_rng(0)
    samples = generator.uniform(-0.5, 0.5, (2 * rate, channels))
    theirs, ours = corpus / "theirs.wav", corpus / "ours.wav"
    soundfile.write(theirs, samples, rate, subtype="FLOAT")
    converted = read_waveform(theirs, RATE)
    soundfile.write(ours, converted.numpy(), RATE, subtype="FLOAT")
    for seconds in (None, 1.0):
        cuts = [], []
        for path, cut in zip((theirs, ours), cuts, strict=True):
            # The crop depends on the name.
            place = (
                corpus / f"{path.stem}{seconds}" / "wav" / "a" / "b" / "c.wav"
            )
            place.parent.mkdir(parents=True)
            place.write_bytes(path.read_bytes())
            embed = Embedder(
                corpus / f"store-{path.stem}",
                data_folder=str(place.parents[3]),
            )
            cut += embed(Model(), [str(place)], seconds)
        # The filter's sums come in another order.
        torch.testing.assert_close(cuts[0], cuts[1], rtol=1e-5, atol=1e-6)
    assert f"converted as they are read; the first is {corpus}" in caplog.text
    assert f"{channels} channels at {rate} Hz" in caplog.text


def test_embeddings_that_are_not_finite_are_refused(corpus):
    """A diverged model is said to be one, with the utterance."""

    class Diverged(Model):
        def embed(self, wavs, lens):
            return super().embed(wavs, lens) * math.nan

    path = str(corpus / "wav/x-b/s1/00000.wav")
    embed = Embedder(corpus / "store")
    with pytest.raises(UserError, match=f"{path}.*NaN or infinity"):
        embed(Diverged(), [path])
    assert EmbeddingStore(corpus / "store", Model.key, "full").rows == {}


def test_embeddings_in_tf32_are_stored_apart(corpus):
    """A run in full float32 never reads one of them."""
    paths = [str(corpus / "wav/x-b/s1/00000.wav")]
    rounded, exact = Model(), Model()
    Embedder(corpus / "store", allow_tf32=True)(rounded, paths)
    Embedder(corpus / "store")(exact, paths)
    assert len(rounded.batches) == len(exact.batches) == 1


def test_a_long_utterance_is_embedded_in_parts(corpus, monkeypatch):
    """No more than so many seconds at once; the mean of equal parts."""
    path = str(corpus / "wav/long.wav")
    samples = np.linspace(-1, 1, int(2.5 * RATE), dtype=np.float32) / 2
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    other = sorted(str(p) for p in corpus.glob("wav/*/*/*.wav"))[0]
    whole = Embedder(corpus / "whole")(Model(), [path, other])[0]
    monkeypatch.setattr(
        "imlkd_brain.verification.embeddings.LONGEST_SECONDS", 1
    )
    model = Model()
    found, speech = Embedder(corpus / "parts")(model, [path, other])
    assert max(max(lengths) for lengths in model.batches) <= RATE
    assert speech.tolist() == pytest.approx([2.5, 1.0])
    # The moments of equal parts average to those of the whole, but for a
    # sample more or less in a part.
    torch.testing.assert_close(found[0], whole[0], rtol=1e-3, atol=0)
    assert torch.equal(found[1], whole[1])


def test_too_short_for_a_window_or_a_network(corpus):
    path = str(corpus / "wav/short.wav")
    soundfile.write(path, np.full(160, 0.1), RATE)
    model = Model()
    model.compute_features = Fbank()
    with pytest.raises(UserError, match="short.wav: its 10 ms .*25 ms"):
        Embedder(corpus / "store")(model, [path])
    del model.compute_features

    def embed(wavs, lens):
        raise RuntimeError("Padding size should be less than the input")

    model.embed = embed
    with pytest.raises(UserError, match="short.wav: 10 ms .*network of model"):
        Embedder(corpus / "store")(model, [path])


def test_useless_speech_is_named(corpus, caplog):
    for name, samples in (
        ("silent", np.zeros(RATE)),
        ("constant", np.full(RATE, 0.25)),
        ("clipped", np.sign(np.sin(np.arange(RATE)))),
    ):
        soundfile.write(corpus / f"wav/{name}.wav", samples, RATE)
        Embedder(corpus / "store")(Model(), [str(corpus / f"wav/{name}.wav")])
        assert f"are {name}: {corpus}/wav/{name}.wav" in caplog.text
    caplog.clear()
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    Embedder(corpus / "store")(Model(), paths)
    assert "embedded utterances are" not in caplog.text


@pytest.mark.parametrize("n", [1, 2, 3])
def test_processes_share_the_batches_of_one_store(corpus, tmp_path, n):
    """All have the bits that one process has; each batch is embedded once."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    alone, _ = Embedder(corpus / "alone", max_batch_seconds=2)(Model(), paths)

    def share():
        model = Model()
        embed = Embedder(corpus / "shared", max_batch_seconds=2)
        whole, _ = embed(model, paths)
        cut, _ = embed(model, paths, 0.5)
        again, speech = embed(model, paths[:3])
        return whole.tolist(), cut.tolist(), speech.tolist(), model.batches

    whole, cut, speech, batches = zip(
        *in_processes(n, tmp_path, share), strict=True
    )
    assert all(rows == alone.tolist() for rows in whole)
    assert all(rows == cut[0] for rows in cut)
    assert all(seconds == [1, 1, 1.25] for seconds in speech)
    done = [batch for each in batches for batch in each]
    expected = [
        [20000],
        [20000],
        [16000] * 2,
        [16000] * 2,
        [8000] * 4,
        [8000] * 2,
    ]
    assert sorted(done) == sorted(expected)
    assert all(batches)


def test_the_parts_of_a_long_utterance_meet_in_one_process(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(f"{Embedder.__module__}.LONGEST_SECONDS", 0.5)
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    alone, _ = Embedder(corpus / "alone")(Model(), paths)

    def share():
        return Embedder(corpus / "shared")(Model(), paths)[0].tolist()

    assert in_processes(2, tmp_path, share) == [alone.tolist()] * 2


def test_a_share_that_was_cut_off_is_embedded_by_all_the_next_time(
    corpus, tmp_path
):
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))

    def share(broken=False):
        model = Model()
        if broken and rank():
            model.embed = None
        embed = Embedder(corpus / "shared", max_batch_seconds=1)
        try:
            return embed(model, paths)[0].tolist(), model.batches
        except (TypeError, RuntimeError):
            return model.batches

    kept = in_processes(2, tmp_path, lambda: share(broken=True))
    assert list(map(len, kept)) == [3, 0]
    (tmp_path / "meet").unlink(missing_ok=True)
    rows, batches = zip(*in_processes(2, tmp_path, share), strict=True)
    assert rows[0] == rows[1] and sorted(map(len, batches)) == [1, 2]


def test_embedding_spares_batchnorm_and_changes_nothing_of_the_model(
    corpus, tmp_path
):
    """Counted: an utterance takes fewer operations than the model's own pass."""
    paths = sorted(str(path) for path in corpus.glob("wav/*/*/*.wav"))
    model = load_speaker_model(write_model(tmp_path / "model"))
    before, parameters = (
        model.embedding_model,
        sum(1 for _ in model.parameters()),
    )
    norms = []
    hooks = [
        module.register_forward_hook(lambda *_: norms.append(1))
        for module in model.modules()
        if isinstance(module, torch.nn.BatchNorm1d)
    ]
    found, _ = Embedder(corpus / "store")(model, paths)
    assert not norms
    wavs = [
        torch.from_numpy(soundfile.read(p, dtype="float32")[0]) for p in paths
    ]
    expected = torch.cat([model.embed(wav.unsqueeze(0)) for wav in wavs])
    assert len(norms) == len(hooks) * len(paths)
    # Sums of a few hundred float32 numbers in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert model.embedding_model is before
    assert sum(1 for _ in model.parameters()) == parameters
