"""speechocean762: 250 voices in five folds, laid out like VoxCeleb.

The corpus (Zhang et al. 2021, arXiv 2104.01378; OpenSLR 101) has 5,000 English
sentences that 250 Mandarin speakers read, half of them under 16, twenty each
in one session. This builder copies the listed recordings to
``wav/<speaker>/s00/<utterance>.wav`` as they are (16 kHz, mono, 16 bit), draws
the folds and writes the lists of trials and of labelled voices.

What keeps the numbers honest:

- The 245 recordings that no ``utt2spk`` of the corpus lists are left out.
- Every file is held against ``speechocean762.csv``, so that each build has the
  same content, wherever it came from.
- Both sides of a trial are of one sex and one age group: no easy pairs.
- Test and dev speakers are held out whole. Folds are balanced by sex and by
  adult and child, and every speaker is a test speaker in one of them.

The command::

    python -m imlkd_brain.speechocean762 --data_folder data/speechocean762

Authors
 * IML-KD contributors
"""

import argparse
import csv
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import zlib
from collections import defaultdict
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path

import soundfile
from tqdm import tqdm

from imlkd_brain.corpus_build import (
    WORK,
    finish,
    finished,
    keep_or_drop,
    last_line,
    need_space,
    sole_build,
    write_json,
)
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.minivox import FOLDS, SAMPLE_RATE, roles

NAME = "speechocean762"
REPOSITORY = "https://github.com/jimbozhang/speechocean762"
COMMIT = "613968e3b0b789fc33936fb5eba1973176ba7d11"
OPENSLR = "https://www.openslr.org/101"
# The words of the README at that commit; it names no other licence.
LICENCE = (
    "It is available for free download for both commercial and "
    "non-commercial purposes."
)
TABLE_FILE = Path(__file__).with_name("speechocean762.csv")
SEED = 762  # of the folds and the lists; part of the corpus
FORMAT = 1  # raised whenever the same recordings would give another corpus

ADULT = 16  # years, the youngest adult's least age
SESSION = "s00"  # each speaker has one
LABELLED = 5  # one in so many training speakers has a label among few
DEV_UTTERANCES = 10  # of a speaker in the dev trials, at most
SPLITS = ("train", "test")  # the corpus' own parts, which folds replace
FOLDERS = ("WAVE", *SPLITS)  # of the source
PARTS = ("wav", "trials", "labels")  # folders of a finished corpus
# Bytes: the recordings, and what a clone holds.
WAV_SIZE, CLONE_SIZE = 0.65e9, 0.55e9


# ---------------------------------------------------------------------------
# Speakers, folds and lists
# ---------------------------------------------------------------------------


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
            text = "".join(" ".join(trial) + "\n" for trial in trials)
            target = sum(trial[0] == "1" for trial in trials)
            names = [f"fold{fold}_{part}.txt"] + [f"{part}.txt"] * (fold == 0)
            for name in names:
                (folder / "trials" / name).write_text(text, encoding="utf-8")
                trial_counts[name] = [target, len(trials) - target]
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


# ---------------------------------------------------------------------------
# The source
# ---------------------------------------------------------------------------


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
            if _wave(speaker, utterance) not in names:
                raise _differs(
                    source, f"{_wave(speaker, utterance)} is missing"
                )


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


def _wave(speaker, utterance):
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


# ---------------------------------------------------------------------------
# The build
# ---------------------------------------------------------------------------


def build(
    data_folder,
    source=None,
    table_file=TABLE_FILE,
    repository=REPOSITORY,
    commit=COMMIT,
):
    """Build the corpus, or go on with an interrupted build, or do nothing.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``wav``, ``trials``, ``labels`` and ``manifest.json`` go.
        ``manifest.json`` is written last: a folder without it is not finished.
    source : str, pathlib.Path or None
        A folder with the corpus; None clones it.
    table_file : str or pathlib.Path
        What is known about the speakers, see :func:`read_table`.
    repository, commit : str
        Where the corpus is cloned from.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        If the source is not the corpus, cannot be had, or the folder holds
        something else.
    """
    data_folder = Path(data_folder)
    options = {
        "corpus": NAME,
        "format": FORMAT,
        "commit": commit,
        "table": hashlib.sha256(Path(table_file).read_bytes()).hexdigest(),
    }
    table = read_table(table_file)
    with sole_build(data_folder):
        manifest = finished(data_folder, options, PARTS)
        if manifest:
            print(f"{data_folder} is built already; nothing to do.")
            return manifest
        if source is not None:
            opened = open_source(Path(source), commit)
        work = keep_or_drop(data_folder, options, PARTS)
        started = time.perf_counter()
        if source is None:
            clone(work / "clone.git", repository, commit)
            opened = GitSource(work / "clone.git", commit)
        seconds = {"clone": time.perf_counter() - started}
        with closing(opened):
            return _build(data_folder, options, table, opened, seconds)


def _build(data_folder, options, table, source, seconds):
    """Build what :func:`build` found to be missing; return the manifest."""
    work = data_folder / WORK
    splits = draw_splits(table)
    started = time.perf_counter()
    check_lists(source, table)
    rows = _copy_speakers(source, table, splits, work)
    seconds["copy"] = time.perf_counter() - started
    started = time.perf_counter()
    utterances = {
        name: [
            f"{name}/{SESSION}/{utterance}.wav"
            for utterance in table[row["speaker"]]["utterances"]
        ]
        for name, row in splits.items()
    }
    trials, labels = write_lists(work, utterances, splits)
    seconds["lists"] = time.perf_counter() - started
    parts = roles(splits, 0)
    manifest = {
        "options": options,
        "repository": REPOSITORY,
        "commit": options["commit"],
        "licence": LICENCE,
        "speakers": {
            name: {"role": parts[name], **splits[name], **rows[name]}
            for name in splits
        },
        "trials": trials,
        "labels": labels,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    finish(data_folder, PARTS, manifest)
    return manifest


def _copy_speakers(source, table, splits, work):
    """Copy the speakers that are not there yet; return all rows."""
    rows = {name: work / "rows" / f"{name}.json" for name in splits}
    left = [name for name in splits if not rows[name].exists()]
    recordings = {
        name: table[splits[name]["speaker"]]["utterances"] for name in left
    }
    share = len(left) / len(splits)
    need_space(work, share * WAV_SIZE, "copy the recordings")
    total = sum(map(len, recordings.values()))
    with tqdm(total=total, unit="utterance", desc="copy") as bar:
        for name in left:
            partial = work / "wav" / f".{name}"
            for place in (partial, work / "wav" / name):
                shutil.rmtree(place, ignore_errors=True)
            (partial / SESSION).mkdir(parents=True)
            frames = 0
            for utterance, crc in recordings[name].items():
                data, length = read_recording(
                    source, _wave(splits[name]["speaker"], utterance), crc
                )
                (partial / SESSION / f"{utterance}.wav").write_bytes(data)
                frames += length
                bar.update()
            os.rename(partial, work / "wav" / name)
            # The row, written last, says that the speaker is whole.
            row = {
                "sessions": 1,
                "utterances": len(recordings[name]),
                "minutes": round(frames / SAMPLE_RATE / 60, 2),
            }
            write_json(rows[name], row)
    return {
        name: json.loads(path.read_text("utf-8")) for name, path in rows.items()
    }


def summary(manifest):
    """What was built, as a table to print."""
    speakers = manifest["speakers"]
    groups = sorted(
        {(name.split("-")[0], row["sex"]) for name, row in speakers.items()}
    )
    lines = [
        f"{'group':<12}{'train':>6}{'dev':>5}{'test':>6}{'utts':>7}{'min':>8}"
    ]
    for group in [*groups, "all"]:
        mine = [
            row
            for name, row in speakers.items()
            if group in ("all", (name.split("-")[0], row["sex"]))
        ]
        count = {
            part: sum(row["role"] == part for row in mine)
            for part in ("train", "dev", "test")
        }
        title = group if group == "all" else f"{group[0]}, {group[1]}"
        lines.append(
            f"{title:<12}{count['train']:>6}{count['dev']:>5}{count['test']:>6}"
            f"{sum(row['utterances'] for row in mine):>7}"
            f"{sum(row['minutes'] for row in mine):>8.1f}"
        )
    lines.append("")
    for name, (target, nontarget) in manifest["trials"].items():
        if name in ("test.txt", "dev.txt"):
            lines.append(
                f"trials/{name}: {target} target and {nontarget} nontarget"
            )
    lines.append(
        f"trials/fold<k>_test.txt, fold<k>_dev.txt: {FOLDS} folds, test.txt "
        "and dev.txt are fold 0's"
    )
    count = manifest["labels"]
    lines.append(
        f"labels/{min(count)} and so on: training speakers with a label where "
        "few have one"
    )
    lines.append(f"licence: {manifest['licence']} ({manifest['repository']})")
    took = manifest["seconds"]
    lines.append(
        "built in " + ", ".join(f"{took[key]:.0f} s {key}" for key in took)
    )
    return "\n".join(lines)


def main(arguments=None):
    """Parse the command line, build, and say what is where."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name if __spec__ else __name__}",
        description="Lay speechocean762 out like VoxCeleb, in five folds.",
    )
    parser.add_argument(
        "--data_folder", required=True, help="where the corpus goes"
    )
    parser.add_argument(
        "--source",
        metavar="FOLDER",
        help=f"a clone of {REPOSITORY} or the unpacked archive of {OPENSLR}; "
        "cloned if not given",
    )
    chosen = parser.parse_args(arguments)
    manifest = build(chosen.data_folder, chosen.source)
    print(f"\n{NAME} in {chosen.data_folder}")
    print(summary(manifest))
    print(
        "\nnext, in recipes/VoxCeleb/IMLKD:\n  python train_kd.py "
        "hparams/minivox/train_teacher.yaml --data_folder "
        f"{Path(chosen.data_folder).resolve()} --output_folder "
        f"results/{NAME}/teacher"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
