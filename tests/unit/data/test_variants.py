"""Unit tests of ``imlkd_brain.data.variants``."""

import random

import pytest
import torch
from synthetic import write_corpus

from imlkd_brain.data.datasets import batches_per_epoch, train_dataset
from imlkd_brain.data.variants import (
    Recipe,
    VariantSampler,
    VariantSet,
    augmentation_settings,
)
from imlkd_brain.errors import UserError
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import DropChunk, DropFreq
from speechbrain.dataio.sampler import (
    DistributedSamplerWrapper,
    ReproducibleRandomSampler,
)

N_VARIANTS = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def recipe():
    return Recipe(7, 0.4, 16000, [0.1, 0.25], 100.0, 41)


def chunks(corpus, recipe, wav_augment=None):
    """Today's training set and chunks of the same rows, at two speeds."""
    today, drawn = train_dataset(
        str(corpus / "train.csv"), "", 0.4, 16000, recipe.seed, [1.0, 1.1]
    )
    stored = VariantSet(today.data, recipe, N_VARIANTS, wav_augment)
    return today, drawn, stored


def test_variant_k_is_the_chunk_of_epoch_k_and_one(corpus, recipe):
    today, drawn, stored = chunks(corpus, recipe)
    assert len(stored) == len(today) == 16
    for variant in range(N_VARIANTS):
        drawn.epoch = variant + 1
        for row in range(len(today)):
            item = stored[row + variant * len(today)]
            assert item["id"] == today[row]["id"]
            assert torch.equal(item["sig"], today[row]["sig"])
    with pytest.raises(IndexError):
        stored[N_VARIANTS * len(today)]


def test_a_segment_is_drawn_by_row_and_variant(corpus, recipe):
    _, _, stored = chunks(corpus, recipe)
    starts = set()
    for index in range(N_VARIANTS * len(stored)):
        frames = stored[index]["frames"]
        length = [10, 25, 10][index // len(stored)]
        assert len(frames) == length
        assert 0 <= frames[0] and frames[-1] < 41
        assert torch.equal(frames, frames[0] + torch.arange(length))
        assert torch.equal(frames, stored[index]["frames"])
        starts.add(int(frames[0]))
    assert len(starts) > 10


def test_a_segment_is_never_longer_than_its_chunk(recipe):
    recipe.durations = [5.0]
    assert torch.equal(recipe.frames("a", 0), torch.arange(41))


class Rows(list):
    n_variants = 4


def test_the_order_of_rows_is_todays():
    rows = Rows(range(23))
    sampler = VariantSampler(rows, seed=5, batch_size=4)
    today = ReproducibleRandomSampler(rows, seed=5)
    orders = []
    for epoch in range(1, 6):
        sampler.set_epoch(epoch)
        today.set_epoch(epoch)
        found = list(sampler)
        assert [index % 23 for index in found] == list(today)
        assert found == list(sampler)
        orders.append(found)
    assert len(sampler) == 23
    variants = {index // 23 for order in orders for index in order}
    assert variants == {0, 1, 2, 3}


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("n_rows", [47, 48, 49, 50])
@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_a_batch_of_all_processes_has_one_variant(
    n_rows, n_processes, drop_last
):
    """Also the last one, as SpeechBrain shares an epoch out."""
    rows = Rows(range(n_rows))
    size = 4
    shares = []
    for rank in range(n_processes):
        sampler = VariantSampler(rows, 1, size, n_processes, drop_last)
        share = DistributedSamplerWrapper(
            sampler,
            num_replicas=n_processes,
            rank=rank,
            shuffle=False,
            drop_last=drop_last,
        )
        share.set_epoch(3)
        shares.append(list(share))
    assert len({len(share) for share in shares}) == 1
    batches = [
        [share[start : start + size] for share in shares]
        for start in range(0, len(shares[0]), size)
    ]
    if drop_last:
        batches = [b for b in batches if len(b[0]) == size]
    assert len(batches) == batches_per_epoch(
        n_rows, n_processes, size, drop_last
    )
    for batch in batches:
        assert len({i // n_rows for part in batch for i in part}) == 1
    seen = [i % n_rows for share in shares for i in share]
    if drop_last:
        assert len({*seen}) == len(seen)
    else:
        assert {*seen} == {*range(n_rows)}


def augmenter(**more):
    """Frequency and chunk drop, drawn anew at each call."""
    return Augmenter(
        min_augmentations=1,
        max_augmentations=2,
        augment_prob=0.9,
        shuffle_augmentations=True,
        augmentations=[
            DropFreq(),
            DropChunk(drop_length_low=100, drop_length_high=900),
        ],
        **more,
    )


def test_what_is_added_depends_on_row_and_variant_alone(corpus, recipe):
    _, _, plain = chunks(corpus, recipe)
    _, _, one = chunks(corpus, recipe, augmenter())
    _, _, other = chunks(corpus, recipe, augmenter())
    order = list(range(N_VARIANTS * len(one)))
    heard = {index: one[index]["sig"] for index in order}
    changed = 0
    for index in reversed(order):
        torch.manual_seed(index)
        assert torch.equal(other[index]["sig"], heard[index])
        changed += not torch.equal(heard[index], plain[index]["sig"])
    assert len(order) // 2 < changed < len(order)


def test_augmenting_leaves_the_streams_of_others_alone(corpus, recipe):
    _, _, dataset = chunks(corpus, recipe, augmenter())
    torch.manual_seed(1)
    random.seed(1)
    expected = torch.rand(1), random.random()
    torch.manual_seed(1)
    random.seed(1)
    dataset[0]["sig"]
    assert (torch.rand(1), random.random()) == expected


def test_two_views_of_a_chunk_are_refused(corpus, recipe):
    _, _, dataset = chunks(corpus, recipe, augmenter(concat_original=True))
    with pytest.raises(UserError, match="wav_augment: makes"):
        for index in range(len(dataset)):
            dataset[index]["sig"]


def test_the_description_of_augmentations_is_that_of_their_options(tmp_path):
    used, unused = augmenter(), augmenter()
    used(torch.randn(2, 4000), torch.ones(2))
    assert augmentation_settings(used) == augmentation_settings(unused)
    assert augmentation_settings(None) is None
    found = augmentation_settings(augmenter(repeat_augment=2))
    assert found != augmentation_settings(unused)
    assert found["repeat_augment"] == 2
    assert 900 in found.values()
