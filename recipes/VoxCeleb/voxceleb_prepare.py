"""
Data preparation for VoxCeleb1, VoxCeleb2, both, and corpora laid out alike.

Download: http://www.robots.ox.ac.uk/~vgg/data/voxceleb/

Same function, arguments and CSV columns as SpeechBrain's own preparation. What
is different: the same folder always gives the same CSVs (sorted files, a seeded
split), lengths come from the files' headers, files shorter than a chunk are
handled, and a CSV that is there is a whole one.

Authors: IML-KD contributors
"""

import csv
import hashlib
import json
import os
import random
import shutil
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile
from tqdm import tqdm

from imlkd_brain.errors import UserError
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
SAMPLERATE = 16000
TEST_WAV = "vox1_test_wav.zip"
META = "meta"
# A file of at least this share of a chunk makes one (shorter) row.
SHORTEST_SHARE = 0.5
FIRST_OFFENDERS = 5  # how many bad files a message names
OPTIONS_FORMAT = 1  # raised whenever the same options would give other CSVs


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
):
    """
    Prepares the csv files: train.csv, dev.csv, and enrol.csv and test.csv.

    A split whose CSVs were made with the same options is not made again.

    Arguments
    ---------
    data_folder : str
        Folder with ``wav/<speaker>/<session>/<utterance>.wav`` (16 kHz, mono);
        several folders are separated by commas.
    save_folder : str
        The directory where to store the csv files.
    verification_pairs_file : str, list of str or None
        Trial list(s), ``label enrol test`` a line, several separated by
        commas. Their speakers, of both columns, are neither in train nor in
        dev, and their utterances are what enrol.csv and test.csv hold.
    splits : list
        Of 'train', 'dev' and 'test'.
    split_ratio : list
        Shares of train and dev, where there is no dev_pairs_file.
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
        Whether dev takes whole speakers rather than utterances of all. In an
        utterance-wise split every speaker keeps at least one file in train.
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

    Raises
    ------
    UserError
        If folders, lists or audio files are not as described.

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
    wanted = {
        split: options if split == "test" else training_options
        for split in splits
    }
    os.makedirs(save_folder, exist_ok=True)
    done = _read_done(save_folder)
    todo = [
        split
        for split in splits
        if done.get(split) != wanted[split]
        or not all(
            os.path.isfile(os.path.join(save_folder, name))
            for name in SPLIT_FILES[split]
        )
    ]
    if not todo:
        logger.info("Skipping preparation, completed in previous run.")
        return
    # While a CSV is being replaced nothing may claim that it is done.
    done = {split: done[split] for split in done if split not in todo}
    _write_done(save_folder, done)

    logger.info(f"Creating csv files in {save_folder}")
    n_jobs = n_jobs or os.cpu_count() or 1
    if "test" in todo:
        files = _find_listed(test_trials, folders)
        rows = _whole_rows(files, n_jobs, "test files")
        for column, name in enumerate(SPLIT_FILES["test"], 1):
            chosen = {trial[column] for trial in test_trials}
            _write_csv(
                os.path.join(save_folder, name),
                [row for row in rows if row[0] in chosen],
            )
    if "train" in todo or "dev" in todo:
        train, dev = _split(
            _list_files(folders),
            test_trials,
            dev_trials,
            dev_share,
            split_speaker,
            seed,
        )
        # The shortest file that is kept, whether it is cut here or later.
        least = SHORTEST_SHARE * seg_dur
        if "train" in todo:
            chunk = None if random_segment else seg_dur
            rows = _chunk_rows(train, chunk, least, amp_th, n_jobs, "train")
            if not rows:
                raise UserError(
                    f"{data_folder}: no training rows are left; check the "
                    "trial lists, seg_dur and amp_th."
                )
            _write_csv(os.path.join(save_folder, TRAIN_CSV), rows)
        if "dev" in todo:
            if dev_trials:
                files = _find_listed(dev_trials, folders)
                rows = _whole_rows(files, n_jobs, "dev files")
            else:
                # Chunks at fixed places, so that epochs can be compared.
                rows = _chunk_rows(dev, seg_dur, least, amp_th, n_jobs, "dev")
            _write_csv(os.path.join(save_folder, DEV_CSV), rows)
    done.update((split, wanted[split]) for split in todo)
    _write_done(save_folder, done)


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
    return {key.split("/")[0] for _, *pair in trials for key in pair}


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
        shutil.unpack_archive(archive, partial)
        os.makedirs(wavs, exist_ok=True)
        # id10270 comes last: where it is, the archive was unpacked whole.
        unpacked = os.path.join(partial, "wav")
        for speaker in sorted(os.listdir(unpacked), reverse=True):
            place = os.path.join(wavs, speaker)
            shutil.rmtree(place, ignore_errors=True)
            os.rename(os.path.join(unpacked, speaker), place)
        shutil.rmtree(partial)
    meta = os.path.join(data_folder, META)
    if os.path.isdir(os.path.join(source, META)) and not os.path.exists(meta):
        shutil.copytree(os.path.join(source, META), meta)


def _list_files(folders):
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
            raise UserError(_no_wav_message(folder))
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


def _no_wav_message(folder):
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
                    f"-ac 1 -ar {SAMPLERATE} OUT.wav` to {folder}/wav/"
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


def _split(files, test_trials, dev_trials, dev_share, by_speaker, seed):
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
        Of the shuffle.

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
        speaker = key.split("/")[0]
        if speaker not in tested | developed:
            speakers[speaker].append(key)
    if not speakers:
        raise UserError(
            "every speaker of data_folder is in the trial lists, so none is "
            "left to train on; check data_folder and the lists."
        )
    held_out = set()
    if not dev_trials:
        units = list(speakers) if by_speaker else sum(speakers.values(), [])
        random.Random(seed).shuffle(units)
        wanted = min(round(dev_share * len(units)), len(units) - 1)
        if by_speaker:
            for speaker in units[:wanted]:
                held_out.update(speakers[speaker])
        else:
            # A speaker that dev knows and train does not could only be wrong.
            left = {speaker: len(keys) for speaker, keys in speakers.items()}
            for key in units:
                speaker = key.split("/")[0]
                if len(held_out) < wanted and left[speaker] > 1:
                    left[speaker] -= 1
                    held_out.add(key)
    used = sorted(key for keys in speakers.values() for key in keys)
    train = {key: files[key] for key in used if key not in held_out}
    dev = {key: files[key] for key in used if key in held_out}
    return train, dev


def _whole_rows(files, n_jobs, title):
    """Rows of whole files, with the key as ID."""
    frames = _for_all(list(files.values()), _frames, n_jobs, title)
    return [
        (key, n / SAMPLERATE, path, 0, n, key.split("/")[0])
        for (key, path), n in zip(files.items(), frames, strict=True)
    ]


def _chunk_rows(files, seg_dur, least, amp_th, n_jobs, split):
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
    n_jobs : int
        Threads.
    split : str
        Name for the progress bar and the log.

    Returns
    -------
    list of tuple
        Rows in the order of COLUMNS.
    """
    chunk = None if seg_dur is None else int(round(seg_dur * SAMPLERATE))

    def measure(path):
        """Samples of a file and, where needed, the level of its chunks."""
        if chunk is None or amp_th <= 0:
            return _frames(path), None
        signal = np.abs(_samples(path))
        bounds = _bounds(len(signal), chunk)
        return len(signal), [
            signal[start:stop].mean() for start, stop in bounds
        ]

    title = f"{split} files"
    measured = _for_all(list(files.values()), measure, n_jobs, title)
    rows, short, quiet = [], 0, 0
    for (key, path), (frames, levels) in zip(
        files.items(), measured, strict=True
    ):
        if frames < least * SAMPLERATE:
            short += 1
            continue
        audio_id, speaker = key.replace("/", "--"), key.split("/")[0]
        duration = frames / SAMPLERATE
        if chunk is None:
            rows.append((audio_id, duration, path, 0, frames, speaker))
            continue
        for index, (start, stop) in enumerate(_bounds(frames, chunk)):
            if levels is not None and levels[index] < amp_th:
                quiet += 1
                continue
            begin, end = (round(n / SAMPLERATE, 6) for n in (start, stop))
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


def _frames(path):
    """The number of samples of a file, from its header."""
    with soundfile.SoundFile(path) as file:
        _check_format(file)
        return file.frames


def _samples(path):
    """The samples of a file, float32."""
    with soundfile.SoundFile(path) as file:
        _check_format(file)
        return file.read(dtype="float32")


def _check_format(file):
    """Refuse what is not mono, 16 kHz and longer than nothing."""
    if file.samplerate != SAMPLERATE:
        raise ValueError(f"{file.samplerate} Hz")
    if file.channels != 1:
        raise ValueError(f"{file.channels} channels")
    if file.frames == 0:
        raise ValueError("empty")


def _for_all(paths, function, n_jobs, title):
    """Apply a function to files in threads; report all bad files at once.

    Reading releases the interpreter's lock, so threads suffice.
    """
    bad = []

    def guarded(path):
        try:
            return function(path)
        except ValueError as error:
            bad.append((path, str(error)))
        except (RuntimeError, OSError):
            bad.append((path, "broken"))
        return None

    with ThreadPoolExecutor(n_jobs) as pool:
        results = list(
            tqdm(
                pool.map(guarded, paths),
                total=len(paths),
                desc=title,
                dynamic_ncols=True,
            )
        )
    if bad:
        first = "; ".join(
            f"{path}: {reason}"
            for path, reason in sorted(bad)[:FIRST_OFFENDERS]
        )
        raise UserError(
            f"{len(bad)} of {len(paths)} audio files are not whole mono files "
            f"at {SAMPLERATE} Hz ({first}); convert or restore them, or move "
            "them out of the data folder."
        )
    return results


def _write_csv(path, rows):
    """Write rows to a temporary file and rename it."""
    partial = f"{path}.partial"
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    os.replace(partial, path)
    logger.info(f"{path}: {len(rows)} rows")


def _read_done(save_folder):
    """The options of the splits that are whole, {} if there are none."""
    path = os.path.join(save_folder, OPT_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            done = json.load(file)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return done if isinstance(done, dict) else {}


def _write_done(save_folder, done):
    """Keep the options of the splits that are whole."""
    path = os.path.join(save_folder, OPT_FILE)
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(done, file, indent=1)
    os.replace(partial, path)
