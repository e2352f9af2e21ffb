"""Clips of 395 more voices, laid out like VoxCeleb.

Two public repositories hold clips of corpora that are far larger themselves:

- ``resemble-ai/Resemblyzer``: all 251 speakers of LibriSpeech's
  train-clean-100, one clip of about 14 s each, and ten speakers of its
  test-other with ten clips each (Panayotov et al. 2015; CC BY 4.0).
- ``thegtagamer/PICO-tinyML-benchmark``: one-second words of Speech Commands
  v0.02 (Warden 2018, arXiv 1804.03209; CC BY 4.0). The speakers with at least
  ten words are taken, and the words joined to utterances. Two of them have so
  many words that they are hardly one person, and are left out.

A voice has 10 to 20 seconds. That is enough to train on, and for few trials of
a voice: ``trials/unseen.txt`` is for models that have heard none of them. Its
target trials share no clip of Speech Commands, but are of one recording of
LibriSpeech where a voice has one clip, so their EERs are for comparing models
with one another alone.

The command::

    python -m imlkd_brain.corpora.voice_clips --data_folder data/voice_clips

Authors
 * IML-KD contributors
"""

import argparse
from collections import defaultdict
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from imlkd_brain.corpora.building import (
    finish,
    finished,
    helpers,
    keep_or_drop,
    need_space,
    sole_build,
    speaker_table,
    timed,
    took,
    write_json,
    write_trial_list,
)
from imlkd_brain.corpora.clips import build_speaker
from imlkd_brain.corpora.git_source import GitSource, clone, open_git
from imlkd_brain.corpora.splits import SIZES, make_trials
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.files import read_json

NAME = "voice_clips"
FORMAT = 1  # raised whenever the same repositories would give other audio
PARTS = ("wav", "trials")  # folders of a finished corpus
UNSEEN = "unseen.txt"  # the trial list of all voices
BAND = 8000.0  # Hz: all of what 16 kHz hold
FEWEST_WORDS, MOST_WORDS = 10, 60  # of a speaker of one-second words


@dataclass(frozen=True)
class Repository:
    """A public repository with clips of known speakers."""

    pack: str  # what the speakers' names begin with
    address: str
    commit: str
    folder: str  # of the clips in it
    licence: str
    size: float  # bytes of a clone


REPOSITORIES = (
    Repository(
        "librispeech",
        "https://github.com/resemble-ai/Resemblyzer",
        "15d828edebe06bc72b9cabc8ef8ca5ab2cb457ce",
        "audio_data",
        "LibriSpeech, CC BY 4.0 (https://www.openslr.org/12)",
        0.2e9,
    ),
    Repository(
        "commands",
        "https://github.com/thegtagamer/PICO-tinyML-benchmark",
        "c66f6b0d78fe9218f6de9d07189691cfae077bee",
        "MLTK_keyworkSpotting/dataset",
        "Speech Commands v0.02, CC BY 4.0 (arXiv 1804.03209)",
        0.5e9,
    ),
)


def speakers_of(pack, names):
    """Return the clips of each speaker that is taken.

    Arguments
    ---------
    pack : str
        ``librispeech`` or ``commands``.
    names : iterable of str
        The files' paths in the repository.

    Returns
    -------
    dict of str to list of str
        ``<pack>-<speaker>`` to sorted paths.

    Example
    -------
    >>> speakers_of("librispeech", ["a/librispeech_test-other/7/7-1-0.flac"])
    {'librispeech-7': ['a/librispeech_test-other/7/7-1-0.flac']}
    """
    clips = defaultdict(list)
    for name in sorted(names):
        file = name.rsplit("/", 1)[-1]
        if pack == "librispeech":
            if "/librispeech_" in name and file.endswith(".flac"):
                clips[f"{pack}-{file.split('-')[0]}"].append(name)
        elif "_nohash_" in file and file.endswith(".wav"):
            clips[f"{pack}-{file.split('_')[0]}"].append(name)
    if pack == "librispeech":
        return dict(clips)
    return {
        speaker: words
        for speaker, words in clips.items()
        if FEWEST_WORDS <= len(words) <= MOST_WORDS
    }


def build(data_folder, sources=None):
    """Build the corpus, or go on with an interrupted build, or do nothing.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``wav``, ``trials`` and ``manifest.json`` go. ``manifest.json``
        is written last: a folder without it is not finished.
    sources : dict of str to str or pathlib.Path, optional
        Clones of the repositories by pack; others are cloned.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        If a repository cannot be had, or the folder holds something else.
    """
    data_folder = Path(data_folder)
    options = {
        "corpus": NAME,
        "format": FORMAT,
        "commits": {row.pack: row.commit for row in REPOSITORIES},
    }
    with sole_build(data_folder):
        manifest = finished(data_folder, options, PARTS)
        if manifest:
            return manifest
        work = keep_or_drop(data_folder, options, PARTS)
        seconds, rows = {}, []
        for repository in REPOSITORIES:
            with timed(seconds, f"clone {repository.pack}"):
                given = (sources or {}).get(repository.pack)
                source = _open(repository, given, work)
            with timed(seconds, f"decode {repository.pack}"), closing(source):
                rows += _build_pack(repository, source, work)
        counts = _write_trials(work, rows)
        manifest = {
            "options": options,
            "repositories": {
                row.pack: {
                    "repository": row.address,
                    "commit": row.commit,
                    "licence": row.licence,
                }
                for row in REPOSITORIES
            },
            "speakers": {row["speaker"]: row for row in rows},
            "trials": {UNSEEN: counts},
            "seconds": {key: round(value, 1) for key, value in seconds.items()},
        }
        finish(data_folder, PARTS, manifest)
        return manifest


def _open(repository, given, work):
    """The user's clone of a repository, or one of our own."""
    if given is not None:
        option = f"--{repository.pack}"
        found = open_git(
            Path(given), repository.commit, repository.address, option
        )
        if found is None:
            raise UserError(
                f"{option} {given}: is no clone of {repository.address}; give "
                "one, or leave the option out to have it cloned."
            )
        return found
    folder = work / f"{repository.pack}.git"
    hint = f"clone it elsewhere and give it with --{repository.pack}"
    clone(folder, repository.address, repository.commit, repository.size, hint)
    return GitSource(folder, repository.commit, repository.address)


def _build_pack(repository, source, work):
    """Build the speakers that are not there yet; return all rows."""
    speakers = speakers_of(repository.pack, source.names([repository.folder]))
    if not speakers:
        raise UserError(
            f"{source}: has no clips in {repository.folder} at commit "
            f"{repository.commit}; clone {repository.address} anew."
        )
    places = {name: work / "rows" / f"{name}.json" for name in speakers}
    left = [name for name in speakers if not read_json(places[name])]
    # A clone and what is made of it take about the same.
    share = len(left) / len(speakers)
    need_space(work, share * repository.size / 2, "decode the clips")
    jobs = []
    for name in left:
        # Files, because other processes decode them.
        folder = work / "clips" / name
        folder.mkdir(parents=True, exist_ok=True)
        clips = []
        for clip in speakers[name]:
            path = folder / clip.replace("/", "_")
            path.write_bytes(source.read(clip))
            clips.append((str(path), None))
        jobs.append((name, clips, work))
    title = f"decode {repository.pack}"
    with (
        helpers() as pool,
        tqdm(total=len(jobs), unit="voice", desc=title) as bar,
    ):
        for done in as_completed([pool.submit(_build_one, j) for j in jobs]):
            done.result()
            bar.update()
    rows = [read_json(path) for path in places.values()]
    # A voice of which too little speech is left is none.
    return [row for row in rows if row["utterances"]]


def _build_one(job):
    """Build a speaker; its row, written last, says that it is whole."""
    speaker, clips, work = job
    row = build_speaker(speaker, clips, BAND, 12.0, work / "wav")
    write_json(work / "rows" / f"{speaker}.json", row)


def _write_trials(work, rows):
    """Write the trial list; return its numbers of each kind of trial."""
    wavs = work / "wav"
    utterances = {
        row["speaker"]: sorted(
            path.relative_to(wavs).as_posix()
            for path in (wavs / row["speaker"]).rglob("*.wav")
        )
        for row in rows
    }
    (work / "trials").mkdir(exist_ok=True)
    trials = make_trials(utterances, *SIZES["test"])
    return write_trial_list(work / "trials" / UNSEEN, trials)


def summary(manifest):
    """Return what was built, as text to print."""
    groups = defaultdict(list)
    for row in manifest["speakers"].values():
        groups[row["pack"]].append({"role": "train", **row})
    lines = speaker_table(groups, "pack")
    for row in manifest["repositories"].values():
        lines.append(f"licence: {row['licence']}, from {row['repository']}")
    for name, (target, nontarget) in manifest["trials"].items():
        lines.append(
            f"trials/{name}: {target} target and {nontarget} nontarget trials"
        )
    lines.append(took(manifest["seconds"]))
    return "\n".join(lines)


def main(arguments=None):
    """Parse the command line, build, and say what is where."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name if __spec__ else __name__}",
        description="Lay clips of LibriSpeech and Speech Commands out like "
        "VoxCeleb, as voices to train on or to test other corpora's models.",
    )
    parser.add_argument(
        "--data_folder", required=True, help="where the corpus goes"
    )
    for repository in REPOSITORIES:
        parser.add_argument(
            f"--{repository.pack}",
            metavar="FOLDER",
            help=f"a clone of {repository.address}; cloned if not given",
        )
    chosen = parser.parse_args(arguments)
    sources = {row.pack: getattr(chosen, row.pack) for row in REPOSITORIES}
    manifest = build(chosen.data_folder, sources)
    print(f"\n{NAME} in {chosen.data_folder}")
    print(summary(manifest))


if __name__ == "__main__":
    with one_sentence_errors():
        main()
