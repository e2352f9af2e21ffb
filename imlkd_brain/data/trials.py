"""Reads trial lists, checks them and groups their trials.

A list has one trial a line: ``label enrol test``. :func:`read_trials` numbers
the utterances, so the rest of the code works with integers.

Authors: IML-KD contributors
"""

from array import array
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch

from imlkd_brain.data.speakers import utterance_key, without_suffix
from imlkd_brain.data.texts import read_lines
from imlkd_brain.errors import UserError

# Label words and what they mean; a list keeps to one line of this table.
LABEL_STYLES = (
    {"1": True, "0": False},
    {"target": True, "nontarget": False},
)
# What the first line of a table calls the column of labels.
HEADER_LABELS = {"label", "labels", "is_target", "same"}
LINES = "one trial a line, as `1 enrol test` or `enrol test target`"
SHOWN_LINES = 3  # offending lines that an error message quotes

DEEP = 3  # slashes: more folders than speaker/session/utterance

ALL = "all"  # the group of all trials of a list


@dataclass(frozen=True)
class Trials:
    """A checked trial list.

    Arguments
    ---------
    name : str
        The list's name in tables and files.
    utterances : list of str
        The different names in the list, in order of appearance.
    pairs : torch.Tensor
        Enrolment and test side of each trial as indices into
        ``utterances``, int64, (P, 2).
    labels : torch.Tensor
        True for target trials, (P,).
    spellings : list of str
        Each utterance as the list first writes it.
    lines : array of int
        Line number of each trial, from 1.
    path : str
        Where the list was read.
    """

    name: str
    utterances: list
    pairs: torch.Tensor
    labels: torch.Tensor
    spellings: list
    lines: array
    path: str

    @property
    def enrol(self):
        """Name of the enrolment side of each trial."""
        return [self.utterances[index] for index in self.pairs[:, 0].tolist()]

    @property
    def test(self):
        """Name of the test utterance of each trial."""
        return [self.utterances[index] for index in self.pairs[:, 1].tolist()]


def read_trials(path, name=None, allow_repeated_trials=False):
    """Read a trial list in SpeechBrain's or in Kaldi's order.

    SpeechBrain's (and VoxCeleb's) lines are ``1 enrol test``, Kaldi's are
    ``enrol test target``; the first line decides which it is, and whether
    labels are 1 and 0 or the words target and nontarget.

    Arguments
    ---------
    path : str, Path or list of them
        The list, one trial a line; empty lines are allowed. Several lists
        are read as one.
    name : str, optional
        The list's name; the file's name without suffix if left out.
    allow_repeated_trials : bool
        If True, a trial may be listed more than once and counts as often.

    Returns
    -------
    Trials
        The list, utterances named by :func:`utterance_key`.

    Raises
    ------
    UserError
        If the file is missing or no text, a line is malformed, label styles
        are mixed, a trial is repeated, or there is only one kind of trial.
        The sentence quotes the first offending lines.
    """
    paths = [path] if isinstance(path, str | PurePath) else list(path)
    path = ",".join(map(str, paths))
    raw_names = {}
    enrol, test, labels, numbers = (array("q") for _ in range(4))
    for one in paths:
        for number, label, *sides in parse_trials(one):
            labels.append(label)
            for column, raw_name in zip((enrol, test), sides, strict=True):
                column.append(raw_names.setdefault(raw_name, len(raw_names)))
            numbers.append(number)
    # Two spellings of one utterance (with and without suffix) are one.
    keys, merged, spellings, ends = {}, [], [], {}
    for raw_name in raw_names:
        key = utterance_key(raw_name)
        if key in keys and not _same_end(raw_name, spellings[keys[key]]):
            # Deeper folders tell it from the other.
            key = _whole_name(raw_name, ends)
        if key not in keys:
            keys[key] = len(keys)
            spellings.append(raw_name)
        merged.append(keys[key])
    pairs = np.asarray(merged)[np.stack([enrol, test], axis=1)]
    labels = np.asarray(labels, dtype=bool)
    if not allow_repeated_trials:
        _check_repeats(path, pairs, list(keys), numbers)
    if labels.all() or not labels.any():
        kind, other = ("target", "nontarget")
        if not labels.any():
            kind, other = other, kind
        raise UserError(
            f"{path}: all {len(labels)} trials are {kind} trials (line "
            f"{numbers[0]} and on); error rates need {other} trials too."
        )
    return Trials(
        name=name or PurePath(paths[0]).stem,
        utterances=list(keys),
        pairs=torch.from_numpy(pairs),
        labels=torch.from_numpy(labels),
        spellings=spellings,
        lines=numbers,
        path=path,
    )


def parse_trials(path):
    """Read the lines of one trial list; every list is read here.

    Arguments
    ---------
    path : str or Path
        See :func:`read_trials`. A first line of names of columns, such as
        ``label enrol test``, is passed over.

    Returns
    -------
    list of tuple
        (line number, whether it is a target trial, enrol, test); names as
        they are written.

    Raises
    ------
    UserError
        If the file is missing or no text, a line is malformed, or the list
        is empty.
    """
    trials, malformed, style, label_at = [], [], None, 0
    for number, line in enumerate(
        read_lines(path, "trial list", LINES), start=1
    ):
        fields = line.split()
        if not fields or (not trials and not malformed and _is_header(fields)):
            continue
        if style is None and len(fields) == 3:
            label_at, style = _label_style(fields)
        if style is None or len(fields) != 3 or fields[label_at] not in style:
            malformed.append((number, line.strip()))
            continue
        label = style[fields.pop(label_at)]
        trials.append((number, label, *fields))
    if malformed:
        raise UserError(_malformed_message(path, style, label_at, malformed))
    if not trials:
        raise UserError(f"{path}: the trial list is empty.")
    return trials


def _is_header(fields):
    """Whether a line names a label's column and two others."""
    words = [word.strip("#").lower() for word in fields]
    return len(words) == 3 and {words[0], words[2]} & HEADER_LABELS != set()


def _same_end(one, other):
    """Whether two names can be of one file: one is the end of the other."""
    one, other = (f"/{without_suffix(name)}" for name in (one, other))
    return one.endswith(other) or other.endswith(one)


def _whole_name(raw_name, ends):
    """The key of a name whose last three components another one has too.

    ``ends`` leads from every end of a name that was met here to its key.
    """
    name = without_suffix(raw_name)
    own = [name]
    while own[-1].count("/") > DEEP:
        own.append(own[-1].partition("/")[2])
    key = next((ends[end] for end in own if ends.get(end) in own), None)
    key = key or ends.get(name, name)
    for end in own:
        ends.setdefault(end, key)
    return key


def _label_style(fields):
    """Find the label's place in a line and the meaning of its words."""
    for position in (0, 2):
        for style in LABEL_STYLES:
            if fields[position] in style:
                return position, style
    return 0, None


def _malformed_message(path, style, label_at, malformed):
    """Describe lines that are no trials of the list's style."""
    expected = "`1 enrol test` or `enrol test target`"
    problem = "not a trial"
    if style is not None:
        words = " or ".join(style)
        expected = (
            f"`{words}, enrol, test`"
            if label_at == 0
            else f"`enrol, test, {words}`"
        )
        expected += " as in the lines before"
        fields = malformed[0][1].split()
        if len(fields) == 3 and _label_style(fields)[1] is not None:
            problem = "another label style than the lines before"
    lines = [f"line {number}: {line!r}" for number, line in malformed]
    return (
        f"{path}: {problem} in {len(malformed)} lines "
        f"({shorten(lines)}); expected {expected}."
    )


def _check_repeats(path, pairs, keys, numbers):
    """Refuse a list that has a trial twice."""
    code = pairs[:, 0] * len(keys) + pairs[:, 1]
    order = np.argsort(code, kind="stable")
    again = np.sort(order[1:][code[order][1:] == code[order][:-1]])
    if len(again) == 0:
        return
    lines = [
        f"line {numbers[i]}: {keys[pairs[i, 0]]} {keys[pairs[i, 1]]}"
        for i in again[: SHOWN_LINES + 1]
    ]
    raise UserError(
        f"{path}: {len(again)} trials are repeated ({shorten(lines)}); "
        "remove them, or count them as often as they are listed with "
        "--allow_repeated_trials True."
    )


def shorten(items):
    """Join the first few items, with dots if there are more."""
    dots = ", ..." if len(items) > SHOWN_LINES else ""
    return ", ".join(items[:SHOWN_LINES]) + dots


def trial_groups(located, separator):
    """Return masks of the trials within each group of speakers.

    Arguments
    ---------
    located : LocatedTrials
        The list.
    separator : str
        A speaker's group is its name up to this.

    Returns
    -------
    dict
        Mask (P,) for each group with target and nontarget trials, by name.
        Empty if there is only one group, or the speakers are not known.
    """
    if located.doubt:
        return {}
    enrol, test = (
        [speaker.split(separator)[0] for speaker in side]
        for side in (located.enrol_speakers, located.test_speakers)
    )
    names = sorted({*enrol, *test})
    if len(names) < 2:
        return {}
    number = {name: index for index, name in enumerate(names)}
    enrol = torch.tensor([number[name] for name in enrol])[located.pairs[:, 0]]
    test = torch.tensor([number[name] for name in test])[located.pairs[:, 1]]
    groups = {}
    for index, name in enumerate(names):
        inside = (enrol == index) & (test == index)
        labels = located.trials.labels[inside]
        if labels.any() and not labels.all():
            groups[name] = inside
    return groups
