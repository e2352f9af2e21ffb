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

    python -m imlkd_brain.corpora.speechocean762 --data_folder data/speechocean762

Authors
 * IML-KD contributors
"""

import argparse
import hashlib
import os
import shutil
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from imlkd_brain.corpora.building import (
    WORK,
    finish,
    finished,
    keep_or_drop,
    need_space,
    sole_build,
    speaker_table,
    timed,
    took,
    write_json,
)
from imlkd_brain.corpora.clips import SAMPLE_RATE
from imlkd_brain.corpora.git_source import GitSource, clone
from imlkd_brain.corpora.speechocean762_lists import (
    TABLE_FILE,
    draw_splits,
    read_table,
    write_lists,
)
from imlkd_brain.corpora.speechocean762_source import (
    CLONE_SIZE,
    COMMIT,
    NAME,
    OPENSLR,
    REPOSITORY,
    WAV_SIZE,
    check_lists,
    open_source,
    read_recording,
    wave,
)
from imlkd_brain.corpora.splits import FOLDS, roles
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.files import read_json

# The words of the README at that commit; it names no other licence.
LICENCE = (
    "It is available for free download for both commercial and "
    "non-commercial purposes."
)
FORMAT = 1  # raised whenever the same recordings would give another corpus

SESSION = "s00"  # each speaker has one
PARTS = ("wav", "trials", "labels")  # folders of a finished corpus


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
            return manifest
        if source is not None:
            opened = open_source(Path(source), commit)
        work = keep_or_drop(data_folder, options, PARTS)
        seconds = {}
        with timed(seconds, "clone"):
            if source is None:
                hint = (
                    "clone it on another machine or unpack the archive of "
                    f"{OPENSLR}, copy the folder here and give it with "
                    "--source"
                )
                size = CLONE_SIZE + WAV_SIZE
                clone(work / "clone.git", repository, commit, size, hint)
                opened = GitSource(work / "clone.git", commit, repository)
        with closing(opened):
            return _build(data_folder, options, table, opened, seconds)


def _build(data_folder, options, table, source, seconds):
    """Build what :func:`build` found to be missing; return the manifest."""
    work = data_folder / WORK
    splits = draw_splits(table)
    with timed(seconds, "copy"):
        check_lists(source, table)
        rows = _copy_speakers(source, table, splits, work)
    utterances = {
        name: [
            f"{name}/{SESSION}/{utterance}.wav"
            for utterance in table[row["speaker"]]["utterances"]
        ]
        for name, row in splits.items()
    }
    with timed(seconds, "lists"):
        trials, labels = write_lists(work, utterances, splits)
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
    left = [name for name in splits if not read_json(rows[name])]
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
                    source, wave(splits[name]["speaker"], utterance), crc
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
    return {name: read_json(path) for name, path in rows.items()}


def summary(manifest):
    """Return what was built, as text to print."""
    groups = defaultdict(list)
    for name, row in manifest["speakers"].items():
        groups[f"{name.split('-')[0]}, {row['sex']}"].append(row)
    lines = speaker_table(dict(sorted(groups.items())), "group")
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
    lines.append(took(manifest["seconds"]))
    return "\n".join(lines)


def main(arguments=None, prog="python -m imlkd_brain.corpora.speechocean762"):
    """Parse the command line, build, and say what is where."""
    parser = argparse.ArgumentParser(
        prog=prog,
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
