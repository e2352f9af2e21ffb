"""Unit tests of ``imlkd_brain.distillation.prototypes``."""

import os
from functools import partial

import pytest
import torch
from helpers.teacher import training_set
from synthetic import in_processes, write_corpus, write_model
from torch.nn.functional import normalize

from imlkd_brain.distillation.prototypes import (
    embed_dataset,
    kept_prototypes,
    speaker_prototypes,
)
from imlkd_brain.distillation.teacher import Teacher, load_teacher
from imlkd_brain.models.folder import load_speaker_model
from speechbrain.lobes.models.ECAPA_TDNN import Classifier


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training output folder; its inference folder is in it."""
    return write_model(tmp_path_factory.mktemp("models") / "run").parent


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8000, generator=generator)


def test_prototypes_are_mean_directions():
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0], [1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 2])
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(
        speaker_prototypes(embeddings, labels, 3), expected
    )


@pytest.mark.parametrize("blocks", [0, 1])
def test_prototypes_stand_in_for_classes(trained, wavs, blocks):
    """Also where the teacher's own classifier has layers before its rows."""
    model = load_speaker_model(trained)
    model.classifier = Classifier(8, lin_blocks=blocks, lin_neurons=6)
    embeddings = model.embed(wavs)
    prototypes = speaker_prototypes(embeddings, torch.tensor([1, 0, 2]), 3)
    teacher = Teacher(model, ["x", "y", "z"], prototypes)
    cosines = teacher.cosines(model.features(wavs))
    directions = normalize(embeddings, dim=-1)
    expected = directions @ directions[[1, 0, 2]].T
    torch.testing.assert_close(cosines, expected, atol=1e-6, rtol=0)
    assert not any(module.training for module in teacher.modules())


def test_prototypes_through_load_teacher(trained, wavs):
    def prototypes(model, n_speakers):
        labels = torch.tensor([0, 1, 1])
        return speaker_prototypes(model.embed(wavs), labels, n_speakers)

    teacher = load_teacher(trained, ["x", "y"], "prototypes", prototypes)
    assert teacher.rows.shape == (2, 8)
    assert teacher.cosines(teacher.features(wavs))[0].argmax() == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_prototypes_are_computed_once_for_all_processes_and_starts(
    trained, corpus, tmp_path, monkeypatch
):
    model = load_speaker_model(trained)
    path = str(tmp_path / "prototypes.pt")
    asked = []
    embed = embed_dataset
    monkeypatch.setattr(
        "imlkd_brain.distillation.prototypes.embed_dataset",
        lambda *args, **more: asked.append(args) or embed(*args, **more),
    )

    def kept(dataset=None, **options):
        dataset = dataset or training_set(corpus)
        n_before, state = len(asked), torch.random.get_rng_state()
        rows = kept_prototypes(
            dataset, "cpu", model, 4, path, {"seed": 1, **options}
        )
        # Nothing that comes after depends on whether they were there.
        assert torch.equal(state, torch.random.get_rng_state())
        return rows.tolist(), len(asked) - n_before

    both = in_processes(2, tmp_path, kept)
    expected = speaker_prototypes(*embed(model, training_set(corpus)), 4)
    # Its share for either of them, then the main one puts together.
    assert both == [(expected.tolist(), 2), (expected.tolist(), 1)]
    assert in_processes(2, tmp_path, kept) == [(expected.tolist(), 0)] * 2
    assert kept() == (expected.tolist(), 0)
    # Other options, other data, or half a file: computed anew.
    assert kept(seed=2)[1] == kept()[1] == 1
    (first, *_) = training_set(corpus).data.values()
    os.utime(first["wav"], (1, 1))
    assert kept()[1] == 1
    with open(path, "r+b") as stream:
        stream.truncate(100)
    assert kept() == (expected.tolist(), 1)


def test_classes_that_nothing_depends_on_cost_nothing(trained, tmp_path):
    model = load_speaker_model(trained)
    path = tmp_path / "prototypes.pt"
    rows = kept_prototypes(None, "cpu", model, 4, str(path), {"seed": 1})
    assert torch.equal(rows, torch.zeros(4, model.embedding_dim))
    assert not path.exists()


def test_an_interrupted_embedding_goes_on(
    trained, corpus, tmp_path, monkeypatch
):
    """Whole parts are not embedded again, and nothing is left of them."""
    monkeypatch.setattr("imlkd_brain.distillation.prototypes.PART", 1)
    model, dataset = load_speaker_model(trained), training_set(corpus)
    # Batches of 64 hold all 8 utterances; these are batches of 3.
    whole = embed_dataset(model, dataset, batch_size=3)
    monkeypatch.setattr(
        "imlkd_brain.distillation.prototypes.embed_dataset",
        partial(embed_dataset, batch_size=3),
    )
    heard, embed = [], type(model).embed_features
    path = tmp_path / "prototypes.pt"

    def kept(limit):
        heard.clear()

        def listen(self, feats, lens=None):
            if sum(heard) + len(feats) > limit:
                raise KeyboardInterrupt
            heard.append(len(feats))
            return embed(self, feats, lens)

        monkeypatch.setattr(type(model), "embed_features", listen)
        return kept_prototypes(dataset, "cpu", model, 4, str(path), {})

    with pytest.raises(KeyboardInterrupt):
        kept(limit=6)
    assert heard == [3, 3] and not path.exists()
    rows = kept(limit=8)
    assert heard == [2]
    # The same to the bit: batches do not depend on where it was stopped.
    assert torch.equal(rows, speaker_prototypes(*whole, 4))
    assert [found.name for found in tmp_path.iterdir()] == ["prototypes.pt"]
    # Parts of another teacher, data or options do not count.
    with pytest.raises(KeyboardInterrupt):
        dataset.data[next(iter(dataset.data))]["more"] = "other"
        kept(limit=3)
    dataset.data[next(iter(dataset.data))]["more"] = "another"
    kept(limit=8)
    assert heard == [3, 3, 2]


@pytest.mark.parametrize("n", [2, 5])
def test_processes_embed_each_part_once_and_get_the_same_bits(
    trained, corpus, tmp_path, monkeypatch, n
):
    """Also where there are fewer parts, three, than processes."""
    monkeypatch.setattr("imlkd_brain.distillation.prototypes.PART", 1)
    model, dataset = load_speaker_model(trained), training_set(corpus)

    def alone():
        parts = embed_dataset(model, dataset, batch_size=3)
        return speaker_prototypes(*parts, 4).tolist()

    # A process of its own too: it has the same threads.
    (whole,) = in_processes(1, tmp_path, alone)
    monkeypatch.setattr(
        "imlkd_brain.distillation.prototypes.embed_dataset",
        partial(embed_dataset, batch_size=3),
    )
    heard, embed = [], type(model).embed_features

    def listen(self, feats, lens=None):
        heard.append(len(feats))
        return embed(self, feats, lens)

    monkeypatch.setattr(type(model), "embed_features", listen)

    def kept():
        path = str(tmp_path / "prototypes.pt")
        rows = kept_prototypes(dataset, "cpu", model, 4, path, {})
        return rows.tolist(), heard

    rows, shares = zip(*in_processes(n, tmp_path, kept), strict=True)
    assert all(each == whole for each in rows)
    assert shares == (([3, 2], [3]) if n == 2 else ([3], [3], [2], [], []))
