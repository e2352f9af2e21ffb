"""Unit tests of ``imlkd_brain.verification.dev_trials``."""

import pytest
from synthetic import RATE, write_corpus, write_wav

from imlkd_brain.data.datasets import valid_dataset
from imlkd_brain.errors import UserError
from imlkd_brain.verification.dev_trials import (
    DevTrials,
    check_valid_durations,
    valid_trials,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    "durations", [[None, 2.0], ["full", None], [2.0], [], None, "full"]
)
def test_durations_begin_with_full_and_null_is_told_so(durations):
    with pytest.raises(UserError, match=r"valid_durations: .*\[full, 2.0, 1.0"):
        DevTrials(None, durations, RATE)


def test_durations_are_full_or_seconds():
    read = check_valid_durations(["full", 2.0, 1])
    assert read == {"full": None, "2s": 2.0, "1s": 1}
    with pytest.raises(
        UserError, match="valid_durations.* is 'whole', but must be full"
    ):
        check_valid_durations(["full", "whole"])


def test_without_a_list_there_are_no_dev_trials(corpus):
    valid = valid_dataset(str(corpus / "dev.csv"), "", RATE)
    assert DevTrials(None, ["full"], RATE).open(valid, valid) is None
    trials = DevTrials(str(corpus / "dev.txt"), ["full"], RATE, True)
    assert trials.open(valid, valid) is trials


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
