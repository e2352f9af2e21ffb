"""Unit tests of ``imlkd_brain.explanation.tasks``."""

import pytest
from synthetic import write_wav

from imlkd_brain.errors import UserError
from imlkd_brain.explanation.tasks import (
    Task,
    Utterance,
    check_figure_utterance,
    folder_task,
    pick,
    read_folder,
    shortest_seconds,
)


@pytest.fixture
def folder(tmp_path):
    for speaker, count in (("anna", 3), ("bert", 2), ("cleo", 1)):
        for i in range(count):
            write_wav(tmp_path / speaker / f"{i}.wav", 0.4 + 0.1 * i, 100, i)
    return tmp_path


def test_every_speaker_gives_one_before_any_gives_a_second(folder):
    pool = read_folder(folder, None, 0.2).utterances
    assert len(pool) == 6
    for seed in range(5):
        four = pick(pool, 4, 0, seed)
        assert {u.speaker for u in four} == {"anna", "bert", "cleo"}
        assert [u.key for u in four] == sorted(u.key for u in four)
    assert pick(pool, 4, 0, 1) == pick(pool, 4, 0, 1)
    assert pick(pool, 99, 0, 1) == pool
    # Only the third of anna lasts 0.6 s.
    assert [u.key for u in pick(pool, 9, 0.55, 1)] == ["anna/2"]
    with pytest.raises(
        UserError, match="none of the 6 utterances, .*lasts 2 s"
    ):
        pick(pool, 1, 2, 1)


def test_an_utterance_is_tried_against_its_speaker_and_every_other(folder):
    task = folder_task(read_folder(folder, None, 0.2), 6, seed=1)
    assert task.doubt == ""
    keys = [u.key for u in task.enrolments]
    trials = {
        (keys[row], task.utterances[i].key, target)
        for row, i, target in task.trials
    }
    assert len(trials) == len(task.trials) == 5 + 6 * 2
    assert ("anna/1", "anna/0", True) in trials
    assert ("anna/0", "anna/1", True) in trials
    assert ("cleo/0", "anna/1", False) in trials
    own = {
        u.key: keys[row]
        for u, row in zip(task.utterances, task.own, strict=False)
    }
    assert own["cleo/0"] == "cleo/0#halves" and own["bert/1"] == "bert/0"


def test_a_file_without_a_speaker_is_in_no_trial(folder):
    write_wav(folder / "alone.wav", 0.5, 90, 0)
    found = read_folder(folder, None, 0.2)
    task = folder_task(found, 7, seed=1)
    assert found.alone == ["alone"]
    assert "1 of 7 files lie in no speaker's folder" in task.doubt
    names = [task.enrolments[row].speaker for row, _, _ in task.trials]
    assert "alone" not in names and len(task.trials) == 5 + 6 * 2


def test_the_longest_duration_decides_and_a_minimum_holds():
    assert shortest_seconds(["full", 1, 3]) == 3
    assert shortest_seconds(["full"]) == shortest_seconds([0.1]) == 0.2


def test_an_utterance_to_draw_must_be_one_of_those_chosen():
    task = Task("identification", [Utterance("a/1", "", "a")])
    check_figure_utterance(None, [task])
    check_figure_utterance("a/1", [task])
    with pytest.raises(UserError, match="`a/2` is none .*such as a/1"):
        check_figure_utterance("a/2", [task])
