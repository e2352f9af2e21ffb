"""Unit tests of ``imlkd_brain.verification.scorer``."""

import pytest
import torch
from helpers.verification import Model

from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.scorer import BackEnd, Scorer


def test_mean_subtraction_and_normalisation_of_whole_lists(corpus):
    """The scorer does what its parts do, in order."""
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    generator = torch.Generator().manual_seed(2)
    table = {}

    def embed(model, paths, seconds):
        for path in paths:
            if (path, seconds) not in table:
                table[path, seconds] = torch.randn(5, generator=generator) + 1
        rows = [table[path, seconds] for path in paths]
        return torch.stack(rows), torch.full((len(paths),), seconds or 9.0)

    cohort = [f"cohort{i}" for i in range(6)]
    back_end = BackEnd(mean_subtraction=True, score_norm="s-norm")
    scorer = Scorer(Model(), embed, back_end, cohort)
    scores, (enrol_speech, test_speech) = scorer.score(located, 2)
    assert enrol_speech.tolist() == [9.0] * 4  # only the test side is cropped
    assert test_speech.tolist() == [2.0] * 4
    impostors = torch.stack([table[path, None] for path in cohort])
    mean = impostors.mean(dim=0)
    cosine = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    wav = str(corpus / "wav")
    for trial, score in enumerate(scores):
        enrol = table[f"{wav}/{located.trials.enrol[trial]}.wav", None] - mean
        test = table[f"{wav}/{located.trials.test[trial]}.wav", 2] - mean
        raw, sides = cosine(enrol, test), []
        for side in (enrol, test):
            against = cosine(side.expand(6, 5), impostors - mean)
            sides.append((raw - against.mean()) / against.std())
        # float32, divided by a deviation of a few tenths.
        torch.testing.assert_close(score, sum(sides) / 2, atol=1e-5, rtol=1e-5)


def test_scores_that_are_not_finite_name_their_trials(corpus):
    """Of one utterance alone; the lines are those of the user's list."""
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    broken = located.trials.test[0]

    def embed(model, paths, seconds):
        rows = torch.ones(len(paths), 5)
        for row, path in zip(rows, paths, strict=True):
            if path.endswith(f"/{broken}.wav"):
                row.fill_(torch.nan)
        return rows, torch.full((len(paths),), 9.0)

    trials = zip(
        located.trials.enrol,
        located.trials.test,
        located.trials.lines,
        strict=True,
    )
    bad = [str(line) for *sides, line in trials if broken in sides]
    assert 0 < len(bad) < len(located.trials.lines)
    with pytest.raises(UserError) as caught:
        Scorer(Model(), embed, BackEnd()).score(located)
    lines = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
    assert f"{len(bad)} scores are NaN or infinite (lines {lines})" in str(
        caught.value
    )
