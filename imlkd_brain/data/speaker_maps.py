"""Looks up whose voice a file has, in any layout of a corpus.

Intervals, figures by group and the check that test speakers were held out all
ask :class:`SpeakerNames`, so they agree. It takes the speaker from

* a file that the user gives (``speaker_map``, see :func:`read_speaker_map`),
* else Kaldi's ``utt2spk`` or ``spk2utt`` in the data folder,
* else the path, see :func:`imlkd_brain.data.speakers.speaker_of`.

Authors: IML-KD contributors
"""

import csv
import os
from pathlib import PurePath

from imlkd_brain.data.speakers import data_folders, speaker_of, without_suffix
from imlkd_brain.data.texts import read_lines
from imlkd_brain.errors import UserError

KALDI_FILES = ("utt2spk", "spk2utt")
UTTERANCE_COLUMNS = ("utterance", "utt", "wav", "path", "file", "id")
SPEAKER_COLUMNS = ("spk_id", "speaker", "spk", "speaker_id")
WAY_OUT = (
    "give --speaker_map a file with lines `utterance speaker`, or the "
    "data_folder that holds the speakers' folders"
)


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
        self.roots = data_folders(data_folder)
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
    """Yield what a map may call a file, the most exact name first."""
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
        One of

        * Kaldi's ``utt2spk``, lines ``utterance speaker``;
        * Kaldi's ``spk2utt``, lines ``speaker utterance utterance ...``. A
          file of two words a line is one if its name holds ``spk2utt``;
        * a CSV of two columns, utterance and speaker;
        * a CSV with a header that names a column ``utterance`` or ``wav``
          and a column ``speaker`` or ``spk_id``.

        An utterance is named by any unique end of its path, with or without
        a suffix.

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
        lines = read_lines(path, "text file", "`utterance speaker`")
    except UserError:
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
