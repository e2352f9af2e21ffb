"""Unit tests of ``imlkd_brain.corpora.splits``."""

import csv
from collections import Counter, defaultdict

from imlkd_brain.corpora.packs import PACKS
from imlkd_brain.corpora.splits import (
    FOLDS,
    SPLITS_FILE,
    make_trials,
    read_splits,
    roles,
    write_trials,
)


def test_each_speaker_is_listed_once():
    with open(SPLITS_FILE, encoding="utf-8", newline="") as file:
        names = [row["speaker"] for row in csv.DictReader(file)]
    assert len(names) == len(set(names))
    assert {name.split("-")[0] for name in names} == set(PACKS)


def test_folds_test_every_speaker_once_and_never_alone():
    splits = read_splits()
    tested = Counter()
    for fold in range(FOLDS):
        parts = roles(splits, fold)
        for part in ("test", "dev"):
            packs = Counter(
                name.split("-")[0] for name in parts if parts[name] == part
            )
            # Nontarget trials within a pack need two of its speakers.
            assert min(packs.values()) >= 2
            assert {"tuxpaint", "klettres", "ktuberling"} <= set(packs)
        tested.update(name for name in parts if parts[name] == "test")
        dev_folds = {
            splits[name]["fold"] for name in parts if parts[name] == "dev"
        }
        assert dev_folds == {str((fold + 1) % FOLDS)}
    always = {name for name, row in splits.items() if row["fold"] == "train"}
    assert set(tested) == set(splits) - always
    assert set(tested.values()) == {1}


def test_tiny_has_its_own_split():
    parts = roles(read_splits(), None)
    assert {name.split("-")[0] for name in parts} == {"klettres"}
    counts = Counter(parts.values())
    assert counts["test"] >= 4 and counts["dev"] >= 3 and counts["train"] >= 8


def test_trials_stay_in_their_pack_and_cross_sessions():
    utterances = {
        speaker: [f"{speaker}/s{i % 3}/{i}.wav" for i in range(count)]
        for speaker, count in (("p-a", 40), ("p-b", 6), ("q-a", 9), ("q-b", 9))
    }
    trials = make_trials(utterances, 12, 50, 80)
    assert trials == make_trials(utterances, 12, 50, 80)
    assert len({frozenset(trial[1:]) for trial in trials}) == len(trials)
    used = defaultdict(set)
    targets = Counter()
    for label, enrolment, test in trials:
        left, right = enrolment.split("/"), test.split("/")
        assert left[0].split("-")[0] == right[0].split("-")[0]
        assert (label == "1") == (left[0] == right[0])
        if label == "1":
            assert left[1] != right[1]
            targets[left[0]] += 1
        used[left[0]].add(enrolment)
        used[right[0]].add(test)
    assert all(len(files) <= 12 for files in used.values())
    # 6 utterances in 3 sessions of 2: 15 pairs, 3 of them in a session.
    assert targets["p-b"] == 12
    assert targets["p-a"] == 48  # of 12 in sessions of 4: 66 - 18
    # Neither label comes first.
    assert len({trial[0] for trial in trials[:20]}) == 2


def test_a_list_for_models_of_another_corpus(tmp_path):
    """All speakers that a fold tests are in it, within their packs."""
    splits = read_splits()
    utterances = {
        speaker: [f"{speaker}/s{i % 3}/{i}.wav" for i in range(9)]
        for speaker in splits
    }
    counts = write_trials(tmp_path, utterances, splits, tiny=False)
    lines = (tmp_path / "unseen.txt").read_text().splitlines()
    trials = [line.split() for line in lines]
    assert sum(label == "1" for label, *_ in trials) == counts["unseen.txt"][0]
    heard = {file.split("/")[0] for _, *pair in trials for file in pair}
    tested = set()
    for fold in range(FOLDS):
        parts = roles(splits, fold)
        tested |= {name for name in parts if parts[name] == "test"}
    assert heard == tested
    assert sum(speaker.startswith("uqm-") for speaker in heard) == 23
