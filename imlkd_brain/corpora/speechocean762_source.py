"""Where speechocean762's recordings come from: a folder, or a git repository.

Every list and every file is compared with ``speechocean762.csv``, so each
build has the same content, wherever it came from.

Authors: IML-KD contributors
"""

import os
import re
import shutil
import subprocess
import zlib
from collections import defaultdict
from contextlib import suppress
from io import BytesIO

import soundfile
from tqdm import tqdm

from imlkd_brain.corpora.building import last_line, need_space
from imlkd_brain.corpora.clips import SAMPLE_RATE
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

    def names(self):
        """The files' paths inside the corpus."""
        return {
            path.relative_to(self.folder).as_posix()
            for name in FOLDERS
            for path in (self.folder / name).rglob("*")
            if path.is_file()
        }

    def read(self, name):
        """A file's bytes."""
        return (self.folder / name).read_bytes()

    def close(self):
        """There is nothing to end."""


class GitSource:
    """The corpus out of a git directory, which needs no work tree.

    Only the objects that are asked for are read, so a copy may lack others.

    Arguments
    ---------
    folder : pathlib.Path
        The git directory.
    commit : str
        The corpus' commit in it.
    """

    def __init__(self, folder, commit):
        self.folder, self.commit = folder, commit
        self.process = None

    def __str__(self):
        return str(self.folder)

    def names(self):
        """The files' paths inside the corpus."""
        listing = _git(
            *(f"--git-dir={self.folder}", "ls-tree", "-r", "-z"),
            *("--name-only", self.commit, *FOLDERS),
        )
        if listing.returncode:
            raise self._broken(listing.stderr.decode(errors="replace"))
        return set(listing.stdout.decode().split("\0")) - {""}

    def read(self, name):
        """A file's bytes."""
        if self.process is None:
            self.process = subprocess.Popen(
                ["git", f"--git-dir={self.folder}", "cat-file", "--batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        with suppress(BrokenPipeError):  # git says why below
            self.process.stdin.write(f"{self.commit}:{name}\n".encode())
            self.process.stdin.flush()
        head = self.process.stdout.readline().split()
        if len(head) == 3 and head[1] == b"blob":
            data = self.process.stdout.read(int(head[2]) + 1)
            if len(data) == int(head[2]) + 1:
                return data[:-1]
        if len(head) == 2:
            raise self._broken(f"{name} is {head[1].decode()}")
        # git has ended, or never began to answer.
        self.process.terminate()
        raise self._broken(self.process.stderr.read().decode(errors="replace"))

    def close(self):
        """End git."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (
                self.process.stdin,
                self.process.stdout,
                self.process.stderr,
            ):
                with suppress(BrokenPipeError):
                    stream.close()

    def _broken(self, complaint):
        """What to tell about a git directory that lacks objects."""
        reason = last_line(complaint) or "git gave no reason"
        return UserError(
            f"{self.folder}: git cannot read the corpus there ({reason}); "
            f"clone {REPOSITORY} anew."
        )


def _git(*words):
    """Run git and keep what it says."""
    if shutil.which("git") is None:
        raise UserError(
            f"{NAME} is read with git, and there is no `git` here: install "
            f"it, or unpack OpenSLR's archive ({OPENSLR}) and give its folder "
            "with --source."
        )
    return subprocess.run(["git", *words], capture_output=True)


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
    for place in (folder, folder / ".git"):
        if not (place / "objects").is_dir():
            continue
        answer = _git(
            f"--git-dir={place}", "cat-file", "-e", f"{commit}^{{commit}}"
        )
        if answer.returncode:
            raise UserError(
                f"--source {folder}: this git directory has no commit "
                f"{commit}; clone {REPOSITORY}, which has it."
            )
        return GitSource(place, commit)
    gone = [name for name in FOLDERS if not (folder / name).is_dir()]
    raise UserError(
        f"--source {folder}: this is not {NAME}, there is no folder "
        f"{gone[0]} in it; give a clone of {REPOSITORY} or the unpacked "
        f"archive of {OPENSLR}."
    )


def clone(folder, repository=REPOSITORY, commit=COMMIT):
    """Fetch the corpus' commit alone, whole or not at all.

    Arguments
    ---------
    folder : pathlib.Path
        The git directory to be; nothing is done if it is there.
    repository, commit : str
        What is fetched.

    Raises
    ------
    UserError
        If there is no git, no network or no room.
    """
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    need_space(folder.parent, CLONE_SIZE + WAV_SIZE, f"clone {repository}")
    answer = _git("init", "--quiet", "--bare", str(partial))
    complaint = answer.stderr.decode(errors="replace")
    if answer.returncode == 0:
        print(f"fetching {repository} (about 0.5 GB)", flush=True)
        complaint = _fetch(partial, repository, commit)
    if complaint is not None:
        raise UserError(
            f"{repository} could not be cloned "
            f"({last_line(complaint) or 'git gave no reason'}); run the same "
            "command again where there is network, or clone it on another "
            f"machine or unpack the archive of {OPENSLR}, copy the folder "
            "here and give it with --source."
        )
    os.rename(partial, folder)


def _fetch(folder, repository, commit):
    """Fetch with a progress bar; return git's complaint, or None."""
    command = ["git", f"--git-dir={folder}", "fetch", "--depth=1"]
    process = subprocess.Popen(
        [*command, "--progress", repository, commit],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # git must fail and not ask for a password.
        env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
    )
    said = ""
    with tqdm(total=100, unit="%", desc="clone") as bar:
        try:
            # git ends its lines of progress with a carriage return.
            for line in process.stderr:
                found = re.match(r"Receiving objects:\s+(\d+)%", line)
                if found:
                    bar.update(int(found.group(1)) - bar.n)
                else:
                    said += line
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
    return said if process.returncode else None


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
    names = source.names()
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
