"""Unit tests of ``imlkd_brain.data.trials``."""

import pytest
from helpers.verification import write

from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError


def test_both_orders_give_the_same_trials(tmp_path):
    """SpeechBrain's order with 1 and 0, Kaldi's with words, suffix or not."""
    speechbrain = read_trials(
        write(tmp_path / "sb.txt", "1 a/s/1.wav a/s/2.wav\n0 a/s/1.wav b/s/1")
    )
    kaldi = read_trials(
        write(tmp_path / "k.txt", "a/s/1 a/s/2 target\n\na/s/1 b/s/1 nontarget")
    )
    for trials in (speechbrain, kaldi):
        assert trials.utterances == ["a/s/1", "a/s/2", "b/s/1"]
        assert trials.pairs.tolist() == [[0, 1], [0, 2]]
        assert trials.labels.tolist() == [True, False]
        assert trials.enrol == ["a/s/1", "a/s/1"]
        assert trials.test == ["a/s/2", "b/s/1"]
    assert list(kaldi.lines) == [1, 3]


def test_utterances_of_deep_folders_are_not_taken_for_one(tmp_path):
    """Two that end alike are two; two spellings of one are one."""
    trials = read_trials(
        write(
            tmp_path / "deep.txt",
            "1 en/a/s/x/1.wav en/a/s/x/2.wav\n0 en/a/s/x/1 en/b/s/x/2\n"
            "0 wav/en/b/s/x/2.wav en/a/s/x/2\n0 s/x/3 a/s/x/3.wav\n",
        )
    )
    assert trials.pairs.tolist() == [[0, 1], [0, 2], [2, 1], [3, 3]]
    assert trials.spellings[2] == "en/b/s/x/2"
    assert len(set(trials.utterances)) == 4


GOOD = "1 a/s/1 a/s/2\n0 a/s/1 b/s/1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("one two\n", r"not a trial in 1 lines \(line 1: 'one two'\)"),
        (GOOD + "0 a/s/1\n", r"not a trial in 1 lines \(line 3: '0 a/s/1'\)"),
        (GOOD + "0 a b c\n" * 5, r"in 5 lines \(line 3: .*, \.\.\.\)"),
        (
            GOOD + "a/s/1 b/s/2 nontarget\n",
            r"another label style .*line 3: 'a/s/1 b/s/2 nontarget'",
        ),
        (GOOD + "target a/s/1 c/s/1\n", "another label style .*line 3"),
        (GOOD + "2 a/s/1 c/s/1\n", "not a trial in 1 lines .*line 3"),
        (GOOD + "1 a/s/1.wav a/s/2\n", r"1 trials are repeated \(line 3: a/s"),
        ("1 a/s/1 a/s/2\n1 b/s/1 b/s/2\n", "all 2 trials are target trials"),
        ("0 a/s/1 b/s/2\n", "all 1 trials are nontarget trials"),
    ],
)
def test_bad_lists_get_one_sentence(tmp_path, text, sentence):
    """The file, what is wrong, and the first lines that are."""
    path = write(tmp_path / "list.txt", text)
    with pytest.raises(UserError, match=sentence) as error:
        read_trials(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_lists_that_are_no_text_files(tmp_path):
    """Missing, a folder, or audio given in its place."""
    with pytest.raises(UserError, match="no such trial list"):
        read_trials(tmp_path / "none.txt")
    with pytest.raises(UserError, match="expected a text file"):
        read_trials(tmp_path)
    (tmp_path / "audio").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="expected a text file"):
        read_trials(tmp_path / "audio")


def test_repeated_trials_count_when_asked_to(tmp_path):
    """Official lists are taken as published."""
    path = write(tmp_path / "list.txt", GOOD + "1 a/s/1 a/s/2\n")
    trials = read_trials(path, allow_repeated_trials=True)
    assert trials.labels.tolist() == [True, False, True]
