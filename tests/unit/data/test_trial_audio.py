"""Unit tests of ``imlkd_brain.data.trial_audio``."""

import math

import pytest
import torch
from helpers.verification import write

from imlkd_brain.data import trial_audio
from imlkd_brain.data.trial_audio import (
    locate_trials,
    read_enrolments,
)
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.scoring import enrol_models, score_trials

GOOD = "1 a/s/1 a/s/2\n0 a/s/1 b/s/1\n"


def test_unknown_utterances_are_named_with_their_lines(corpus):
    """One sentence with the first trials that name them."""
    path = write(
        corpus / "bad.txt",
        "1 x-a/s1/00000 x-a/s1/00001\n0 x-a/s1/00000 q/s1/7\n0 r/s/1 q/s1/7\n",
    )
    with pytest.raises(UserError) as error:
        locate_trials(read_trials(path), corpus)
    assert "2 utterances are not in" in str(error.value)
    assert "(line 2: q/s1/7, line 3: r/s/1)" in str(error.value)
    with pytest.raises(UserError, match="no such folder; --data_folder"):
        locate_trials(read_trials(path), corpus / "none")


def test_kaldi_names_and_several_folders_find_the_audio(corpus, tmp_path):
    """speaker-session-utterance is a path, dashes in the speaker or not."""
    path = write(
        corpus / "kaldi.txt",
        "x-a-s1-00000 x-a-s1-00001 target\nx-a-s1-00000 y-c-s1-00000 nontarget",
    )
    (tmp_path / "other").mkdir()
    located = locate_trials(read_trials(path), f"{tmp_path / 'other'},{corpus}")
    assert located.enrol_files == [[str(corpus / "wav/x-a/s1/00000.wav")]]
    assert located.test_speakers == ["x-a", "y-c"]
    assert located.pairs.tolist() == [[0, 0], [0, 1]]


def test_several_enrolment_utterances(corpus):
    """A model's embedding is the mean of its unit-length embeddings."""
    enrolments = read_enrolments(
        write(corpus / "models.txt", "m1 x-a/s1/00000.wav x-a/s1/00001.wav\n")
    )
    path = write(corpus / "m.txt", "1 m1 x-a/s1/00001\n0 m1 x-b/s1/00000\n")
    located = locate_trials(read_trials(path), corpus, enrolments)
    assert [len(files) for files in located.enrol_files] == [2]
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [2.0, 2.0]])
    scores = score_trials(
        enrol_models(embeddings, [[0, 1]]),
        embeddings,
        torch.tensor([[0, 0], [0, 2]]),
    )
    # The mean direction is the diagonal. One float32 rounding per step.
    torch.testing.assert_close(
        scores, torch.tensor([math.sqrt(0.5), 1.0]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("text", ["m1\n", "m1 a/s/1\nm1 a/s/2\n"])
def test_bad_enrolments_get_one_sentence(tmp_path, text):
    """A model without utterances, or with two lines."""
    path = write(tmp_path / "models.txt", text)
    with pytest.raises(UserError, match=r"line \d: the model m1"):
        read_enrolments(path)


def test_names_that_are_nowhere_are_not_all_looked_for(corpus, monkeypatch):
    looked = []
    find = trial_audio._find_audio
    monkeypatch.setattr(
        trial_audio, "_find_audio", lambda *a: looked.append(a) or find(*a)
    )
    path = corpus / "unknown.txt"
    path.write_text(
        "".join(f"{i % 2} n{i}/s/u m{i}/s/u\n" for i in range(5000))
    )
    with pytest.raises(UserError, match="1000 or more utterances are not in"):
        trial_audio.locate_trials(read_trials(path), corpus)
    assert len(looked) == trial_audio.MOST_UNKNOWN
