"""Which utterances of a batch each branch has."""

from collections import Counter

import pytest
import torch

from imlkd_brain.distillation.parts import draw_rows, parts_of


@pytest.mark.parametrize(
    "n_rows, share, n_drawn",
    [(32, 0.5, 16), (32, 0.26, 9), (9, 0.5, 5), (4, 0.01, 2), (1, 0.5, 1)],
)
def test_each_row_is_as_likely_as_another(n_rows, share, n_drawn):
    """1,000 starts: 5 standard deviations of a binomial on each side."""
    seen = Counter()
    for seed in range(1000):
        rows = draw_rows(n_rows, share, seed)
        assert len(rows) == n_drawn
        assert rows == sorted(set(rows)) and rows[-1] < n_rows
        seen.update(rows)
    mean = n_drawn / n_rows
    assert len(seen) == n_rows
    for count in seen.values():
        assert abs(count / 1000 - mean) <= 5 * (mean * (1 - mean) / 1000) ** 0.5


def test_labels_keep_their_proportion():
    """8 labelled before 24 others, as MixedBatches gives them."""
    for seed in range(50):
        rows = draw_rows(32, 0.5, seed)
        assert sum(row < 8 for row in rows) == 4


def test_all_of_a_batch_is_one_part():
    target = torch.tensor([3, -1, 0])
    parts = parts_of(target, 1.0, seed=1, unlabelled=True)
    assert len({id(part) for part in parts.values()}) == 1
    assert parts["raw"].rows is None and parts["raw"].target is target
    assert parts["raw"].labelled.tolist() == [0, 2]
    assert parts["raw"].shares == [1.0, 1.0]


def test_labels_are_numbered_within_the_part():
    target = torch.tensor([3, 1, -1, -1, 0, -1, 2, -1])
    parts = parts_of(target, 0.5, seed=5, unlabelled=True)
    rows = draw_rows(8, 0.5, 5)
    assert parts["raw"].rows is None and len(parts["raw"].target) == 8
    for name in ("integrated", "cross", "segment"):
        part = parts[name]
        assert part.rows.tolist() == rows
        assert part.target.tolist() == target[rows].tolist()
        labels = part.target[part.labelled].tolist()
        assert labels == [t for t in target[rows].tolist() if t >= 0]
    everybody = parts_of(target.abs(), 0.5, seed=5, unlabelled=False)
    assert everybody["cross"].labelled is None
