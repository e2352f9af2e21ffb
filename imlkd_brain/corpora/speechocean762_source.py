"""Where speechocean762's recordings come from: a folder, or a git repository.

Every list and every file is compared with ``speechocean762.csv``, so each
build has the same content, wherever it came from.

Authors: IML-KD contributors
"""

import zlib
from collections import defaultdict
from io import BytesIO

import soundfile

from imlkd_brain.corpora.clips import SAMPLE_RATE
from imlkd_brain.corpora.git_source import open_git
from imlkd_brain.errors import UserError

NAME = "speechocean762"
REPOSITORY = "https://github.com/jimbozhang/speechocean762"
COMMIT = "613968e3b0b789fc33936fb5eba1973176ba7d11"
OPENSLR = "https://www.openslr.org/101"

SPLITS = ("train", "test")  # the corpus' own parts, which folds replace
FOLDERS = ("WAVE", *SPLITS)  # of the source

# Bytes: the recordings, and what a clone holds.
WAV_SIZE, CLONE_SIZE = 0.65e9, 0.55e9


class FolderSource:
    """The corpus as files: a clone's work tree, or OpenSLR's archive unpacked.

    Arguments
    ---------
    folder : pathlib.Path
        Has WAVE, train and test.
    """

    def __init__(self, folder):
        self.folder = folder

    def __str__(self):
        return str(self.folder)

    def names(self, folders):
        """The paths of the files in some folders."""
        return {
            path.relative_to(self.folder).as_posix()
            for name in folders
            for path in (self.folder / name).rglob("*")
            if path.is_file()
        }

    def read(self, name):
        """A file's bytes."""
        return (self.folder / name).read_bytes()

    def close(self):
        """There is nothing to end."""


def open_source(folder, commit=COMMIT):
    """Find the corpus in the user's folder.

    Arguments
    ---------
    folder : pathlib.Path
        A folder with WAVE, train and test, or one level above it, or a git
        directory, or a clone without files.
    commit : str
        The corpus' commit in a git directory.

    Returns
    -------
    FolderSource or GitSource

    Raises
    ------
    UserError
        If it is none of these.
    """
    if not folder.is_dir():
        raise UserError(f"--source {folder}: there is no such folder.")
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    places = [
        place
        for place in (folder, *below)
        if all((place / name).is_dir() for name in FOLDERS)
    ]
    if places:
        return FolderSource(places[0])
    found = open_git(folder, commit, REPOSITORY, "--source")
    if found is not None:
        return found
    gone = [name for name in FOLDERS if not (folder / name).is_dir()]
    raise UserError(
        f"--source {folder}: this is not {NAME}, there is no folder "
        f"{gone[0]} in it; give a clone of {REPOSITORY} or the unpacked "
        f"archive of {OPENSLR}."
    )


def check_lists(source, table):
    """Hold the corpus' own lists and file names against the table.

    Arguments
    ---------
    source : FolderSource or GitSource
        What was given.
    table : dict
        From :func:`read_table`.

    Raises
    ------
    UserError
        It names the first difference.
    """
    names = source.names(FOLDERS)
    listed, sexes, ages = {}, {}, {}
    for split in SPLITS:
        for name, content in (
            ("utt2spk", listed),
            ("spk2gender", sexes),
            ("spk2age", ages),
        ):
            path = f"{split}/{name}"
            if path not in names:
                raise _differs(source, f"{path} is missing")
            content.update(_read_list(source, path))
    speakers = defaultdict(set)
    for utterance, speaker in listed.items():
        speakers[speaker].add(utterance)
    lists = "train/utt2spk and test/utt2spk"
    for speaker in sorted({*table, *speakers}):
        if speaker not in speakers:
            raise _differs(
                source,
                f"{lists} do not list speaker {speaker}, one of {len(table)} "
                f"({len(table.keys() - speakers)} are missing)",
            )
        if speaker not in table:
            raise _differs(
                source, f"{lists} list speaker {speaker}, whom it does not have"
            )
        row = table[speaker]
        for utterance in sorted(speakers[speaker] ^ row["utterances"].keys()):
            extra = utterance in speakers[speaker]
            raise _differs(
                source,
                f"{lists} {'list' if extra else 'do not list'} utterance "
                f"{utterance} of speaker {speaker}",
            )
        for name, content, known in (
            ("gender", sexes, row["sex"]),
            ("age", ages, str(row["age"])),
        ):
            if content.get(speaker) != known:
                raise _differs(
                    source,
                    f"spk2{name} gives {content.get(speaker, 'nothing')} for "
                    f"speaker {speaker}, not {known}",
                )
        for utterance in sorted(row["utterances"]):
            if wave(speaker, utterance) not in names:
                raise _differs(source, f"{wave(speaker, utterance)} is missing")


def _read_list(source, path):
    """Read a list of two words a line."""
    text = source.read(path).decode("utf-8", errors="replace")
    pairs = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 2 or words[0] in pairs:
            raise _differs(
                source,
                f"{path}, line {number} is not a new pair: {line[:60]!r}",
            )
        pairs[words[0]] = words[1]
    return pairs


def wave(speaker, utterance):
    """A recording's path inside the corpus."""
    return f"WAVE/SPEAKER{speaker}/{utterance}.WAV"


def _differs(source, what):
    """What to tell about a source that is not the corpus."""
    return UserError(
        f"--source {source}: this is not {NAME} as of commit {COMMIT[:10]}: "
        f"{what}; clone {REPOSITORY} anew, or leave --source out."
    )


def read_recording(source, name, crc):
    """Read and check a recording.

    Arguments
    ---------
    source : FolderSource or GitSource
        What was given.
    name : str
        The recording's path inside the corpus.
    crc : int
        CRC-32 of its samples.

    Returns
    -------
    data : bytes
        The file as it is.
    frames : int
        Its number of samples.

    Raises
    ------
    UserError
        If it is not a recording of the corpus.
    """
    data = source.read(name)
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            rate, channels, kind = file.samplerate, file.channels, file.subtype
            samples = file.read(dtype="int16")
    except (soundfile.LibsndfileError, RuntimeError):
        raise _differs(source, f"{name} is no readable audio file") from None
    if (rate, channels, kind) != (SAMPLE_RATE, 1, "PCM_16"):
        raise _differs(
            source,
            f"{name} has {rate} Hz, {channels} "
            f"channel{'s' * (channels > 1)} and {kind}, not "
            f"{SAMPLE_RATE} Hz, one channel and PCM_16",
        )
    if len(samples) == 0:
        raise _differs(source, f"{name} has no samples")
    if zlib.crc32(samples.astype("<i2").tobytes()) != crc:
        raise _differs(
            source, f"{name} is another or a changed recording (CRC-32 differs)"
        )
    return data, len(samples)
