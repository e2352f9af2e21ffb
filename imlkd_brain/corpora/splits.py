"""Fixed train, dev and test speakers of MiniVox, and its trial lists.

Authors: IML-KD contributors
"""

import csv
import itertools
import random
from collections import defaultdict
from pathlib import Path

from imlkd_brain.corpora.building import write_trial_list
from imlkd_brain.corpora.clips import SEED

# Distinct utterances, target and nontarget trials per speaker, at most
SIZES = {"test": (24, 300, 600), "dev": (16, 110, 220)}

SPLITS_FILE = Path(__file__).with_name("minivox_splits.csv")
FOLDS = 5


def read_splits(path=SPLITS_FILE):
    """Read the fixed lists of speakers.

    Columns of the file: ``speaker``; ``fold`` (0 to 4, where it is a test
    speaker, or ``train``); ``tiny`` (its part in the tiny build). While a fold
    is tested, the speakers of the next one are the dev speakers: fewer would
    leave single pairs of speakers in a pack, and a dev EER that means little.

    Returns
    -------
    dict
        Speaker to its row, itself a dict of strings, in the file's order.
    """
    with open(path, encoding="utf-8", newline="") as file:
        return {row["speaker"]: row for row in csv.DictReader(file)}


def roles(splits, fold):
    """Say who trains, who is dev and who is test.

    Arguments
    ---------
    splits : dict
        From :func:`read_splits`.
    fold : int or None
        0 to 4; None is the tiny build's own split.

    Returns
    -------
    dict
        Speaker to ``train``, ``dev`` or ``test``.
    """
    if fold is None:
        return {
            name: row["tiny"] for name, row in splits.items() if row["tiny"]
        }
    parts = {}
    for name, row in splits.items():
        parts[name] = "train"
        if row["fold"] == str(fold):
            parts[name] = "test"
        elif row["fold"] == str((fold + 1) % FOLDS):
            parts[name] = "dev"
    return parts


def make_trials(
    utterances, per_speaker, targets, nontargets, seed=f"{SEED} trials"
):
    """Draw trials within each pack.

    Target trials pair utterances of different sessions. A speaker with few of
    them gets few nontarget trials too (two for each target trial, sixty at
    least), so that it weighs in both error rates alike.

    Arguments
    ---------
    utterances : dict
        Speaker to its sorted list of ``speaker/session/utterance.wav``.
    per_speaker : int
        Distinct utterances used per speaker, at most; taken from its sessions
        in turn.
    targets, nontargets : int
        Trials per speaker, at most (nontarget ones by the enrolment side).
    seed : str
        Of the draw.

    Returns
    -------
    list of tuple
        (label, enrolment, test) with label 1 for a target trial; shuffled,
        no pair of utterances twice in either order.
    """
    draw = random.Random(seed)
    chosen = {
        speaker: _spread(files, per_speaker, draw)
        for speaker, files in sorted(utterances.items())
    }
    trials, seen = [], set()
    for speaker, files in chosen.items():
        same = [
            pair
            for pair in itertools.combinations(files, 2)
            if pair[0].split("/")[1] != pair[1].split("/")[1]
        ]
        same = draw.sample(same, min(targets, len(same)))
        trials += [("1", *draw.sample(pair, 2)) for pair in same]
        pack = speaker.split("-")[0]
        others = [
            (mine, theirs)
            for other, theirs_all in chosen.items()
            if other != speaker and other.split("-")[0] == pack
            for mine in files
            for theirs in theirs_all
            if frozenset((mine, theirs)) not in seen
        ]
        wanted = min(nontargets, max(60, 2 * len(same)), len(others))
        for pair in draw.sample(others, wanted):
            seen.add(frozenset(pair))
            trials.append(("0", *pair))
    draw.shuffle(trials)
    return trials


def _spread(files, count, draw):
    """Pick ``count`` of a speaker's utterances, from its sessions in turn."""
    sessions = defaultdict(list)
    for file in files:
        sessions[file.split("/")[1]].append(file)
    for session in sessions.values():
        draw.shuffle(session)
    rounds = itertools.zip_longest(*sessions.values())
    picked = [file for turn in rounds for file in turn if file]
    return sorted(picked[:count])


def write_trials(folder, utterances, splits, tiny):
    """Write ``test.txt``, ``dev.txt`` and, but for tiny, a pair per fold.

    A fold in which the packs at hand have no such speakers gets no file. In
    ``unseen.txt`` are the speakers of all folds, for models that were trained
    on another corpus.

    Arguments
    ---------
    folder : pathlib.Path
        The ``trials`` folder, made here.
    utterances : dict
        Speaker to its sorted list of utterances.
    splits : dict
        From :func:`read_splits`.
    tiny : bool
        Whether to use the tiny build's own split.

    Returns
    -------
    dict
        File name to the numbers of [target, nontarget] trials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lists = {}
    for fold in (None,) if tiny else range(FOLDS):
        parts = roles(splits, fold)
        for part in ("test", "dev"):
            chosen = {name for name in parts if parts[name] == part}
            names = [] if tiny else [f"fold{fold}_{part}.txt"]
            names += [f"{part}.txt"] if not fold else []
            lists.update(dict.fromkeys(names, (part, chosen)))
    if not tiny:
        in_folds = {s for s in splits if splits[s]["fold"] != "train"}
        lists["unseen.txt"] = ("test", in_folds)
    counts = {}
    for name, (part, chosen) in lists.items():
        held_out = {s: utterances[s] for s in utterances if s in chosen}
        if not held_out:
            continue  # none of the packs has speakers of this part
        trials = make_trials(held_out, *SIZES[part])
        counts[name] = write_trial_list(folder / name, trials)
    return counts
