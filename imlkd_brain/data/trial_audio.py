"""Finds the audio files and speakers of the utterances of a trial list.

Authors: IML-KD contributors
"""

import os
from dataclasses import dataclass
from functools import cached_property

import torch

from imlkd_brain.data.speaker_maps import WAY_OUT, SpeakerNames
from imlkd_brain.data.speakers import (
    AUDIO_SUFFIXES,
    doubt_about,
    slashed,
    utterance_key,
)
from imlkd_brain.data.texts import read_lines
from imlkd_brain.data.trial_lists import existing_folders
from imlkd_brain.data.trials import (
    SHOWN_LINES,
    Trials,
    read_trials,
    shorten,
)
from imlkd_brain.errors import UserError

WAV_FOLDERS = ("wav", "", "test/wav", "dev/wav")

MOST_UNKNOWN = 1000  # names that are looked for in vain


@dataclass(frozen=True)
class LocatedTrials:
    """A trial list whose audio has been found, its two sides numbered apart.

    Arguments
    ---------
    trials : Trials
        The list.
    enrol_files : list of list of str
        Files of each row of the enrolment side; several for a model of
        several utterances.
    test_files : list of str
        File of each row of the test side.
    pairs : torch.Tensor
        Enrolment row and test row of each trial, int64, (P, 2).
    enrol_speakers : list of str or None
        Speaker of each enrolment row, None where it is not known.
    test_speakers : list of str or None
        The same of each test row.
    doubt : str
        Why the speakers cannot be right, see
        :func:`imlkd_brain.data.speakers.doubt_about`; empty where they can. There
        are no intervals and no groups where there is a doubt.
    """

    trials: Trials
    enrol_files: list
    test_files: list
    pairs: torch.Tensor
    enrol_speakers: list
    test_speakers: list
    doubt: str = ""

    @property
    def warning(self):
        """One line where there is a doubt, else empty."""
        if not self.doubt:
            return ""
        return (
            f"{self.trials.name}: its speakers are not known ({self.doubt}), "
            "so there are no intervals over speakers and nothing says that "
            f"its speakers were held out; {WAY_OUT}."
        )

    @cached_property
    def speakers(self):
        """The different speakers on either side that are known, sorted."""
        return sorted({*self.enrol_speakers, *self.test_speakers} - {None})


def locate_trials(trials, data_folder, enrolments=None, speaker_map=None):
    """Find the audio file of every utterance of a trial list.

    A name is looked up as it is written, below the data folder and below the
    ``wav`` folders that VoxCeleb's archives unpack to, with and without a
    suffix; Kaldi's ``speaker-session-utterance`` stands for
    ``speaker/session/utterance``.

    Arguments
    ---------
    trials : Trials
        The list.
    data_folder : str or Path
        Where the audio is; several folders with commas.
    enrolments : dict, optional
        Utterances of each enrolment model, see :func:`read_enrolments`. A
        name on the enrolment side that is none of them is an utterance.
    speaker_map : str or Path, optional
        Whose voice each utterance has; without it the speakers come from the
        data folder, see :class:`imlkd_brain.data.speaker_maps.SpeakerNames`.

    Returns
    -------
    LocatedTrials
        The list with its files.

    Raises
    ------
    UserError
        If the data folder does not exist or utterances are not in it; the
        sentence quotes the first trials that name them. Also if the map does
        not name an utterance.
    """
    roots = existing_folders(data_folder)
    speakers = SpeakerNames(data_folder, speaker_map)
    enrolments = enrolments or {}
    found, unknown = {}, {}

    def files_of(row, names):
        for name in names:
            if name not in found and len(unknown) >= MOST_UNKNOWN:
                # Looking for a million names that are nowhere takes hours.
                found[name] = None
            if name not in found:
                found[name] = _find_audio(name, roots)
            if found[name] is None:
                unknown[row] = name
        return [found[name] for name in names]

    enrol_rows, enrol = torch.unique(trials.pairs[:, 0], return_inverse=True)
    test_rows, test = torch.unique(trials.pairs[:, 1], return_inverse=True)
    enrol_names = [
        enrolments.get(trials.utterances[row]) or [trials.spellings[row]]
        for row in enrol_rows.tolist()
    ]
    enrol_files = [
        files_of(row, names)
        for row, names in zip(enrol_rows.tolist(), enrol_names, strict=True)
    ]
    test_names = [trials.spellings[row] for row in test_rows.tolist()]
    test_files = [
        files_of(row, [name])[0]
        for row, name in zip(test_rows.tolist(), test_names, strict=True)
    ]
    if unknown:
        missing = torch.zeros(len(trials.utterances), dtype=torch.bool)
        missing[list(unknown)] = True
        wrong = torch.nonzero(missing[trials.pairs].any(dim=1)).squeeze(1)
        lines = []
        for trial in wrong[: SHOWN_LINES + 1].tolist():
            sides = trials.pairs[trial].tolist()
            name = next(unknown[side] for side in sides if side in unknown)
            lines.append(f"line {trials.lines[trial]}: {name}")
        raise UserError(
            f"{trials.path}: {_at_least(unknown)} utterances are not in "
            f"{data_folder} ({shorten(lines)}); give the --data_folder this "
            "list was made for, or correct the list."
        )
    pairs = torch.stack([enrol, test], dim=1)
    voices = [
        list(map(speakers, files, names))
        for files, names in zip(enrol_files, enrol_names, strict=True)
    ]
    enrol_speakers = [names[0] for names in voices]
    test_speakers = list(map(speakers, test_files, test_names))
    doubt = doubt_about(
        enrol_speakers,
        test_speakers,
        pairs,
        trials.labels,
        lambda trial: f"on line {trials.lines[trial]}",
    )
    mixed = [i for i, names in enumerate(voices) if len(set(names)) > 1]
    if mixed and not doubt:
        model = trials.utterances[enrol_rows[mixed[0]]]
        doubt = f"the enrolment model {model} has utterances of two speakers"
    return LocatedTrials(
        trials=trials,
        enrol_files=enrol_files,
        test_files=test_files,
        pairs=pairs,
        enrol_speakers=enrol_speakers,
        test_speakers=test_speakers,
        doubt=doubt,
    )


def _at_least(unknown):
    """How many were looked for in vain, before the search was given up."""
    if len(unknown) < MOST_UNKNOWN:
        return len(unknown)
    return f"{MOST_UNKNOWN} or more"


def _find_audio(name, roots):
    """Path of an utterance's file, or None."""
    for candidate in (name, *slashed(name)):
        for root in roots:
            for folder in WAV_FOLDERS:
                path = root / folder / candidate
                if path.is_file():
                    return str(path)
                # Not with_suffix(): that would cut a name with a dot in it.
                for suffix in AUDIO_SUFFIXES:
                    if os.path.isfile(f"{path}{suffix}"):
                        return f"{path}{suffix}"
    return None


def read_enrolments(path):
    """Read which utterances enrol each model, for several a model.

    Arguments
    ---------
    path : str or Path
        Lines ``model utterance utterance ...``, as Kaldi's spk2utt.

    Returns
    -------
    dict
        List of utterances, named by :func:`utterance_key`, for each model.

    Raises
    ------
    UserError
        If the file is missing, or a model has no utterances or two lines.
    """
    enrolments = {}
    form = "lines `model utterance utterance ...`"
    lines = read_lines(path, "text file", form)
    for number, line in enumerate(lines, start=1):
        model, *members = line.split() or [None]
        if model is None:
            continue
        model = utterance_key(model)
        if not members or model in enrolments:
            problem = "is listed twice" if members else "has no utterances"
            raise UserError(
                f"{path}, line {number}: the model {model} {problem}; "
                "expected `model utterance utterance ...`, a line for each "
                "model."
            )
        enrolments[model] = [utterance_key(name) for name in members]
    return enrolments


def locate_known(trials, data_folder):
    """Find the audio of a list whose speakers are known.

    Arguments
    ---------
    trials : str or Path
        The list.
    data_folder : str or Path
        Where the audio is.

    Returns
    -------
    imlkd_brain.data.trial_audio.LocatedTrials
        The list with files and speakers.

    Raises
    ------
    UserError
        If the speakers are not known: all intervals are over speakers.
    """
    located = locate_trials(read_trials(trials), data_folder)
    if located.doubt:
        raise UserError(
            f"{trials}: its speakers are not known ({located.doubt}), and the "
            "intervals of a comparison are over speakers; put the files into "
            "speakers' folders, or Kaldi's utt2spk into the data folder."
        )
    return located
