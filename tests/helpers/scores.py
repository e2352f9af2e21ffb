"""Scores for property tests, and their error rates by counting."""

import math

import torch
from hypothesis import strategies as st

# Few values make ties, within a kind and across; the others make none.
TIED = st.integers(-3, 3).map(float)
FREE = st.floats(-5, 5, width=32)
SCORES = st.one_of(
    *(
        st.tuples(
            st.lists(values, min_size=1, max_size=12),
            st.lists(values, min_size=1, max_size=12),
        )
        for values in (TIED, FREE)
    )
)


def tensors(scores, dtype=torch.float32):
    """Positive and negative scores as tensors."""
    return [torch.tensor(kind, dtype=dtype) for kind in scores]


def operating_points(scores):
    """(threshold, p_miss, p_fa) by counting, accept-everything included."""
    positive, negative = scores
    points = [(-math.inf, 0.0, 1.0)]
    for threshold in sorted({*positive, *negative}):
        missed = sum(score <= threshold for score in positive)
        accepted = sum(score > threshold for score in negative)
        points.append(
            (threshold, missed / len(positive), accepted / len(negative))
        )
    return points
