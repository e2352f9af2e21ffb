"""Whose voice a file has: one answer for every layout of a corpus.

Bootstrap intervals, figures by group and the check that test speakers were
held out all need to know the speakers. They ask here, so that they agree:

* a file that the user gives (``speaker_map``, see :func:`read_speaker_map`),
* else Kaldi's ``utt2spk`` or ``spk2utt`` in the data folder,
* else the path below the data folder, see :func:`speaker_of`.

Where the answer cannot be right, :func:`doubt_about` says why. There is no
interval then, and nobody claims that speakers were held out.

Authors: IML-KD contributors
"""

import csv
import os
import re
from pathlib import PurePath

import torch

from imlkd_brain.errors import UserError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".m4a", ".mp3")
WAV = "wav"  # the folder of VoxCeleb that holds the speakers' folders
KALDI_FILES = ("utt2spk", "spk2utt")
UTTERANCE_COLUMNS = ("utterance", "utt", "wav", "path", "file", "id")
SPEAKER_COLUMNS = ("spk_id", "speaker", "spk", "speaker_id")
WAY_OUT = (
    "give --speaker_map a file with lines `utterance speaker`, or the "
    "data_folder that holds the speakers' folders"
)
# What speed perturbation appends to a speaker, see dataio.train_dataset.
PERTURBED = re.compile(r"-sp\d+(\.\d+)?$")


def without_suffix(name):
    """A name without the suffix of an audio file.

    Example
    -------
    >>> without_suffix("id1/a/1.wav"), without_suffix("dr.who")
    ('id1/a/1', 'dr.who')
    """
    stem, suffix = os.path.splitext(str(name))
    return stem if suffix.lower() in AUDIO_SUFFIXES else str(name)


def utterance_key(path):
    """The last three components of a path, without an audio suffix.

    This is what an utterance is called wherever its file lies, in CSVs, trial
    lists and embedding stores.

    Example
    -------
    >>> utterance_key("/data/voxceleb1/wav/id10270/5r0dWxy17C8/00001.wav")
    'id10270/5r0dWxy17C8/00001'
    """
    return "/".join(PurePath(without_suffix(path)).parts[-3:])


def speaker_of(path, roots=()):
    """The speaker by the folders that a file lies in.

    It is the first folder below ``wav``, else the first below the data
    folder. So ``<speaker>/<utterance>.wav`` and
    ``wav/<speaker>/<session>/<utterance>.wav`` are both read right.

    Arguments
    ---------
    path : str or Path
        The file. A relative path is taken as one below the data folder.
    roots : sequence of str
        The data folders.

    Returns
    -------
    str or None
        None if the file lies in no folder of its speaker.

    Example
    -------
    >>> speaker_of("/data/vox1/wav/id10270/5r0dWxy17C8/00001.wav", ["/data"])
    'id10270'
    >>> speaker_of("/data/cn/id00012/song-1.wav", ["/data/cn"])
    'id00012'
    >>> speaker_of("/data/cn/song-1.wav", ["/data/cn"]) is None
    True
    """
    path, inside = str(path), None
    for root in roots:
        root = os.path.join(str(root), "")
        if path.startswith(root) and (
            inside is None or len(path) - len(root) < len(inside)
        ):
            inside = path[len(root) :]
    outside = inside is None and os.path.isabs(path)
    folders = list(PurePath(path if inside is None else inside).parts[:-1])
    for place in range(len(folders) - 2, -1, -1):
        if folders[place] == WAV:
            return folders[place + 1]
    if outside or not folders or folders == [WAV]:
        return None
    return folders[0]


class SpeakerNames:
    """The speaker of any file of a corpus.

    Arguments
    ---------
    data_folder : str or Path
        The corpus; several folders with commas.
    speaker_map : str or Path, optional
        The user's own file, see :func:`read_speaker_map`. It goes before
        Kaldi's files, and these before the path.

    Raises
    ------
    UserError
        If a map is there and cannot be read.

    Example
    -------
    >>> SpeakerNames("/data/cn")("/data/cn/id00012/song-1.wav")
    'id00012'
    """

    def __init__(self, data_folder, speaker_map=None):
        self.roots = [part.strip() for part in str(data_folder).split(",")]
        self.source, self.named = speaker_map, None
        if speaker_map:
            self.named = read_speaker_map(speaker_map)
            return
        for root in self.roots:
            for path in (os.path.join(root, name) for name in KALDI_FILES):
                if os.path.isfile(path):
                    self.named = {
                        **(self.named or {}),
                        **read_speaker_map(path),
                    }
                    break

    def __call__(self, path, name=None):
        """Return the speaker of a file.

        Arguments
        ---------
        path : str or Path
            The file.
        name : str, optional
            What a trial list calls it.

        Returns
        -------
        str or None
            None where it cannot be known.

        Raises
        ------
        UserError
            If the user's map does not name the file.
        """
        if self.named is None:
            return speaker_of(path, self.roots)
        for key in _spellings(path, name):
            if key in self.named:
                return self.named[key]
        if self.source:
            raise UserError(
                f"speaker_map: {self.source} does not name the speaker of "
                f"{path}; add a line `utterance speaker`."
            )
        return None


def _spellings(path, name):
    """What a map may call a file, the most exact first."""
    if name is not None:
        yield without_suffix(name)
    parts = PurePath(without_suffix(path)).parts
    yield without_suffix(path)
    for first in range(len(parts)):
        yield "/".join(parts[first:])
        yield "-".join(parts[first:])


def read_speaker_map(path):
    """Read whose voice each utterance has.

    Arguments
    ---------
    path : str or Path
        Kaldi's ``utt2spk`` (lines ``utterance speaker``), ``spk2utt`` (lines
        ``speaker utterance utterance ...``; lines of two words are read this
        way only if ``spk2utt`` is in the file's name), a CSV of two columns,
        or a CSV with a header that names a column ``utterance`` or ``wav``
        and a column ``speaker`` or ``spk_id``. Utterances are called by any
        end of their path that is unique, with or without a suffix.

    Returns
    -------
    dict
        Speaker of each utterance, without suffix.

    Raises
    ------
    UserError
        If the file is missing, a line is malformed, or an utterance has two
        speakers.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix="utt2spk") as stream:
    ...     _ = stream.write("song-1 id00012\\n")
    ...     stream.flush()
    ...     read_speaker_map(stream.name)
    {'song-1': 'id00012'}
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"speaker_map: {path} is no readable text file; expected lines "
            "`utterance speaker`, Kaldi's spk2utt, or a CSV with the columns "
            "utterance and speaker."
        ) from None
    rows = [(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    pairs = _csv_pairs(path, rows) if _is_csv(rows) else _kaldi(path, rows)
    named = {}
    for number, utterance, speaker in pairs:
        utterance = without_suffix(utterance.strip())
        while utterance.startswith("./"):
            utterance = utterance[2:]
        speaker = speaker.strip()
        if not utterance or not speaker:
            raise _malformed(path, number)
        if named.setdefault(utterance, speaker) != speaker:
            raise UserError(
                f"speaker_map: {path}, line {number}: {utterance} has the "
                f"speakers {named[utterance]} and {speaker}; keep one of them, "
                "or write more of the utterance's path."
            )
    if not named:
        raise UserError(
            f"speaker_map: {path} is empty; expected lines `utterance speaker`."
        )
    return named


def _is_csv(rows):
    """Whether the first line has the commas of a CSV."""
    return bool(rows) and "," in rows[0][1]


def _csv_pairs(path, rows):
    """(line, utterance, speaker) of a CSV, with or without a header."""
    cells = [(n, next(csv.reader([line]))) for n, line in rows]
    header = [cell.strip().lower() for cell in cells[0][1]]
    places = [
        next((header.index(c) for c in columns if c in header), None)
        for columns in (UTTERANCE_COLUMNS, SPEAKER_COLUMNS)
    ]
    if None not in places:
        cells = cells[1:]
    elif len(header) == 2 and places == [None, None]:
        places = [0, 1]
    else:
        raise UserError(
            f"speaker_map: {path}: the header {rows[0][1]!r} names no columns "
            "of utterances and speakers; call them utterance and speaker."
        )
    for number, fields in cells:
        if len(fields) != len(header):
            raise _malformed(path, number)
        wav = fields[places[0]].replace("$data_root/", "")
        yield number, wav, fields[places[1]]


def _kaldi(path, rows):
    """(line, utterance, speaker) of an utt2spk or a spk2utt."""
    fields = [(number, line.split()) for number, line in rows]
    by_speaker = "spk2utt" in os.path.basename(str(path)) or any(
        len(words) > 2 for _, words in fields
    )
    for number, words in fields:
        if len(words) < 2:
            raise _malformed(path, number)
        if by_speaker:
            for utterance in words[1:]:
                yield number, utterance, words[0]
        else:
            yield number, words[0], words[1]


def _malformed(path, number):
    """The error for a line that names no utterance and speaker."""
    return UserError(
        f"speaker_map: {path}, line {number}: expected an utterance and its "
        "speaker, as in the lines before."
    )


def doubt_about(enrol, test, pairs, labels, where="trial"):
    """Say why the speakers of a trial list cannot be right.

    Arguments
    ---------
    enrol, test : list of str or None
        Speaker of each row of the two sides, None where it is not known.
    pairs : torch.Tensor
        Row of each trial's enrolment and test side, int64, (P, 2).
    labels : torch.Tensor
        True for target trials, (P,).
    where : callable or str
        ``where(trial)`` says where a trial is written.

    Returns
    -------
    str
        Part of a sentence; empty where nothing speaks against the speakers.

    Example
    -------
    >>> pairs, labels = torch.tensor([[0, 0], [0, 1]]), torch.tensor([1, 0])
    >>> doubt_about(["a"], ["a", "b"], pairs, labels.bool())
    ''
    >>> doubt_about(["wav"], ["wav", "wav"], pairs, labels.bool())
    'all files have the same speaker, wav'
    """
    rows = [*enrol, *test]
    unknown = sum(name is None for name in rows)
    if unknown:
        return f"the speakers of {unknown} of {len(rows)} files are not named"
    number = {name: index for index, name in enumerate(dict.fromkeys(rows))}
    if len(number) < 2:
        return f"all files have the same speaker, {rows[0]}"
    sides = [
        torch.tensor([number[name] for name in names])[pairs[:, side]]
        for side, names in enumerate((enrol, test))
    ]
    wrong = torch.nonzero((sides[0] == sides[1]) != labels.bool()).flatten()
    if not len(wrong):
        return ""
    first = int(wrong[0])
    place = where(first) if callable(where) else f"{where} {first + 1}"
    one, other = (
        names[int(pairs[first, side])]
        for side, names in enumerate((enrol, test))
    )
    kind = (
        f"a target trial of two speakers, {one} and {other}"
        if labels[first]
        else f"a nontarget trial of one speaker, {one}"
    )
    return f"{len(wrong)} trials speak against them, as {place}: {kind}"


def plain_speakers(names):
    """Speakers as the corpus calls them, without speed perturbation's mark.

    Example
    -------
    >>> sorted(plain_speakers(["id1", "id1-sp0.9", "id2-sp1.1"]))
    ['id1', 'id2']
    """
    return {PERTURBED.sub("", name) for name in names}
