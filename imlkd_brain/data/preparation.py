"""Makes the CSVs of a corpus that is laid out as VoxCeleb is.

The same folder always gives the same CSVs. A CSV that is there is a whole one,
and CSVs are made again when the files, the lists or the options have changed.

Authors: IML-KD contributors
"""

import csv
import os
from dataclasses import dataclass

from imlkd_brain.data.dev_split import split_files
from imlkd_brain.data.measured import MeasuredFiles, bounds
from imlkd_brain.data.sources import (
    digest_of,
    file_states,
    find_listed,
    fingerprint,
    list_files,
    read_pairs,
)
from imlkd_brain.data.speakers import separated, speaker_of
from imlkd_brain.errors import UserError
from imlkd_brain.files import (
    csv_problems,
    read_json,
    replacing,
    sha256_of,
    write_json,
)
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
# A file of at least this share of a chunk makes one (shorter) row.
SHORTEST_SHARE = 0.5
OPTIONS_FORMAT = 2  # raised whenever the same options would give other CSVs


@dataclass
class PreparationOptions:
    """What decides the rows of the CSVs.

    The arguments are those of ``prepare_voxceleb``. Comma-separated paths
    become lists.

    Raises
    ------
    UserError
        If an option cannot be used.
    """

    data_folder: object
    verification_pairs_file: object
    splits: list
    split_ratio: list
    seg_dur: float
    amp_th: float
    split_speaker: bool
    random_segment: bool
    dev_pairs_file: object
    seed: int
    sample_rate: int

    def __post_init__(self):
        unknown = [split for split in self.splits if split not in SPLIT_FILES]
        if unknown or not self.splits:
            raise UserError(
                f"splits: {list(self.splits)} should be some of 'train', "
                "'dev' and 'test'."
            )
        self.folders = [os.path.abspath(f) for f in separated(self.data_folder)]
        if not self.folders:
            raise UserError("data_folder: expected the path of a folder.")
        self.test_lists = separated(self.verification_pairs_file)
        self.dev_lists = separated(self.dev_pairs_file)
        if "test" in self.splits and not self.test_lists:
            raise UserError(
                "verification_pairs_file: enrol.csv and test.csv are made "
                "from a trial list and none was given; give one, or leave "
                "'test' out of splits."
            )
        number = isinstance(self.seg_dur, int | float)
        if not (number and self.seg_dur > 0):
            raise UserError(
                f"seg_dur: {self.seg_dur!r} should be seconds above 0."
            )
        self.dev_share = _dev_share(self.split_ratio)

    def of_split(self, split):
        """Return what a split depends on beside its files, for the record."""
        options = {
            "format": OPTIONS_FORMAT,
            "data_folder": self.folders,
            "sample_rate": self.sample_rate,
            "verification_pairs": digest_of(self.test_lists),
        }
        if split == "test":
            return options
        return {
            **options,
            "dev_pairs": digest_of(self.dev_lists),
            "split_ratio": list(self.split_ratio),
            "seg_dur": self.seg_dur,
            "amp_th": self.amp_th,
            "split_speaker": self.split_speaker,
            "random_segment": self.random_segment,
            "seed": self.seed,
        }


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


class Preparation:
    """The CSVs that have to be made, and the record of those that are whole.

    A context manager. Inside it the record does not name the CSVs that are
    being replaced. It names them when the block ends without an error.

    Arguments
    ---------
    options : PreparationOptions
        What decides the rows.
    save_folder : str
        Where the CSVs and their record go.
    n_jobs : int, optional
        Threads that read files; one per processor if left out.
    begun : bool
        If True, a training on the CSVs has begun: train.csv and dev.csv may
        change in the files' paths only.

    Attributes
    ----------
    splits : list of str
        The splits that are missing or out of date.
    """

    def __init__(self, options, save_folder, n_jobs=None, begun=False):
        self.options = options
        self.save_folder = save_folder
        self.begun = begun
        self.n_jobs = n_jobs or os.cpu_count() or 1
        self.test_trials = read_pairs(options.test_lists, options.folders)
        self.dev_trials = read_pairs(options.dev_lists, options.folders)
        self.files = self._find_files()
        paths = {p for files in self.files.values() for p in files.values()}
        self.states = file_states(paths, self.n_jobs)
        self.wanted = {
            split: {
                **options.of_split(split),
                "files": fingerprint(files.values(), self.states),
            }
            for split, files in self.files.items()
        }
        _make_folder(save_folder)
        self.done = read_json(self._path(OPT_FILE))
        self.splits = [s for s in options.splits if self._to_do(s)]
        self.train, self.dev = {}, {}
        own_dev = "dev" in self.splits and not self.dev_trials
        if "train" in self.splits or own_dev:
            self.train, self.dev = split_files(
                self.files["train" if "train" in self.splits else "dev"],
                (self.test_trials, self.dev_trials),
                options.dev_share,
                options.split_speaker,
                options.seed,
                "dev" in options.splits,
            )

    def __enter__(self):
        kept = {s: v for s, v in self.done.items() if s not in self.splits}
        write_json(self._path(OPT_FILE), kept, indent=1)
        self.measured = MeasuredFiles(
            self.save_folder,
            self.states,
            self.n_jobs,
            self.options.sample_rate,
        )
        return self

    def __exit__(self, *error):
        self.measured.__exit__(*error)
        if error[0] is None:
            self.done.update(
                (split, {**self.wanted[split], "csvs": self._sums(split)})
                for split in self.splits
            )
            write_json(self._path(OPT_FILE), self.done, indent=1)

    def _path(self, name):
        """Path of a file in the folder of the CSVs."""
        return os.path.join(self.save_folder, name)

    def _find_files(self):
        """The files that each split is made from, {split: {key: path}}."""
        found, whole = {}, None
        folders = self.options.folders
        for split in self.options.splits:
            if split == "test":
                found[split] = find_listed(self.test_trials, folders)
            elif split == "dev" and self.dev_trials:
                found[split] = find_listed(self.dev_trials, folders)
            else:
                if whole is None:
                    whole = list_files(folders, self.options.sample_rate)
                found[split] = whole
        return found

    def _to_do(self, split):
        """Whether a split has to be made; logs what has changed."""
        before, now = self.done.get(split), self.wanted[split]
        if not isinstance(before, dict):
            return True
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            logger.warning(
                f"{split}: prepared earlier and made again, because these "
                f"have changed: {', '.join(changed)}."
            )
            return True
        there = self._sums(split)
        # Records of earlier versions have no checksums.
        made = before.get("csvs", there)
        for name in SPLIT_FILES[split]:
            if name in there and there[name] != made.get(name):
                path = self._path(name)
                os.replace(path, f"{path}.damaged")
                logger.warning(
                    f"{path}: has changed since it was made; it is set aside "
                    f"as {name}.damaged and made again. To train on a CSV of "
                    "your own, give it as train_annotation or "
                    "valid_annotation, with `--skip_prep True`."
                )
        return there.keys() != set(SPLIT_FILES[split]) or there != made

    def _sums(self, split):
        """SHA-256 of the CSVs of a split that are there, by name."""
        return {
            name: sha256_of(self._path(name))
            for name in SPLIT_FILES[split]
            if os.path.isfile(self._path(name))
        }

    def read_audio(self):
        """Read each file once, so that all bad ones are named together."""
        chunk = self.options.seg_dur
        whole = self.options.random_segment
        wanted = []
        if "test" in self.splits:
            wanted.append((self.files["test"], None, "test files"))
        if "train" in self.splits:
            levels = self._level_chunk(None if whole else chunk)
            wanted.append((self.train, levels, "train files"))
        if "dev" in self.splits and self.dev_trials:
            wanted.append((self.files["dev"], None, "dev files"))
        elif "dev" in self.splits:
            wanted.append((self.dev, self._level_chunk(chunk), "dev files"))
        self.measured.measure_all(
            [(list(f.values()), levels, title) for f, levels, title in wanted]
        )

    def _level_chunk(self, seg_dur):
        """Samples of the chunks whose level counts; None where none does."""
        if seg_dur is None or self.options.amp_th <= 0:
            return None
        return int(round(seg_dur * self.options.sample_rate))

    def write_train(self):
        """Write train.csv: chunks, or whole files with ``random_segment``."""
        chunk = None if self.options.random_segment else self.options.seg_dur
        rows = self._chunk_rows(self.train, chunk, "train")
        if not rows:
            raise UserError(
                f"{self.options.data_folder}: no training rows are left; check "
                "the trial lists, seg_dur and amp_th."
            )
        self._replace(TRAIN_CSV, rows)

    def write_dev(self):
        """Write dev.csv: the files of the dev trials whole, else chunks."""
        if self.dev_trials:
            rows = self._whole_rows(self.files["dev"], "dev files")
        else:
            # Chunks at fixed places, so that epochs can be compared.
            rows = self._chunk_rows(self.dev, self.options.seg_dur, "dev")
            trained = "train" in self.options.splits
            if trained and not self.options.split_speaker:
                rows = self._of_trained_speakers(rows)
        self._replace(DEV_CSV, rows)

    def write_enrol_and_test(self):
        """Write enrol.csv and test.csv: the files of the test trials."""
        rows = self._whole_rows(self.files["test"], "test files")
        for column, name in enumerate(SPLIT_FILES["test"], 1):
            chosen = {trial[column] for trial in self.test_trials}
            write_rows(self._path(name), [r for r in rows if r[0] in chosen])

    def _replace(self, name, rows):
        """Write a CSV, unless a training has begun with other rows."""
        if self.begun:
            _check_same(self._path(name), rows)
        write_rows(self._path(name), rows)

    def _whole_rows(self, files, title):
        """Rows of whole files, with the key as ID."""
        rate = self.options.sample_rate
        found = self.measured.measure(list(files.values()), None, title)
        return [
            (key, m.n_samples / rate, path, 0, m.n_samples, speaker_of(key))
            for (key, path), m in zip(files.items(), found, strict=True)
        ]

    def _chunk_rows(self, files, seg_dur, split):
        """Rows of chunks, or of whole files if ``seg_dur`` is None."""
        rate, amp_th = self.options.sample_rate, self.options.amp_th
        # The shortest file that is kept, whether it is cut here or later.
        least = SHORTEST_SHARE * self.options.seg_dur
        chunk = None if seg_dur is None else int(round(seg_dur * rate))
        found = self.measured.measure(
            list(files.values()),
            self._level_chunk(seg_dur),
            f"{split} files",
        )
        rows, short, quiet = [], 0, 0
        for (key, path), measure in zip(files.items(), found, strict=True):
            n_samples = measure.n_samples
            if n_samples < least * rate:
                short += 1
                continue
            audio_id, speaker = key.replace("/", "--"), speaker_of(key)
            duration = n_samples / rate
            if chunk is None:
                rows.append((audio_id, duration, path, 0, n_samples, speaker))
                continue
            for index, (start, stop) in enumerate(bounds(n_samples, chunk)):
                if amp_th > 0 and measure.levels[index] < amp_th:
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
                f"{split}: {quiet} chunks have a mean amplitude below "
                f"{amp_th:g} and are left out."
            )
        return rows

    def _of_trained_speakers(self, rows):
        """Rows of the speakers in train.csv, the only ones with a class.

        A speaker can lose all training rows to seg_dur and amp_th.
        """
        path = self._path(TRAIN_CSV)
        with open(path, newline="", encoding="utf-8") as file:
            trained = {row["spk_id"] for row in csv.DictReader(file)}
        unknown = sorted({row[-1] for row in rows} - trained)
        if unknown:
            logger.warning(
                f"dev: {len(unknown)} speakers, such as {unknown[0]}, have no "
                "training rows and are left out."
            )
        return [row for row in rows if row[-1] in trained]


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

    with (
        csv_problems(path),
        open(path, newline="", encoding="utf-8") as file,
    ):
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


def write_rows(path, rows):
    """Write a CSV of the columns COLUMNS, whole or not at all."""
    with replacing(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    logger.info(f"{path}: {len(rows)} rows")
