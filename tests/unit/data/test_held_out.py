"""Unit tests of ``imlkd_brain.data.held_out``."""

from types import SimpleNamespace

import pytest
from helpers.dataio import train
from synthetic import RATE, write_corpus

from imlkd_brain.data.datasets import valid_dataset
from imlkd_brain.data.held_out import (
    check_dev_speakers,
    check_held_out,
    training_speakers,
)
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.dev_trials import valid_trials


def test_dev_trials_of_training_speakers_are_refused(tmp_path):
    """Whoever prepared the data, and at any speed of the training."""
    data = write_corpus(tmp_path)
    valid = valid_dataset(str(data / "dev.csv"), "", RATE)
    trials = valid_trials(str(data / "dev.txt"), valid)
    clean, _ = train(data / "train.csv")
    check_dev_speakers(trials, valid, clean)
    check_dev_speakers(None, valid, clean)
    text = (data / "train.csv").read_text()
    leaking = tmp_path / "leaking.csv"
    leaking.write_text(text.replace("anna", "fred"))
    for speeds in ((1.0,), (0.9, 1.1)):
        trained, _ = train(leaking, speeds=speeds)
        with pytest.raises(UserError, match="1 of 2 .*first: fred.*allow_tr"):
            check_dev_speakers(trials, valid, trained)
        check_dev_speakers(trials, valid, trained, allow=True)


def test_speakers_that_were_learnt_are_refused(corpus):
    """With the source and the names; allowed only when told so."""
    located = locate_trials(read_trials(corpus / "list.txt"), corpus)
    sources = {"the training data of the model m": ["q", "x-a", "x-b"]}
    with pytest.raises(
        UserError, match=r"model m holds 2 of its 3 speakers \(x-a, x-b\)"
    ):
        check_held_out(located, sources)
    assert len(check_held_out(located, sources, allow=True)) == 1
    assert check_held_out(located, {"the cohort": ["q"]}) == []


@pytest.mark.parametrize(
    ("own", "others", "found"),
    [
        (["a"], [], [["a"]]),
        (["a"], ["b"], [["a"], ["b"]]),
        ([], ["b"], [["b"]]),  # a model without classes, as in the package
        ([], [], [[]]),  # not known, which is said
    ],
)
def test_speakers_of_a_model_come_from_its_classes_or_its_list(
    own, others, found
):
    model = SimpleNamespace(speakers=own, teacher_speakers=others)
    assert list(training_speakers({"m": model}).values()) == found
