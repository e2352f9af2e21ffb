"""MiniVox: a small speaker corpus out of Debian packages, laid out like VoxCeleb.

VoxCeleb needs a registration, so the recipe carries this builder: real
recordings of real people from free Debian packages, fetched with
``apt-get download`` (no root needed), joined into utterances of 4 to 8 seconds
and written as ``wav/<speaker>/<session>/<utterance>.wav`` (16 kHz, mono,
16 bit) with trial lists ``label enrol test``.

What keeps the numbers honest:

- No clip is in two utterances, byte-identical copies of a clip count once, and
  target trials are drawn across sessions.
- Trials are made within a pack, and everything in a pack is limited to the band
  that its narrowest voice fills, so that the channel is not the answer.
- Test and dev speakers are held out whole, by the fixed lists of
  ``minivox_splits.csv``: five folds, and every listed speaker is a test speaker
  in one of them.

The command::

    python -m imlkd_brain.corpora.minivox --data_folder data/minivox

Authors
 * IML-KD contributors
"""

import argparse
import hashlib
import json
import shutil
from concurrent.futures import as_completed
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
)
from imlkd_brain.corpora.clips import build_speaker
from imlkd_brain.corpora.debian import (
    deb_field,
    fetch_packages,
    unpack,
)
from imlkd_brain.corpora.packs import (
    DEFAULT_PACKS,
    PACKS,
    TINY_PACKS,
    find_clips,
)
from imlkd_brain.corpora.splits import read_splits, roles, write_trials
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.files import read_json, sha256_of

FORMAT = 1  # raised whenever the same packages would give other audio

MINUTES_PER_SPEAKER = 12.0  # the rest of a large voice is not decoded
TINY_MINUTES_PER_SPEAKER = 1.0

PARTS = ("wav", "licences", "trials")  # folders of a finished corpus


def build(data_folder, packs=DEFAULT_PACKS, tiny=False, deb_dir=None):
    """Build the corpus, or go on with an interrupted build, or do nothing.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``wav``, ``trials``, ``licences``, ``manifest.json`` and the
        ``cache`` of downloads go. ``manifest.json`` is written last: a folder
        without it is not finished.
    packs : iterable of str
        Keys of ``PACKS``.
    tiny : bool
        One pack, a minute a speaker, its own split: for tests.
    deb_dir : str, pathlib.Path or None
        A folder with the .deb files, for machines without apt.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    UserError
        If a pack is unknown, a package cannot be had or the folder holds
        another build.
    """
    data_folder = Path(data_folder)
    packs = _known_packs(TINY_PACKS if tiny else packs)
    splits = {
        name: row
        for name, row in read_splits().items()
        if name.split("-")[0] in packs and (row["tiny"] or not tiny)
    }
    parts = roles(splits, None if tiny else 0)
    if not {"test", "dev"} <= set(parts.values()):
        raise UserError(
            f"--packs {' '.join(packs)}: the default split has no test or no "
            "dev speakers in these packs; add one of tuxpaint, klettres, "
            "ktuberling."
        )
    options = {
        "format": FORMAT,
        "tiny": tiny,
        "packs": packs,
        "splits": hashlib.sha256(json.dumps(splits).encode()).hexdigest(),
    }
    hint = (
        f" (with --deb-dir {data_folder / 'cache' / 'debs'} nothing is "
        "downloaded twice)"
    )
    with sole_build(data_folder):
        manifest = finished(data_folder, options, PARTS, hint)
        if manifest:
            return manifest
        return _build(data_folder, options, splits, parts, deb_dir)


def _build(data_folder, options, splits, parts, deb_dir):
    """Build what :func:`build` found to be missing; return the manifest."""
    packs, tiny = options["packs"], options["tiny"]
    work = keep_or_drop(data_folder, options, PARTS)
    packages = {
        package: PACKS[pack].component
        for pack in packs
        for package in PACKS[pack].packages
    }
    seconds = {}
    with timed(seconds, "download"):
        debs = fetch_packages(
            packages,
            data_folder / "cache",
            Path(deb_dir) if deb_dir else None,
        )
    to_unpack = sum(
        path.stat().st_size
        for name, path in debs.items()
        if not (work / "unpacked" / name).exists()
    )
    # As much as the packages take when they are unpacked, and the wav files
    need_space(work, 3 * to_unpack, "unpack and decode the packages")
    with timed(seconds, "unpack"):
        trees = unpack(debs, work / "unpacked")
    with timed(seconds, "decode"):
        rows = _build_speakers(packs, trees, splits, tiny, work)

    licences = _copy_licences(trees, work / "licences")
    utterances = {
        speaker: sorted(
            path.relative_to(work / "wav").as_posix()
            for path in (work / "wav" / speaker).rglob("*.wav")
        )
        for speaker in splits
    }
    counts = write_trials(work / "trials", utterances, splits, tiny)
    manifest = {
        "options": options,
        "speakers": {
            row["speaker"]: {
                "role": parts[row["speaker"]],
                "fold": splits[row["speaker"]]["fold"],
                **row,
            }
            for row in rows
        },
        "packages": {
            name: {
                "version": deb_field(path, "Version"),
                "sha256": sha256_of(path),
                "licence": licences[name],
            }
            for name, path in debs.items()
        },
        "trials": counts,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    finish(data_folder, PARTS, manifest)
    return manifest


def _known_packs(packs):
    """Check pack names; return them in the order of ``PACKS``."""
    unknown = sorted(set(packs) - set(PACKS))
    if unknown or not packs:
        raise UserError(
            f"--packs {' '.join(unknown)}: not a pack; choose from "
            f"{', '.join(PACKS)}."
        )
    return [pack for pack in PACKS if pack in packs]


def _build_speakers(packs, trees, splits, tiny, work):
    """Build the speakers that are not there yet, two at a time."""
    jobs = []
    for pack in packs:
        clips = find_clips(pack, trees, splits)
        jobs += [
            (speaker, clips.get(speaker, []), PACKS[pack].band)
            for speaker in splits
            if speaker.split("-")[0] == pack
        ]
    minutes = TINY_MINUTES_PER_SPEAKER if tiny else MINUTES_PER_SPEAKER
    for speaker, clips, _ in jobs:
        if not clips:
            raise UserError(
                f"{speaker}: its package has no recordings of this voice; it "
                "is another version of the package than this recipe knows, "
                "so leave the pack out of --packs."
            )
    left = [
        (speaker, clips, band, minutes, work)
        for speaker, clips, band in jobs
        if not read_json(work / "rows" / f"{speaker}.json")
    ]
    # The large voices first, so that no process ends long after the other.
    left.sort(key=lambda job: -len(job[1]))
    total = sum(len(job[1]) for job in left)
    with (
        helpers() as pool,
        tqdm(total=total, unit="clip", desc="decode") as bar,
    ):
        for done in as_completed([pool.submit(_build_one, j) for j in left]):
            bar.update(done.result()["clips"])
    return [read_json(work / "rows" / f"{job[0]}.json") for job in jobs]


def _build_one(job):
    """Build a speaker; its row, written last, says that it is whole."""
    speaker, clips, band, minutes, work = job
    shutil.rmtree(work / "wav" / speaker, ignore_errors=True)
    row = build_speaker(speaker, clips, band, minutes, work / "wav")
    if not row["utterances"]:
        raise UserError(
            f"{speaker}: none of its {len(clips)} clips could be used "
            f"({row['dropped']}); it is another version of the package than "
            "this recipe knows, so leave the pack out of --packs."
        )
    write_json(work / "rows" / f"{speaker}.json", row)
    return row


def _copy_licences(trees, folder):
    """Keep each package's copyright file; return their paths in the corpus."""
    paths = {}
    for name, tree in trees.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / "doc" / name / "copyright", place / "copyright")
        paths[name] = f"licences/{name}/copyright"
    return paths


def summary(data_folder, manifest):
    """Return what was built, as text to print."""
    rows = manifest["speakers"].values()
    packs = {
        pack: [row for row in rows if row["pack"] == pack]
        for pack in manifest["options"]["packs"]
    }
    lines = [*speaker_table(packs, "pack"), ""]
    for name, (target, nontarget) in manifest["trials"].items():
        if not name.startswith("fold"):
            lines.append(
                f"trials/{name}: {target} target and {nontarget} nontarget"
            )
    folds = sum(name.endswith("_test.txt") for name in manifest["trials"])
    if folds:
        lines.append(
            f"trials/fold<k>_test.txt, fold<k>_dev.txt: {folds} folds, "
            "test.txt and dev.txt are fold 0's"
        )
    lines.append("licences:")
    for name, package in manifest["packages"].items():
        lines.append(f"  {data_folder}/{package['licence']}  ({name})")
    lines.append(took(manifest["seconds"]))
    return "\n".join(lines)


def main(arguments=None, prog="python -m imlkd_brain.corpora.minivox"):
    """Parse the command line, build, and say what is where."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Build MiniVox, a small VoxCeleb-like corpus, out of "
        "Debian packages.",
    )
    parser.add_argument(
        "--data_folder", required=True, help="where the corpus goes"
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="klettres alone, a minute a speaker: for tests",
    )
    parser.add_argument(
        "--packs",
        nargs="+",
        metavar="PACK",
        help=f"of {', '.join(PACKS)}; all but uqm, which is non-free, "
        "if not given",
    )
    parser.add_argument(
        "--deb-dir",
        help="a folder with the .deb files, for machines without apt",
    )
    chosen = parser.parse_args(arguments)
    if chosen.tiny and chosen.packs:
        raise UserError("--tiny is klettres alone; leave --packs out with it.")
    packs = chosen.packs or DEFAULT_PACKS
    manifest = build(chosen.data_folder, packs, chosen.tiny, chosen.deb_dir)
    print(f"\nMiniVox in {chosen.data_folder}")
    print(summary(chosen.data_folder, manifest))
    print(
        "\nnext, in recipes/VoxCeleb/IMLKD:\n  python train_kd.py "
        "hparams/minivox/train_teacher.yaml --data_folder "
        f"{Path(chosen.data_folder).resolve()}"
    )


if __name__ == "__main__":
    with one_sentence_errors():
        main()
