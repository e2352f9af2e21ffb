"""Fixtures that several test files of this folder share."""

import numpy as np
import pytest
import torch
from helpers.verification import write

from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.verification.measures import Measures, measure
from imlkd_brain.verification.scorer import Scored


@pytest.fixture
def measured(corpus):
    """Scores of a list at two durations, and their rows."""
    lines, draw = [], np.random.default_rng(6)
    names = [f"{s}/s1/0000{u}" for s in ("x-a", "x-b", "y-c") for u in (0, 1)]
    for enrol in names:
        for test in names:
            label = enrol.split("/")[0] == test.split("/")[0]
            lines.append(f"{int(label)} {enrol} {test}")
    path = write(corpus / "all.txt", "\n".join(lines))
    located = locate_trials(read_trials(path), corpus)
    labels = located.trials.labels
    scores = {
        duration: torch.from_numpy(draw.normal(size=36)).float() + labels
        for duration in ("full", "1s")
    }
    ratios = {name: 3 * values for name, values in scores.items()}
    scored = Scored(located, "m 1", scores, ratios)
    measures = Measures([0.05], group_separator="-", bootstrap_samples=20)
    return scored, measure(scored, measures)
