"""The speakers of speechocean762, its five folds and its trial lists.

Both sides of a trial are of one sex and one age group. Folds are balanced by
sex and by adult and child, and every speaker is a test speaker in one of them.

Authors: IML-KD contributors
"""

import csv
import hashlib
import itertools
import shutil
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from imlkd_brain.corpora.building import write_trial_list
from imlkd_brain.corpora.splits import FOLDS, roles

TABLE_FILE = Path(__file__).with_name("speechocean762.csv")
SEED = 762  # of the folds and the lists; part of the corpus

ADULT = 16  # years, the youngest adult's least age

LABELLED = 5  # one in so many training speakers has a label among few
DEV_UTTERANCES = 10  # of a speaker in the dev trials, at most


def read_table(path=TABLE_FILE):
    """Read what is known about each speaker of the corpus.

    Columns of the file: ``speaker`` (the corpus' number); ``sex`` (m or f);
    ``age`` (years); ``utterances``, space-separated ``<number>=<crc32>``: the
    last four digits of the utterance's name and the CRC-32 of its samples
    (16 bit, little-endian), as eight hex digits.

    Returns
    -------
    dict
        Speaker to ``sex``, ``age`` and ``utterances``, a dict of utterance
        name to CRC-32, in the file's order.
    """
    table = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pairs = [word.split("=") for word in row["utterances"].split()]
            table[row["speaker"]] = {
                "sex": row["sex"],
                "age": int(row["age"]),
                "utterances": {
                    f"0{row['speaker']}{number}": int(crc, 16)
                    for number, crc in pairs
                },
            }
    return table


def speaker_name(speaker, age):
    """Name a speaker so that reports group adults and children.

    Example
    -------
    >>> speaker_name("0003", 6), speaker_name("1027", 37)
    ('child-0003', 'adult-1027')
    """
    return f"{'adult' if age >= ADULT else 'child'}-{speaker}"


def _drawn(names):
    """Shuffle by SHA-256, the same on every machine and Python."""
    return sorted(
        names,
        key=lambda name: hashlib.sha256(f"{SEED} {name}".encode()).digest(),
    )


def draw_splits(table):
    """Draw the folds and who has a label when few do.

    The speakers of a sex and age group are dealt to the folds in turn, so a
    group's numbers in two folds differ by one at most. In each fold, one in
    five is drawn to be labelled, group by group.

    Arguments
    ---------
    table : dict
        From :func:`read_table`.

    Returns
    -------
    dict
        Name (``adult-1027``), sorted, to ``speaker``, ``sex``, ``age``,
        ``fold`` ("0" to "4", where it is a test speaker) and ``labelled``.

    Example
    -------
    >>> splits = draw_splits(read_table())
    >>> sum(row["fold"] == "0" for row in splits.values())
    50
    """
    groups = defaultdict(list)
    for speaker, row in table.items():
        name = speaker_name(speaker, row["age"])
        groups[name.split("-")[0], row["sex"]].append(name)
    dealt = [name for key in sorted(groups) for name in _drawn(groups[key])]
    splits = {}
    for index, name in enumerate(dealt):
        speaker = name.split("-")[1]
        splits[name] = {
            "speaker": speaker,
            "sex": table[speaker]["sex"],
            "age": table[speaker]["age"],
            "fold": str(index % FOLDS),
            # The middle one of each five that a fold was dealt.
            "labelled": index // FOLDS % LABELLED == LABELLED // 2,
        }
    return dict(sorted(splits.items()))


def make_trials(utterances, splits):
    """Pair all utterances within each sex and age group.

    Arguments
    ---------
    utterances : dict
        Speaker's name to its ``speaker/session/utterance.wav``.
    splits : dict
        From :func:`draw_splits`.

    Returns
    -------
    list of tuple
        (label, enrolment, test) with label 1 for a target trial; shuffled,
        no pair twice in either order.
    """
    groups = defaultdict(list)
    for name, files in utterances.items():
        groups[name.split("-")[0], splits[name]["sex"]] += files
    trials = []
    for files in groups.values():
        for one, other in itertools.combinations(sorted(files), 2):
            label = str(int(one.split("/")[0] == other.split("/")[0]))
            draw = hashlib.sha256(f"{SEED} {one} {other}".encode()).digest()
            # The last bit says which of the two enrols.
            pair = (one, other) if draw[-1] % 2 else (other, one)
            trials.append((draw, label, *pair))
    return [trial[1:] for trial in sorted(trials)]


def write_lists(folder, utterances, splits):
    """Write the trials of each fold and its lists of labelled voices.

    ``trials/fold<k>_test.txt`` and ``trials/fold<k>_dev.txt`` (ten utterances
    a speaker), ``trials/test.txt`` and ``trials/dev.txt``, which are fold 0's,
    and ``labels/fold<k>_<count>.txt``, one training speaker a line.

    Arguments
    ---------
    folder : pathlib.Path
        Where ``trials`` and ``labels`` are made.
    utterances : dict
        Speaker's name to its ``speaker/session/utterance.wav``.
    splits : dict
        From :func:`draw_splits`.

    Returns
    -------
    trials : dict
        File name to the numbers of [target, nontarget] trials.
    labels : dict
        File name to the number of speakers.
    """
    for name in ("trials", "labels"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    trial_counts, label_counts = {}, {}
    for fold in tqdm(range(FOLDS), desc="lists", unit="fold"):
        parts = roles(splits, fold)
        for part, count in (("test", None), ("dev", DEV_UTTERANCES)):
            chosen = {
                name: _drawn(utterances[name])[:count]
                for name in splits
                if parts[name] == part
            }
            trials = make_trials(chosen, splits)
            names = [f"fold{fold}_{part}.txt"] + [f"{part}.txt"] * (fold == 0)
            for name in names:
                path = folder / "trials" / name
                trial_counts[name] = write_trial_list(path, trials)
        labelled = [
            name
            for name, row in splits.items()
            if parts[name] == "train" and row["labelled"]
        ]
        name = f"fold{fold}_{len(labelled)}.txt"
        text = "".join(f"{speaker}\n" for speaker in labelled)
        (folder / "labels" / name).write_text(text, encoding="utf-8")
        label_counts[name] = len(labelled)
    return trial_counts, label_counts
