"""Unit tests of ``imlkd_brain.verification.scoring``."""

import pytest
import torch

from imlkd_brain.verification.scoring import (
    NORMALISATIONS,
    cohort_statistics,
    normalise_scores,
    score_trials,
)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_scores_are_torchs_cosine_similarity(block):
    """In blocks, with a zero embedding and huge ones among them."""
    generator = torch.Generator().manual_seed(0)
    enrol = torch.randn(20, 16, generator=generator)
    test = torch.randn(30, 16, generator=generator) * 1000
    enrol[3] = 0
    pairs = torch.stack(
        [
            torch.randint(20, (100,), generator=generator),
            torch.randint(30, (100,), generator=generator),
        ],
        dim=1,
    )
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    expected = cosine(enrol[pairs[:, 0]], test[pairs[:, 1]])
    scores = score_trials(enrol, test, pairs, block=block)
    # float32: dividing before or after the product, 16 terms.
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", NORMALISATIONS)
@pytest.mark.parametrize("block", [3, 1000])
def test_normalisation_is_the_per_trial_formula(method, block):
    """Each trial on its own, with cosines against the whole cohort."""
    generator = torch.Generator().manual_seed(1)
    enrol = torch.randn(8, 12, generator=generator)
    test = torch.randn(9, 12, generator=generator)
    cohort = torch.randn(50, 12, generator=generator)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(9))
    top = 10 if method == "as-norm" else None
    scores = normalise_scores(
        score_trials(enrol, test, pairs),
        pairs,
        cohort_statistics(enrol, cohort, top, block=block),
        cohort_statistics(test, cohort, top, block=block),
        method,
    )
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    for score, (i, j) in zip(scores, pairs.tolist(), strict=True):
        raw = cosine(enrol[i], test[j])
        sides = []
        for embedding in (enrol[i], test[j]):
            impostors = cosine(embedding.expand_as(cohort), cohort)
            if top:
                impostors = impostors.topk(top).values
            sides.append((raw - impostors.mean()) / impostors.std())
        expected = {"z-norm": sides[0], "t-norm": sides[1]}.get(
            method, (sides[0] + sides[1]) / 2
        )
        # A float32 mean and deviation, divided by a deviation of about 0.1.
        torch.testing.assert_close(score, expected, atol=2e-5, rtol=2e-5)


def test_cohorts_without_statistics_are_refused():
    """One utterance has no deviation; more than there are cannot be used."""
    one = torch.ones(1, 4)
    with pytest.raises(ValueError, match="at least two"):
        cohort_statistics(one, one)
    with pytest.raises(ValueError, match="no more than there are"):
        cohort_statistics(one, torch.ones(5, 4), top=6)
    with pytest.raises(ValueError, match="unknown score normalisation"):
        normalise_scores(torch.ones(1), torch.zeros(1, 2), 0, 0, "x-norm")
