"""Unit tests of ``imlkd_brain.verification.dev_trials``."""

import pytest
from synthetic import RATE, write_corpus, write_wav

from imlkd_brain.data.datasets import valid_dataset
from imlkd_brain.errors import UserError
from imlkd_brain.verification.dev_trials import valid_trials


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_dev_trials_must_be_in_the_annotation(corpus, tmp_path):
    valid = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    assert valid_trials(None, valid) is None
    trials = valid_trials(str(corpus / "dev.txt"), valid)
    assert len(trials.pairs) == 15 and int(trials.labels.sum()) == 6
    path = tmp_path / "t.txt"
    path.write_text(
        "1 emil/s0/1.wav emil/s1/1.wav\n0 emil/s0/1.wav x/y/1.wav\n"
    )
    with pytest.raises(UserError, match="1 utterances.*first: x/y/1"):
        valid_trials(str(path), valid)


def test_dev_trials_find_utterances_without_a_session(tmp_path):
    """`<speaker>/<utterance>` of the list is the annotation's file."""
    rows = ["ID,duration,wav,start,stop,spk_id"]
    for speaker in ("emil", "fred"):
        for i in range(2):
            path = write_wav(
                tmp_path / "wav" / speaker / f"{i}.wav", 0.3, 90, i
            )
            rows.append(f"{speaker}{i},0.3,{path},0,4800,{speaker}")
    annotation = tmp_path / "dev.csv"
    annotation.write_text("\n".join(rows) + "\n")
    valid = valid_dataset(str(annotation), "", RATE)
    path = tmp_path / "t.txt"
    path.write_text("1 emil/0.wav emil/1.wav\n0 emil/0.wav fred/1.wav\n")
    trials = valid_trials(str(path), valid)
    known = {valid[i]["utterance"] for i in range(4)}
    assert set(trials.utterances) <= known and len(trials.utterances) == 3
    path.write_text("1 emil/0.wav emil/1.wav\n0 emil/0.wav 1.wav\n")
    with pytest.raises(UserError, match="1 may be wav/emil/1 or wav/fred/1"):
        valid_trials(str(path), valid)
