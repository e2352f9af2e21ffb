"""How many labelled utterances are in each batch."""

from collections import Counter

import pytest

from imlkd_brain.data.mixed_batches import MixedBatches


def batches(sampler, size, n_processes=1):
    """What each process is given, as torch's DistributedSampler does it."""
    rows = list(sampler)
    assert len(rows) == len(sampler)
    shares = [rows[rank::n_processes] for rank in range(n_processes)]
    return [
        [share[i : i + size] for i in range(0, len(share), size)]
        for share in shares
    ]


def test_with_the_share_of_the_data_each_utterance_comes_once():
    labelled = [i % 5 == 0 for i in range(100)]
    sampler = MixedBatches(labelled, 1, 0.2, 32)
    (mine,) = batches(sampler, 32)
    # 6.4, 12.8 and 19.2 of 32, 64 and 96, rounded
    assert [sum(labelled[i] for i in batch) for batch in mine] == [6, 7, 6, 1]
    assert sorted(i for batch in mine for i in batch) == list(range(100))


def test_few_labels_are_two_in_each_batch_and_come_again():
    labelled = [i < 3 for i in range(320)]
    (mine,) = batches(MixedBatches(labelled, 1, 3 / 320, 32), 32)
    assert [sum(labelled[i] for i in batch) for batch in mine] == [2] * 10
    counts = Counter(i for batch in mine for i in batch if labelled[i])
    assert sorted(counts.values()) == [6, 7, 7]


@pytest.mark.parametrize("drop_last", [True, False])
def test_all_processes_have_as_many_labels(drop_last):
    labelled = [i < 30 for i in range(101)]
    sampler = MixedBatches(labelled, 1, 0.3, 10, 2, drop_last)
    one, other = batches(sampler, 10, 2)
    counts = [
        [sum(labelled[i] for i in batch) for batch in mine]
        for mine in (one, other)
    ]
    assert counts[0] == counts[1] and set(counts[0][:5]) == {3}
    assert len(sampler) == (100 if drop_last else 102)


def test_the_order_is_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = MixedBatches([True, False] * 20, seed, 0.5, 4)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(*at)) for at in ((1, 1), (1, 2), (2, 1))}) == 3


@pytest.mark.parametrize("share", [0.001, 1])
def test_two_of_either_kind_are_there(share):
    labelled = [True] * 50 + [False] * 50
    (mine,) = batches(MixedBatches(labelled, 1, share, 10), 10)
    few = 2 if share < 0.5 else 8
    assert [sum(labelled[i] for i in batch) for batch in mine] == [few] * 10
