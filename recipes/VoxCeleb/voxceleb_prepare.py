"""
Data preparation for VoxCeleb1, VoxCeleb2, both, and corpora laid out alike.

Download: http://www.robots.ox.ac.uk/~vgg/data/voxceleb/

Same function, arguments and CSV columns as SpeechBrain's own preparation. What
is different: the same folder always gives the same CSVs (sorted files, a seeded
split), dev has sessions of its own, lengths come from the files' headers, files
shorter than a chunk are handled, a CSV that is there is a whole one, and CSVs
are made again when the files, the lists or the options have changed.

Authors: IML-KD contributors
"""

import csv
import hashlib
import json
import os
import random
import shutil
import zipfile
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from imlkd_brain.data.audio import check_audio, read_audio
from imlkd_brain.data.speakers import speaker_of
from imlkd_brain.errors import UserError
from imlkd_brain.files import replacing, write_json
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)
OPT_FILE = "opt_voxceleb_prepare.json"
TRAIN_CSV = "train.csv"
DEV_CSV = "dev.csv"
TEST_CSV = "test.csv"
ENROL_CSV = "enrol.csv"
SPLIT_FILES = {
    "train": (TRAIN_CSV,),
    "dev": (DEV_CSV,),
    "test": (ENROL_CSV, TEST_CSV),
}
COLUMNS = ("ID", "duration", "wav", "start", "stop", "spk_id")
TEST_WAV = "vox1_test_wav.zip"
META = "meta"
# A file of at least this share of a chunk makes one (shorter) row.
SHORTEST_SHARE = 0.5
FIRST_OFFENDERS = 5  # how many bad files a message names
OPTIONS_FORMAT = 2  # raised whenever the same options would give other CSVs
# What was read from the files, so that an unchanged file is not read again.
MEASURED_FILE = "measured_voxceleb_prepare.csv"
LINE_END = "."  # the last field of a line there: a line without it is torn
STAT_BLOCK = 1000  # files that one thread looks up at a time


def prepare_voxceleb(
    data_folder,
    save_folder,
    verification_pairs_file,
    splits=("train", "dev", "test"),
    split_ratio=(90, 10),
    seg_dur=3.0,
    amp_th=5e-04,
    source=None,
    split_speaker=False,
    random_segment=False,
    skip_prep=False,
    dev_pairs_file=None,
    seed=1986,
    n_jobs=None,
    begun=False,
    sample_rate=16000,
):
    """
    Prepares the csv files: train.csv, dev.csv, and enrol.csv and test.csv.

    A split whose CSVs were made with the same options from the same files
    (path, size and time of change) is not made again. Where something has
    changed, the split is made again, and only files that are new or changed
    are read.

    Without dev_pairs_file, dev takes one session of each speaker that has two
    or more, so that no dev utterance comes from a recording that training has.
    The other sessions train. A speaker of one session trains and is not in
    dev.

    Arguments
    ---------
    data_folder : str
        Folder with ``wav/<speaker>/<session>/<utterance>.wav`` (mono, at
        ``sample_rate``); several folders are separated by commas.
    save_folder : str
        The directory where to store the csv files.
    verification_pairs_file : str, list of str or None
        Trial list(s), ``label enrol test`` a line, several separated by
        commas. Their speakers, of both columns, are neither in train nor in
        dev, and their utterances are what enrol.csv and test.csv hold.
    splits : list
        Of 'train', 'dev' and 'test'.
    split_ratio : list
        Shares of train and dev, where there is no dev_pairs_file. Of each
        speaker, dev takes the session whose share of the speaker's files is
        nearest to the one of dev (none at 0); with split_speaker, dev takes
        that share of the speakers.
    seg_dur : float
        Length of a chunk in seconds. A file shorter than a chunk makes one
        row of its whole length if it has half of a chunk, else it is left out,
        counted and logged.
    amp_th : float
        Chunks whose mean absolute amplitude is below it are left out (not
        from whole files); 0 spares decoding the files.
    source : str
        Folder with the archive vox1_test_wav.zip, to be unpacked into
        (the first) data_folder.
    split_speaker : bool
        Whether dev takes whole speakers rather than a session of each.
    random_segment : bool
        One row of the whole length per training file: the chunk is drawn in
        training. Dev without dev_pairs_file has chunks in any case.
    skip_prep : bool
        If True, skip preparation.
    dev_pairs_file : str, list of str or None
        Trial list(s) of the dev speakers. These are left out of train, and
        dev.csv holds exactly the utterances of the list, whole.
    seed : int
        Of the split into train and dev.
    n_jobs : int
        Threads that read files; None for one per processor.
    begun : bool
        Whether a training on the CSVs in save_folder has begun. Its train.csv
        and dev.csv are then not replaced by others; other paths of the same
        utterances are accepted.
    sample_rate : int
        The rate that all files must have, in Hz.

    Raises
    ------
    UserError
        If folders, lists or audio files are not as described, if dev is
        asked for and no speaker has two sessions, or if a training that has
        begun would get other utterances.

    Example
    -------
    >>> prepare_voxceleb("data", "results", None, skip_prep=True)
    """
    if skip_prep:
        return
    splits = _known_splits(splits)
    folders = [os.path.abspath(f) for f in _separated(data_folder)]
    if not folders:
        raise UserError("data_folder: expected the path of a folder.")
    test_lists = _separated(verification_pairs_file)
    dev_lists = _separated(dev_pairs_file)
    if "test" in splits and not test_lists:
        raise UserError(
            "verification_pairs_file: enrol.csv and test.csv are made from a "
            "trial list and none was given; give one, or leave 'test' out of "
            "splits."
        )
    if not (isinstance(seg_dur, int | float) and seg_dur > 0):
        raise UserError(f"seg_dur: {seg_dur!r} should be seconds above 0.")
    dev_share = _dev_share(split_ratio)
    if source is not None:
        _unpack_source(source, folders[0])
    test_trials = _read_pairs(test_lists)
    dev_trials = _read_pairs(dev_lists)

    options = {
        "format": OPTIONS_FORMAT,
        "data_folder": folders,
        "sample_rate": sample_rate,
        "verification_pairs": _digest(test_lists),
    }
    training_options = {
        **options,
        "dev_pairs": _digest(dev_lists),
        "split_ratio": list(split_ratio),
        "seg_dur": seg_dur,
        "amp_th": amp_th,
        "split_speaker": split_speaker,
        "random_segment": random_segment,
        "seed": seed,
    }
    n_jobs = n_jobs or os.cpu_count() or 1
    sources = _sources(splits, folders, test_trials, dev_trials, sample_rate)
    stats = _stats({p for f in sources.values() for p in f.values()}, n_jobs)
    wanted = {
        split: {
            **(options if split == "test" else training_options),
            "files": _fingerprint(files, stats),
        }
        for split, files in sources.items()
    }
    _make_folder(save_folder)
    done = _read_done(save_folder)
    todo = [
        split for split in splits if _to_do(split, done, wanted, save_folder)
    ]
    if not todo:
        logger.info(
            "Skipping preparation, completed in previous run; files, lists "
            "and options are the same."
        )
        return
    train, dev = {}, {}
    if "train" in todo or ("dev" in todo and not dev_trials):
        train, dev = _split(
            sources["train" if "train" in todo else "dev"],
            test_trials,
            dev_trials,
            dev_share,
            split_speaker,
            seed,
            "dev" in splits,
        )
    # While a CSV is being replaced nothing may claim that it is done.
    done = {split: done[split] for split in done if split not in todo}
    _write_done(save_folder, done)

    logger.info(f"Creating csv files in {save_folder}")
    with _Measured(save_folder, stats, n_jobs, sample_rate) as measured:
        if "test" in todo:
            rows = _whole_rows(sources["test"], measured, "test files")
            for column, name in enumerate(SPLIT_FILES["test"], 1):
                chosen = {trial[column] for trial in test_trials}
                _write_csv(
                    os.path.join(save_folder, name),
                    [row for row in rows if row[0] in chosen],
                )
        # The shortest file that is kept, whether it is cut here or later.
        least = SHORTEST_SHARE * seg_dur
        if "train" in todo:
            chunk = None if random_segment else seg_dur
            rows = _chunk_rows(train, chunk, least, amp_th, measured, "train")
            if not rows:
                raise UserError(
                    f"{data_folder}: no training rows are left; check the "
                    "trial lists, seg_dur and amp_th."
                )
            path = os.path.join(save_folder, TRAIN_CSV)
            if begun:
                _check_same(path, rows)
            _write_csv(path, rows)
        if "dev" in todo:
            if dev_trials:
                rows = _whole_rows(sources["dev"], measured, "dev files")
            else:
                # Chunks at fixed places, so that epochs can be compared.
                rows = _chunk_rows(dev, seg_dur, least, amp_th, measured, "dev")
                if "train" in splits and not split_speaker:
                    rows = _rows_of_trained(rows, save_folder)
            path = os.path.join(save_folder, DEV_CSV)
            if begun:
                _check_same(path, rows)
            _write_csv(path, rows)
    done.update((split, wanted[split]) for split in todo)
    _write_done(save_folder, done)


def _sources(splits, folders, test_trials, dev_trials, sample_rate):
    """The files that each split is made from, {split: {key: path}}."""
    sources, whole = {}, None
    for split in splits:
        if split == "test":
            sources[split] = _find_listed(test_trials, folders)
        elif split == "dev" and dev_trials:
            sources[split] = _find_listed(dev_trials, folders)
        else:
            if whole is None:
                whole = _list_files(folders, sample_rate)
            sources[split] = whole
    return sources


def _stats(paths, n_jobs):
    """Size in bytes and time of change in ns of files, {path: (size, ns)}.

    Threads, since a file server takes its time for each answer.
    """

    def look_up(block):
        """Look up the files of one block; a dangling link has no size."""
        found = []
        for path in block:
            try:
                stat = os.stat(path)
                found.append((path, (stat.st_size, stat.st_mtime_ns)))
            except OSError:
                found.append((path, (-1, 0)))
        return found

    paths = sorted(paths)
    blocks = [
        paths[i : i + STAT_BLOCK] for i in range(0, len(paths), STAT_BLOCK)
    ]
    with ThreadPoolExecutor(n_jobs) as pool:
        return dict(
            entry for found in pool.map(look_up, blocks) for entry in found
        )


def _fingerprint(files, stats):
    """SHA-256 of the paths, sizes and times of change of files."""
    digest = hashlib.sha256()
    for path in sorted(files.values()):
        size, changed = stats[path]
        digest.update(f"{path}\0{size}\0{changed}\n".encode("utf-8", "replace"))
    return digest.hexdigest()


def _to_do(split, done, wanted, save_folder):
    """Whether a split has to be made; say what changed if it was there."""
    before, now = done.get(split), wanted[split]
    if not isinstance(before, dict):
        return True
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        logger.warning(
            f"{split}: prepared earlier and made again, because these have "
            f"changed: {', '.join(changed)}."
        )
        return True
    return not all(
        os.path.isfile(os.path.join(save_folder, name))
        for name in SPLIT_FILES[split]
    )


def _make_folder(folder):
    """Make a folder for the CSVs, or say why there is none."""
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"{folder}: the CSVs cannot be kept there ({error.strerror}); "
            "give a folder that can be written as save_folder."
        ) from error


def _check_same(path, rows):
    """Refuse rows that differ from a CSV's in more than the files' paths."""
    if not os.path.isfile(path):
        return
    place = COLUMNS.index("wav")

    def without_path(row):
        """A row as text, without the path."""
        return tuple(str(v) for i, v in enumerate(row) if i != place)

    with open(path, newline="", encoding="utf-8") as file:
        before = {without_path(row) for row in list(csv.reader(file))[1:]}
    now = {without_path(row) for row in rows}
    if before != now:
        first = min(before ^ now)[0]
        raise UserError(
            f"{path}: the training in this folder began with other rows "
            f"({len(now - before)} would come, {len(before - now)} would go, "
            f"such as {first}); give a new output_folder, restore the files, "
            "lists and options, or go on with the CSVs as they are "
            "(`--skip_prep True` of train_kd.py)."
        )


def _rows_of_trained(rows, save_folder):
    """Rows of the speakers in train.csv, which alone the classifier knows.

    A speaker can lose all training rows to seg_dur and amp_th.
    """
    with open(
        os.path.join(save_folder, TRAIN_CSV), newline="", encoding="utf-8"
    ) as file:
        trained = {row["spk_id"] for row in csv.DictReader(file)}
    unknown = sorted({row[-1] for row in rows} - trained)
    if unknown:
        logger.warning(
            f"dev: {len(unknown)} speakers, such as {unknown[0]}, have no "
            "training rows and are left out."
        )
    return [row for row in rows if row[-1] in trained]


def _known_splits(splits):
    """Check the names of the splits; return them as a list."""
    unknown = [split for split in splits if split not in SPLIT_FILES]
    if unknown or not splits:
        raise UserError(
            f"splits: {list(splits)} should be some of 'train', 'dev' and "
            "'test'."
        )
    return list(splits)


def _separated(paths):
    """A list of paths from None, a list, or text with commas."""
    if paths is None:
        return []
    if isinstance(paths, str):
        paths = paths.split(",")
    return [str(path).strip() for path in paths if str(path).strip()]


def _dev_share(ratio):
    """The share of dev in a split ratio such as [90, 10]."""
    try:
        train, dev = (float(part) for part in ratio)
    except (TypeError, ValueError):
        train, dev = 0.0, 0.0
    if train <= 0 or dev < 0:
        raise UserError(
            f"split_ratio: {ratio} should be two shares, of train and of dev, "
            "such as [90, 10]."
        )
    return dev / (train + dev)


def _digest(paths):
    """SHA-256 of the contents of trial lists, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _read_pairs(paths):
    """Read trial lists.

    Arguments
    ---------
    paths : list of str
        Lists with lines ``label enrol test``.

    Returns
    -------
    list of tuple
        (list and line, enrolment key, test key); a key is
        ``speaker/session/utterance``.
    """
    trials = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: this trial list cannot be read ({error}); give the "
                "path of a text file with lines `label enrol test`."
            ) from error
        before = len(trials)
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 3 or any(
                field.count("/") != 2 for field in fields[1:]
            ):
                raise UserError(
                    f"{path}, line {number}: expected `label "
                    "speaker/session/utterance.wav "
                    f"speaker/session/utterance.wav`, found {line[:80]!r}."
                )
            keys = [os.path.splitext(field)[0] for field in fields[1:]]
            trials.append((f"{path}, line {number}", *keys))
        if len(trials) == before:
            raise UserError(f"{path}: this trial list is empty.")
    return trials


def _speakers(trials):
    """The speakers of both columns of trials."""
    return {speaker_of(key) for _, *pair in trials for key in pair}


def _unpack_source(source, data_folder):
    """Unpack the test archive of VoxCeleb1 and copy the metadata."""
    wavs = os.path.join(data_folder, "wav")
    if not os.path.exists(os.path.join(wavs, "id10270")):
        archive = os.path.join(source, TEST_WAV)
        if not zipfile.is_zipfile(archive):
            raise UserError(
                f"{archive}: missing or no zip archive; source should be the "
                "folder of VoxCeleb's archives, or None if they are unpacked."
            )
        logger.info(f"Extracting {archive} to {data_folder}")
        partial = os.path.join(data_folder, ".unpacking")
        shutil.rmtree(partial, ignore_errors=True)
        unpacked = os.path.join(partial, "wav")
        try:
            shutil.unpack_archive(archive, partial)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"{archive}: the archive is damaged ({error}); get it again."
            ) from error
        if not os.path.isdir(unpacked):
            shutil.rmtree(partial)
            raise UserError(
                f"{archive}: holds no folder `wav`; source should have the "
                "test archive of VoxCeleb1."
            )
        os.makedirs(wavs, exist_ok=True)
        # id10270 comes last: where it is, the archive was unpacked whole.
        for speaker in sorted(os.listdir(unpacked), reverse=True):
            place = os.path.join(wavs, speaker)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(os.path.join(unpacked, speaker), place)
        shutil.rmtree(partial)
    meta = os.path.join(data_folder, META)
    if os.path.isdir(os.path.join(source, META)) and not os.path.exists(meta):
        partial = f"{meta}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(os.path.join(source, META), partial)
        os.rename(partial, meta)


def _list_files(folders, sample_rate):
    """List ``wav/<speaker>/<session>/<utterance>.wav`` of all folders.

    Returns
    -------
    dict
        ``speaker/session/utterance`` to the file's path, sorted by key.
    """
    files, elsewhere = {}, []
    for folder in folders:
        root = os.path.join(folder, "wav")
        found = False
        for place, _, names in os.walk(root, followlinks=True):
            below = os.path.relpath(place, root).split(os.sep)
            for name in names:
                if not name.endswith(".wav"):
                    continue
                found = True
                path = os.path.join(place, name)
                if len(below) != 2:
                    elsewhere.append(path)
                    continue
                key = "/".join([*below, name[: -len(".wav")]])
                if files.setdefault(key, path) != path:
                    raise UserError(
                        f"{path}: {files[key]} has the same speaker, session "
                        "and name; an utterance may be in one data folder "
                        "only."
                    )
        if not found:
            raise UserError(_no_wav_message(folder, sample_rate))
    if not files:
        raise UserError(
            f"{min(elsewhere)}: expected files at "
            "wav/<speaker>/<session>/<utterance>.wav; move them there."
        )
    if elsewhere:
        logger.warning(
            f"{len(elsewhere)} files are not at wav/<speaker>/<session>/ and "
            f"are not used, the first is {min(elsewhere)}."
        )
    return dict(sorted(files.items()))


def _no_wav_message(folder, sample_rate):
    """Say what a data folder without wav files lacks."""
    if not os.path.isdir(folder):
        return (
            f"{folder}: there is no such folder; data_folder should hold "
            "wav/<speaker>/<session>/<utterance>.wav."
        )
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".m4a"):
                return (
                    f"{os.path.join(place, name)}: VoxCeleb2 comes as .m4a and "
                    "wav is needed; convert each file with `ffmpeg -i IN.m4a "
                    f"-ac 1 -ar {sample_rate} OUT.wav` to {folder}/wav/"
                    "<speaker>/<session>/<utterance>.wav."
                )
    return (
        f"{folder}: no wav/<speaker>/<session>/<utterance>.wav there; give the "
        "folder that holds `wav`."
    )


def _find_listed(trials, folders):
    """Find the files of a trial list; refuse a list that names missing ones.

    Returns
    -------
    dict
        Key to the file's path, sorted by key.
    """
    files = {}
    for key in sorted({key for _, *pair in trials for key in pair}):
        for folder in folders:
            path = os.path.join(folder, "wav", *key.split("/")) + ".wav"
            if os.path.isfile(path):
                files[key] = path
                break
    missing = [
        (where, key)
        for where, *pair in trials
        for key in pair
        if key not in files
    ]
    if missing:
        first = "; ".join(
            f"{where}: {key}.wav" for where, key in missing[:FIRST_OFFENDERS]
        )
        raise UserError(
            f"{len({key for _, key in missing})} utterances of the trial list "
            f"are not in {', '.join(folders)} ({first}); check data_folder, "
            "or give the list that belongs to it."
        )
    return files


def _split(
    files, test_trials, dev_trials, dev_share, by_speaker, seed, dev_asked
):
    """Split files into train and dev.

    Arguments
    ---------
    files : dict
        Key to path, sorted by key.
    test_trials, dev_trials : list
        From ``_read_pairs``; their speakers are in neither part.
    dev_share : float
        Share of dev; not used if there are dev trials.
    by_speaker : bool
        Whether dev takes whole speakers.
    seed : int
        Of the choice.
    dev_asked : bool
        Whether there has to be a dev part, if its share is above zero.

    Returns
    -------
    train, dev : dict
        Key to path, sorted by key. ``dev`` is empty if there are dev trials.
    """
    tested, developed = _speakers(test_trials), _speakers(dev_trials)
    if tested & developed:
        logger.warning(
            f"{len(tested & developed)} speakers, such as "
            f"{min(tested & developed)}, are in the dev trials and in the "
            "verification trials: what is chosen on dev is chosen on test."
        )
    speakers = defaultdict(list)
    for key in files:
        speaker = speaker_of(key)
        if speaker not in tested | developed:
            speakers[speaker].append(key)
    if not speakers:
        raise UserError(
            "every speaker of data_folder is in the trial lists, so none is "
            "left to train on; check data_folder and the lists."
        )
    held_out = set()
    if dev_share > 0 and not dev_trials:
        if by_speaker:
            names = list(speakers)
            random.Random(seed).shuffle(names)
            wanted = min(round(dev_share * len(names)), len(names) - 1)
            for speaker in names[:wanted]:
                held_out.update(speakers[speaker])
        else:
            held_out = _dev_sessions(speakers, dev_share, seed)
            if dev_asked and not held_out:
                raise UserError(
                    "split_ratio: dev takes a session of each speaker that "
                    f"has two or more and all {len(speakers)} speakers have "
                    "one; give dev trials of speakers that are not to train "
                    "(`--valid_trials`), or name the sessions of a speaker in "
                    "wav/<speaker>/<session>/."
                )
    used = sorted(key for keys in speakers.values() for key in keys)
    train = {key: files[key] for key in used if key not in held_out}
    dev = {key: files[key] for key in used if key in held_out}
    return train, dev


def _dev_sessions(speakers, dev_share, seed):
    """Choose one session of each speaker that has two or more.

    Utterances of one session share room, microphone and day. With some of them
    in training, dev would tell how well the recording is known.

    Arguments
    ---------
    speakers : dict
        Speaker to the keys of its utterances.
    dev_share : float
        Of a speaker's sessions, the one is taken whose share of the speaker's
        utterances is nearest to this.
    seed : int
        Decides between sessions that are equally near, for each speaker on its
        own, so that another speaker in the corpus does not change the choice.

    Returns
    -------
    held_out : set of str
        The keys of the chosen sessions.
    """
    held_out, single = set(), 0
    for speaker, keys in speakers.items():
        sessions = defaultdict(list)
        for key in keys:
            sessions[key.split("/")[1]].append(key)
        if len(sessions) < 2:
            single += 1
            continue
        names = sorted(sessions)
        random.Random(f"{seed} {speaker}").shuffle(names)
        wanted = dev_share * len(keys)
        held_out.update(
            min(
                (sessions[name] for name in names),
                key=lambda session: abs(len(session) - wanted),
            )
        )
    share = len(held_out) / sum(len(keys) for keys in speakers.values())
    message = (
        f"dev: one session of each of {len(speakers) - single} speakers, "
        f"{100 * share:.1f} % of the files ({100 * dev_share:.1f} % are the "
        f"share in split_ratio); {single} speakers have one session, which "
        "trains."
    )
    # With few sessions a speaker, one of them is much of the training data.
    if share > 2 * dev_share:
        logger.warning(
            f"{message} With dev trials (valid_trials) only their speakers "
            "would be lost to training."
        )
    else:
        logger.info(message)
    return held_out


def _whole_rows(files, measured, title):
    """Rows of whole files, with the key as ID."""
    found = measured(list(files.values()), None, title)
    return [
        (key, n / measured.sample_rate, path, 0, n, speaker_of(key))
        for (key, path), (n, _) in zip(files.items(), found, strict=True)
    ]


def _chunk_rows(files, seg_dur, least, amp_th, measured, split):
    """Rows of chunks, or of whole files if ``seg_dur`` is None.

    Arguments
    ---------
    files : dict
        Key to path.
    seg_dur : float or None
        Length of a chunk in seconds.
    least : float
        Files shorter than that many seconds are left out.
    amp_th : float
        Least mean absolute amplitude of a chunk.
    measured : _Measured
        Gives the files' lengths and levels.
    split : str
        Name for the progress bar and the log.

    Returns
    -------
    list of tuple
        Rows in the order of COLUMNS.
    """
    rate = measured.sample_rate
    chunk = None if seg_dur is None else int(round(seg_dur * rate))
    found = measured(
        list(files.values()), chunk if amp_th > 0 else None, f"{split} files"
    )
    rows, short, quiet = [], 0, 0
    for (key, path), (frames, levels) in zip(files.items(), found, strict=True):
        if frames < least * rate:
            short += 1
            continue
        audio_id, speaker = key.replace("/", "--"), speaker_of(key)
        duration = frames / rate
        if chunk is None:
            rows.append((audio_id, duration, path, 0, frames, speaker))
            continue
        for index, (start, stop) in enumerate(_bounds(frames, chunk)):
            if amp_th > 0 and levels[index] < amp_th:
                quiet += 1
                continue
            begin, end = (round(n / rate, 6) for n in (start, stop))
            chunk_id = f"{audio_id}_{begin}_{end}"
            rows.append((chunk_id, duration, path, start, stop, speaker))
    if short:
        logger.warning(
            f"{split}: {short} files are shorter than {least:g} s and are "
            "left out."
        )
    if quiet:
        logger.warning(
            f"{split}: {quiet} chunks have a mean amplitude below {amp_th:g} "
            "and are left out."
        )
    return rows


def _bounds(frames, chunk):
    """First and last sample of each chunk; a short file is one chunk."""
    if frames < chunk:
        return [(0, frames)]
    return [(i * chunk, (i + 1) * chunk) for i in range(frames // chunk)]


class _Measured:
    """Lengths and levels of files, which are read once for each save_folder.

    Every result is appended to a file at once, so that an interrupted
    preparation goes on where it was.

    Arguments
    ---------
    save_folder : str
        Where the file is.
    stats : dict
        Path to size and time of change, from ``_stats``. A result holds for
        a file in which both are the same.
    n_jobs : int
        Threads.
    sample_rate : int
        The rate that all files must have, in Hz. A result of another rate is
        no result.
    """

    def __init__(self, save_folder, stats, n_jobs, sample_rate):
        self.path = os.path.join(save_folder, MEASURED_FILE)
        self.stats = stats
        self.n_jobs = n_jobs
        self.sample_rate = sample_rate
        self.known, self.lines, whole = {}, 0, True
        try:
            with open(
                self.path, newline="", encoding="utf-8", errors="replace"
            ) as file:
                for line in file:
                    self.lines += 1
                    whole = line.endswith("\n")
                    self._read(line)
        except FileNotFoundError:
            pass
        self.file = open(  # noqa: SIM115 (closed by __exit__)
            self.path, "a", newline="", encoding="utf-8"
        )
        if not whole:
            self.file.write("\n")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        if error[0] is None and self.lines > len(self.known):
            # Lines of files that have changed since are of no use.
            with replacing(self.path) as self.file:
                for path, (stat, frames, chunk, levels) in self.known.items():
                    self._append(path, stat, frames, chunk, levels)

    def _read(self, line):
        """Take in a line; one that is cut short or damaged is passed over."""
        try:
            path, size, changed, rate, frames, chunk, levels, end = next(
                csv.reader([line])
            )
            entry = (
                (int(size), int(changed)),
                int(frames),
                int(chunk),
                tuple(float(level) for level in levels.split()),
            )
        except (ValueError, StopIteration, csv.Error):
            return
        if end == LINE_END and rate == str(self.sample_rate):
            self.known[path] = entry

    def _append(self, path, stat, frames, chunk, levels):
        """Write a line; nine digits give a float32 back as it was."""
        levels = " ".join(f"{level:.9g}" for level in levels)
        csv.writer(self.file, lineterminator="\n").writerow(
            (path, *stat, self.sample_rate, frames, chunk, levels, LINE_END)
        )

    def __call__(self, paths, chunk, title):
        """Return the lengths of files and the levels of their chunks.

        Arguments
        ---------
        paths : list of str
            Keys of ``stats``.
        chunk : int or None
            Samples in a chunk; None where levels are not needed, which spares
            decoding the files.
        title : str
            For the progress bar.

        Returns
        -------
        list of tuple
            Samples of the file, and the mean absolute amplitude of each of
            its chunks. These may be of another chunk if ``chunk`` is None.
        """
        unread = [path for path in paths if not self._holds(path, chunk)]
        if unread and len(unread) < len(paths):
            logger.info(
                f"{title}: reading {len(unread)} of {len(paths)}; the others "
                "have not changed since they were read."
            )

        def measure(path):
            """Samples of a file and, where needed, the level of its chunks."""
            if chunk is None:
                return check_audio(path, self.sample_rate), 0, ()
            signal = read_audio(path, sample_rate=self.sample_rate)
            signal = np.abs(signal.numpy())
            return (
                len(signal),
                chunk,
                tuple(
                    float(signal[start:stop].mean())
                    for start, stop in _bounds(len(signal), chunk)
                ),
            )

        def keep(path, result):
            """Keep a result in memory and in the file."""
            self.known[path] = (self.stats[path], *result)
            self._append(path, *self.known[path])
            self.lines += 1

        if unread:
            _for_all(
                unread, measure, keep, self.n_jobs, title, self.sample_rate
            )
        return [(self.known[path][1], self.known[path][3]) for path in paths]

    def _holds(self, path, chunk):
        """Whether the result of a file is known and still holds."""
        stat, _, known_chunk, _ = self.known.get(path, (None, 0, 0, ()))
        return stat == self.stats[path] and chunk in (None, known_chunk)


def _for_all(paths, function, keep, n_jobs, title, sample_rate):
    """Apply a function to files in threads; report all bad files at once.

    Reading releases the interpreter's lock, so threads suffice.

    Arguments
    ---------
    paths : list of str
        The files.
    function : callable
        Called with each path.
    keep : callable
        Called with path and result, in order, as soon as there is one.
    n_jobs : int
        Threads.
    title : str
        For the progress bar.
    sample_rate : int
        For the message, in Hz.
    """
    bad = []

    def guarded(path):
        try:
            return function(path)
        except UserError as error:
            # The way out is said once for all of them.
            bad.append(str(error).partition(";")[0])
        return None

    pool = ThreadPoolExecutor(n_jobs)
    try:
        results = tqdm(
            pool.map(guarded, paths),
            total=len(paths),
            desc=title,
            dynamic_ncols=True,
        )
        for path, result in zip(paths, results, strict=True):
            if result is not None:
                keep(path, result)
    finally:
        # An interrupt does not wait for the files that are still queued.
        pool.shutdown(cancel_futures=True)
    if bad:
        raise UserError(
            f"{len(bad)} of {len(paths)} audio files cannot be used "
            f"({'; '.join(sorted(bad)[:FIRST_OFFENDERS])}); convert or restore "
            "them, move them out of the data folder, or give the corpus's "
            "sample_rate."
        )


def _write_csv(path, rows):
    """Write rows to a temporary file and rename it."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    logger.info(f"{path}: {len(rows)} rows")


def _read_done(save_folder):
    """The options of the splits that are whole, {} if there are none."""
    path = os.path.join(save_folder, OPT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            done = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return done if isinstance(done, dict) else {}


def _write_done(save_folder, done):
    """Keep the options of the splits that are whole."""
    write_json(os.path.join(save_folder, OPT_FILE), done, indent=1)
