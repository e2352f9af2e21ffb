"""Speaker verification: trial lists, embeddings, scores, normalisation.

The way from a list to scores: :func:`read_trials` checks the list and numbers
its utterances, :func:`locate_trials` finds their files,
:func:`embed_utterances` embeds each of them once, whatever the number of
trials it is in, and keeps it in an :class:`EmbeddingStore`,
:func:`score_trials` gathers the two sides of each trial. :class:`Scorer` does
the last two, with mean subtraction and score normalisation, for whole lists.

A model is anything with ``embed(wavs, lens) -> (batch, dim)``, ``key``,
``sample_rate`` and ``source``, as :class:`imlkd_brain.teacher.SpeakerModel`.

Authors: IML-KD contributors
"""

import csv
import hashlib
import os
import random
import time
from array import array
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from imlkd_brain.errors import UserError
from imlkd_brain.features import seconds_to_samples
from imlkd_brain.precision import full_float32
from imlkd_brain.speakers import (
    AUDIO_SUFFIXES,
    WAY_OUT,
    SpeakerNames,
    doubt_about,
    plain_speakers,
    utterance_key,
)

# Label words and what they mean; a list keeps to one line of this table.
LABEL_STYLES = (
    {"1": True, "0": False},
    {"target": True, "nontarget": False},
)
SHOWN_LINES = 3  # offending lines that an error message quotes
COSINE_EPS = 1e-6  # smallest norm, as in SpeechBrain's SpeakerRecognition

# The cleaned VoxCeleb1 lists: official file name and number of trials.
OFFICIAL_LISTS = {
    "Vox1-O": ("veri_test2.txt", 37611),
    "Vox1-E": ("list_test_all2.txt", 579818),
    "Vox1-H": ("list_test_hard2.txt", 550894),
}
OFFICIAL_SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
LIST_FOLDERS = ("", "meta", "trials")
WAV_FOLDERS = ("wav", "", "test/wav", "dev/wav")
NORMALISATIONS = ("z-norm", "t-norm", "s-norm", "as-norm")
STORE_INTERVAL = 30.0  # seconds of embedding between two writes to disk


@dataclass(frozen=True)
class Trials:
    """A checked trial list.

    Arguments
    ---------
    name : str
        What the list is called in tables and files.
    utterances : list of str
        The different names in the list, in order of appearance.
    pairs : torch.Tensor
        Enrolment and test side of each trial as indices into
        ``utterances``, int64, (P, 2).
    labels : torch.Tensor
        True for target trials, (P,).
    spellings : list of str
        Each utterance as the list first writes it.
    lines : array of int
        Line number of each trial, from 1.
    path : str
        Where the list was read.
    """

    name: str
    utterances: list
    pairs: torch.Tensor
    labels: torch.Tensor
    spellings: list
    lines: array
    path: str

    @property
    def enrol(self):
        """Name of the enrolment side of each trial."""
        return [self.utterances[index] for index in self.pairs[:, 0].tolist()]

    @property
    def test(self):
        """Name of the test utterance of each trial."""
        return [self.utterances[index] for index in self.pairs[:, 1].tolist()]


@dataclass(frozen=True)
class LocatedTrials:
    """A trial list whose audio has been found, its two sides numbered apart.

    Arguments
    ---------
    trials : Trials
        The list.
    enrol_files : list of list of str
        Files of each row of the enrolment side; several for a model of
        several utterances.
    test_files : list of str
        File of each row of the test side.
    pairs : torch.Tensor
        Enrolment row and test row of each trial, int64, (P, 2).
    enrol_speakers : list of str or None
        Speaker of each enrolment row, None where it is not known.
    test_speakers : list of str or None
        The same of each test row.
    doubt : str
        Why the speakers cannot be right, see
        :func:`imlkd_brain.speakers.doubt_about`; empty where they can. There
        are no intervals and no groups where there is a doubt.
    """

    trials: Trials
    enrol_files: list
    test_files: list
    pairs: torch.Tensor
    enrol_speakers: list
    test_speakers: list
    doubt: str = ""

    @property
    def warning(self):
        """One line where there is a doubt, else empty."""
        if not self.doubt:
            return ""
        return (
            f"{self.trials.name}: its speakers are not known ({self.doubt}), "
            "so there are no intervals over speakers and nothing says that "
            f"its speakers were held out; {WAY_OUT}."
        )

    @cached_property
    def speakers(self):
        """The different speakers on either side that are known, sorted."""
        return sorted({*self.enrol_speakers, *self.test_speakers} - {None})


def read_trials(path, name=None, allow_repeated_trials=False):
    """Read a trial list in SpeechBrain's or in Kaldi's order.

    SpeechBrain's (and VoxCeleb's) lines are ``1 enrol test``, Kaldi's are
    ``enrol test target``; the first line decides which it is, and whether
    labels are 1 and 0 or the words target and nontarget.

    Arguments
    ---------
    path : str or Path
        The list, one trial a line; empty lines are allowed.
    name : str, optional
        What to call it; the file's name without suffix if left out.
    allow_repeated_trials : bool
        Accept trials that are listed more than once; each then counts as
        often as it is listed.

    Returns
    -------
    Trials
        The list, utterances named by :func:`utterance_key`.

    Raises
    ------
    UserError
        If the file is missing or no text, a line is malformed, label styles
        are mixed, a trial is repeated, or there is only one kind of trial.
        The sentence quotes the first offending lines.
    """
    raw_names = {}
    enrol, test, labels, numbers = (array("q") for _ in range(4))
    malformed, style, label_at = [], None, 0
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                fields = line.split()
                if not fields:
                    continue
                if style is None and len(fields) == 3:
                    label_at, style = _label_style(fields)
                if (
                    style is None
                    or len(fields) != 3
                    or fields[label_at] not in style
                ):
                    malformed.append((number, line.strip()))
                    continue
                labels.append(style[fields.pop(label_at)])
                enrol.append(raw_names.setdefault(fields[0], len(raw_names)))
                test.append(raw_names.setdefault(fields[1], len(raw_names)))
                numbers.append(number)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such trial list; give a file with one trial "
            "a line, as `1 enrol test` or `enrol test target`."
        ) from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(
            f"{path}: expected a text file with one trial a line."
        ) from None
    if malformed:
        raise UserError(_malformed_message(path, style, label_at, malformed))
    if not labels:
        raise UserError(f"{path}: the trial list is empty.")
    # Two spellings of one utterance (with and without suffix) are one.
    keys, merged, spellings = {}, [], []
    for raw_name in raw_names:
        key = utterance_key(raw_name)
        if key not in keys:
            keys[key] = len(keys)
            spellings.append(raw_name)
        merged.append(keys[key])
    pairs = np.asarray(merged)[np.stack([enrol, test], axis=1)]
    labels = np.asarray(labels, dtype=bool)
    if not allow_repeated_trials:
        _check_repeats(path, pairs, list(keys), numbers)
    if labels.all() or not labels.any():
        kind, other = ("target", "nontarget")
        if not labels.any():
            kind, other = other, kind
        raise UserError(
            f"{path}: all {len(labels)} trials are {kind} trials (line "
            f"{numbers[0]} and on); error rates need {other} trials too."
        )
    return Trials(
        name=name or PurePath(path).stem,
        utterances=list(keys),
        pairs=torch.from_numpy(pairs),
        labels=torch.from_numpy(labels),
        spellings=spellings,
        lines=numbers,
        path=str(path),
    )


def _label_style(fields):
    """Where the label stands in a line and what its words mean, or None."""
    for position in (0, 2):
        for style in LABEL_STYLES:
            if fields[position] in style:
                return position, style
    return 0, None


def _malformed_message(path, style, label_at, malformed):
    """One sentence for lines that are no trials of the list's own style."""
    expected = "`1 enrol test` or `enrol test target`"
    problem = "not a trial"
    if style is not None:
        words = " or ".join(style)
        expected = (
            f"`{words}, enrol, test`"
            if label_at == 0
            else f"`enrol, test, {words}`"
        )
        expected += " as in the lines before"
        fields = malformed[0][1].split()
        if len(fields) == 3 and _label_style(fields)[1] is not None:
            problem = "another label style than the lines before"
    lines = [f"line {number}: {line!r}" for number, line in malformed]
    return (
        f"{path}: {problem} in {len(malformed)} lines "
        f"({_shorten(lines)}); expected {expected}."
    )


def _check_repeats(path, pairs, keys, numbers):
    """UserError if a trial is in the list twice."""
    code = pairs[:, 0] * len(keys) + pairs[:, 1]
    order = np.argsort(code, kind="stable")
    again = np.sort(order[1:][code[order][1:] == code[order][:-1]])
    if len(again) == 0:
        return
    lines = [
        f"line {numbers[i]}: {keys[pairs[i, 0]]} {keys[pairs[i, 1]]}"
        for i in again[: SHOWN_LINES + 1]
    ]
    raise UserError(
        f"{path}: {len(again)} trials are repeated ({_shorten(lines)}); "
        "remove them, or count them as often as they are listed with "
        "--allow_repeated_trials True."
    )


def _shorten(items):
    """The first few items, with dots if there are more."""
    dots = ", ..." if len(items) > SHOWN_LINES else ""
    return ", ".join(items[:SHOWN_LINES]) + dots


def find_trial_list(name, data_folder):
    """Path of an official list by its name, or of a list by its path.

    Arguments
    ---------
    name : str
        ``Vox1-O``, ``Vox1-E`` or ``Vox1-H`` (the cleaned lists, looked up
        under their official file names in the data folder, its ``meta`` or
        its ``trials``), or a path, absolute, relative to the working
        directory or to the data folder.
    data_folder : str or Path
        The corpus; several with commas.

    Returns
    -------
    Path
        The list's file.

    Raises
    ------
    UserError
        If an official list is not there; says where to get it.
    """
    roots = _data_folders(data_folder)
    if name in OFFICIAL_LISTS:
        file_name, _ = OFFICIAL_LISTS[name]
        for root in roots:
            for folder in LIST_FOLDERS:
                if (root / folder / file_name).is_file():
                    return root / folder / file_name
        raise UserError(
            f"{name}: {file_name} is neither in {data_folder} nor in its meta "
            f"or trials folder; get it from {OFFICIAL_SOURCE}{file_name}."
        )
    for path in (Path(name), *(root / name for root in roots)):
        if path.is_file():
            return path
    raise UserError(
        f"{name}: neither the name of an official list "
        f"({', '.join(OFFICIAL_LISTS)}) nor a file here or in {data_folder}."
    )


def locate_trials(trials, data_folder, enrolments=None, speaker_map=None):
    """Find the audio file of every utterance of a trial list.

    A name is looked up as it is written, below the data folder and below the
    ``wav`` folders that VoxCeleb's archives unpack to, with and without a
    suffix; Kaldi's ``speaker-session-utterance`` stands for
    ``speaker/session/utterance``.

    Arguments
    ---------
    trials : Trials
        The list.
    data_folder : str or Path
        Where the audio is; several folders with commas.
    enrolments : dict, optional
        Utterances of each enrolment model, see :func:`read_enrolments`. A
        name on the enrolment side that is none of them is an utterance.
    speaker_map : str or Path, optional
        Whose voice each utterance has; without it the speakers come from the
        data folder, see :class:`imlkd_brain.speakers.SpeakerNames`.

    Returns
    -------
    LocatedTrials
        The list with its files.

    Raises
    ------
    UserError
        If the data folder does not exist or utterances are not in it; the
        sentence quotes the first trials that name them. Also if the map does
        not name an utterance.
    """
    roots = _data_folders(data_folder)
    speakers = SpeakerNames(data_folder, speaker_map)
    enrolments = enrolments or {}
    found, unknown = {}, {}

    def files_of(row, names):
        for name in names:
            if name not in found:
                found[name] = _find_audio(name, roots)
            if found[name] is None:
                unknown[row] = name
        return [found[name] for name in names]

    enrol_rows, enrol = torch.unique(trials.pairs[:, 0], return_inverse=True)
    test_rows, test = torch.unique(trials.pairs[:, 1], return_inverse=True)
    enrol_names = [
        enrolments.get(trials.utterances[row]) or [trials.spellings[row]]
        for row in enrol_rows.tolist()
    ]
    enrol_files = [
        files_of(row, names)
        for row, names in zip(enrol_rows.tolist(), enrol_names, strict=True)
    ]
    test_names = [trials.spellings[row] for row in test_rows.tolist()]
    test_files = [
        files_of(row, [name])[0]
        for row, name in zip(test_rows.tolist(), test_names, strict=True)
    ]
    if unknown:
        missing = torch.zeros(len(trials.utterances), dtype=torch.bool)
        missing[list(unknown)] = True
        wrong = torch.nonzero(missing[trials.pairs].any(dim=1)).squeeze(1)
        lines = []
        for trial in wrong[: SHOWN_LINES + 1].tolist():
            sides = trials.pairs[trial].tolist()
            name = next(unknown[side] for side in sides if side in unknown)
            lines.append(f"line {trials.lines[trial]}: {name}")
        raise UserError(
            f"{trials.path}: {len(unknown)} utterances are not in "
            f"{data_folder} ({_shorten(lines)}); give the --data_folder this "
            "list was made for, or correct the list."
        )
    pairs = torch.stack([enrol, test], dim=1)
    voices = [
        list(map(speakers, files, names))
        for files, names in zip(enrol_files, enrol_names, strict=True)
    ]
    enrol_speakers = [names[0] for names in voices]
    test_speakers = list(map(speakers, test_files, test_names))
    doubt = doubt_about(
        enrol_speakers,
        test_speakers,
        pairs,
        trials.labels,
        lambda trial: f"on line {trials.lines[trial]}",
    )
    mixed = [i for i, names in enumerate(voices) if len(set(names)) > 1]
    if mixed and not doubt:
        model = trials.utterances[enrol_rows[mixed[0]]]
        doubt = f"the enrolment model {model} has utterances of two speakers"
    return LocatedTrials(
        trials=trials,
        enrol_files=enrol_files,
        test_files=test_files,
        pairs=pairs,
        enrol_speakers=enrol_speakers,
        test_speakers=test_speakers,
        doubt=doubt,
    )


def _data_folders(data_folder):
    """The folders of a comma-separated list; UserError if one is missing."""
    roots = [Path(part.strip()) for part in str(data_folder).split(",")]
    for root in roots:
        if not root.is_dir():
            raise UserError(
                f"{root}: there is no such folder; --data_folder must name the "
                "one that holds wav/<speaker>/<session>/<utterance>.wav."
            )
    return roots


def _find_audio(name, roots):
    """Path of an utterance's file, or None."""
    for candidate in (name, *_slashed(name)):
        for root in roots:
            for folder in WAV_FOLDERS:
                path = root / folder / candidate
                if path.is_file():
                    return str(path)
                # Not with_suffix(): that would cut a name with a dot in it.
                for suffix in AUDIO_SUFFIXES:
                    if os.path.isfile(f"{path}{suffix}"):
                        return f"{path}{suffix}"
    return None


def _slashed(name):
    """``speaker-session-utterance`` as paths; speakers may hold a dash too."""
    parts = name.split("-")
    if "/" in name or len(parts) < 3:
        return
    for cut in range(1, len(parts) - 1):
        speaker, session = parts[:cut], parts[cut:-1]
        yield f"{'-'.join(speaker)}/{'-'.join(session)}/{parts[-1]}"


def read_enrolments(path):
    """Read which utterances enrol each model, for several a model.

    Arguments
    ---------
    path : str or Path
        Lines ``model utterance utterance ...``, as Kaldi's spk2utt.

    Returns
    -------
    dict
        List of utterances, named by :func:`utterance_key`, for each model.

    Raises
    ------
    UserError
        If the file is missing, or a model has no utterances or two lines.
    """
    enrolments = {}
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                model, *members = line.split() or [None]
                if model is None:
                    continue
                model = utterance_key(model)
                if not members or model in enrolments:
                    problem = (
                        "is listed twice" if members else "has no utterances"
                    )
                    raise UserError(
                        f"{path}, line {number}: the model {model} {problem}; "
                        "expected `model utterance utterance ...`, a line for "
                        "each model."
                    )
                enrolments[model] = [utterance_key(name) for name in members]
    except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
        raise UserError(
            f"{path}: there is no such text file; expected lines `model "
            "utterance utterance ...`."
        ) from None
    return enrolments


class EmbeddingStore:
    """Embeddings on disk, one folder for each model and crop.

    An embedding is found again by the model's key, the crop, the utterance
    and its file's size and times, so that a new model or changed audio is
    embedded anew and a second trial list costs only scoring. The times are
    those of the content and of the file's entry in its folder: the second
    changes with every write, also where a tool restores the first, and no two
    corpora share it. That costs one look at the folder per file; to hash
    150,000 files would be to read 40 GB for each run. A corpus that is copied
    is embedded once more. What is added is written in parts, each to a
    temporary file that is then renamed.

    Arguments
    ---------
    folder : str or Path
        The store's folder, shared by all models.
    model_key : str
        The model's hash.
    crop : str
        Which part of an utterance was embedded, see :func:`crop_name`.

    Raises
    ------
    UserError
        If a part is unreadable.
    """

    def __init__(self, folder, model_key, crop):
        self.folder = Path(folder) / model_key[:16] / crop
        self.rows = {}
        self.fresh = {}
        self.written = time.monotonic()
        for part in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(part, allow_pickle=False) as arrays:
                    names = arrays["names"].tolist()
                    entries = zip(
                        arrays["embeddings"], arrays["seconds"], strict=True
                    )
            except Exception as error:
                # A cut file raises one of many types, zipfile's and numpy's.
                raise UserError(
                    f"{part}: this part of the embedding store is unreadable "
                    f"({type(error).__name__}); delete it and run again, its "
                    "utterances are then embedded anew."
                ) from error
            self.rows.update(zip(names, entries, strict=True))

    def add(self, name, embedding, seconds):
        """Keep an embedding (D,) of ``seconds`` of speech; write at times."""
        self.rows[name] = self.fresh[name] = (embedding, seconds)
        if time.monotonic() - self.written > STORE_INTERVAL:
            self.write()

    def write(self):
        """Write what is not yet on disk."""
        if self.fresh:
            names = list(self.fresh)
            digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{digest[:16]}.npz"
            temporary = self.folder / f".{digest[:16]}.{os.getpid()}.tmp"
            with open(temporary, "wb") as stream:
                np.savez(
                    stream,
                    names=np.array(names),
                    embeddings=np.stack([e for e, _ in self.fresh.values()]),
                    seconds=np.array(
                        [s for _, s in self.fresh.values()], dtype=np.float32
                    ),
                )
            os.replace(temporary, part)
            self.fresh = {}
        self.written = time.monotonic()


def crop_name(seconds, seed):
    """What a store calls a crop: ``full``, or seconds and seed.

    Example
    -------
    >>> crop_name(None, 1986), crop_name(2, 1986)
    ('full', '2s-seed1986')
    """
    return "full" if seconds is None else f"{seconds:g}s-seed{seed}"


def crop_start(utterance, n_samples, n_crop, seed):
    """First sample of a random crop that depends on its arguments only.

    Example
    -------
    >>> start = crop_start("id1/a/1", 48000, 16000, seed=1986)
    >>> start == crop_start("id1/a/1", 48000, 16000, seed=1986)
    True
    """
    draw = random.Random(f"{seed}/{n_crop}/{utterance}")
    return draw.randint(0, max(0, n_samples - n_crop))


@torch.inference_mode()
def embed_utterances(
    model,
    paths,
    store,
    seconds=None,
    seed=0,
    max_batch_seconds=60.0,
    max_padding_seconds=0.0,
    readers=4,
):
    """Embed each utterance once, unless the store holds it already.

    Utterances are read by threads ahead of the model and embedded in
    length-sorted batches, longest first, so that a batch too large for the
    memory shows at once. Padding changes an embedding a little, through the
    convolutions that look past the end; with ``max_padding_seconds=0`` only
    utterances of equal length share a batch and the embedding is that of the
    utterance alone.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    paths : list of str
        The utterances' files; one that is listed twice is embedded once.
    store : EmbeddingStore
        The model's store for this crop.
    seconds : float, optional
        Length of the random crop to embed; whole utterances without it.
        Utterances shorter than that are taken whole.
    seed : int
        Seed of the crops.
    max_batch_seconds : float
        Most audio in a batch, padding included; bounds the memory. A single
        longer utterance is a batch of its own.
    max_padding_seconds : float
        Most padding of an utterance in a batch.
    readers : int
        Threads that read audio.

    Returns
    -------
    embeddings : torch.Tensor
        In the order of ``paths``, float32, on the CPU, (N, D).
    speech : torch.Tensor
        Seconds embedded of each, (N,).

    Raises
    ------
    UserError
        If a file is unreadable or of the wrong format, or an embedding is not
        finite, or the device's memory does not suffice.
    """
    entries = [_entry_name(path) for path in paths]
    missing = {
        entry: path
        for entry, path in zip(entries, paths, strict=True)
        if entry not in store.rows
    }
    if missing:
        segments = _cut_segments(
            missing, model.sample_rate, seconds, seed, readers
        )
        batches = length_sorted_batches(
            [length for *_, length in segments],
            int(max_batch_seconds * model.sample_rate),
            int(max_padding_seconds * model.sample_rate),
        )
        device = next(model.parameters()).device
        progress = tqdm(
            total=len(segments),
            desc=f"embedding ({store.folder.name})",
            unit="utt",
            mininterval=1.0,
            leave=False,
        )
        work = ([segments[i] for i in batch] for batch in batches)
        try:
            for batch, wavs in _read_ahead(_read_batch, work, readers):
                embeddings = _embed_batch(model, batch, wavs.to(device))
                for segment, embedding in zip(batch, embeddings, strict=True):
                    entry, _, _, length = segment
                    store.add(entry, embedding, length / model.sample_rate)
                progress.update(len(batch))
        finally:
            # Also on an interrupt: what is embedded stays embedded.
            store.write()
            progress.close()
    rows = [store.rows[entry] for entry in entries]
    embeddings = torch.from_numpy(np.stack([row[0] for row in rows]))
    return embeddings, torch.tensor([float(row[1]) for row in rows])


def _cut_segments(missing, sample_rate, seconds, seed, readers):
    """Check the files and choose the crops: (entry, path, start, length)."""
    with ThreadPoolExecutor(readers) as pool:
        lengths = list(
            pool.map(
                lambda path: _check_audio(path, sample_rate), missing.values()
            )
        )
    segments = []
    for (entry, path), length in zip(missing.items(), lengths, strict=True):
        start = 0
        if seconds is not None:
            n_crop = seconds_to_samples(seconds, sample_rate)
            start = crop_start(utterance_key(path), length, n_crop, seed)
            length = min(length, n_crop)
        segments.append((entry, path, start, length))
    return segments


def length_sorted_batches(lengths, max_total, max_padding):
    """Group items of similar length, longest first.

    Arguments
    ---------
    lengths : list of int
        Length of each item.
    max_total : int
        Most items times longest length in a batch of several.
    max_padding : int
        Largest difference of lengths in a batch.

    Returns
    -------
    list of list of int
        Indices of the items of each batch; every item is in one.

    Example
    -------
    >>> length_sorted_batches([5, 9, 5, 5, 8], max_total=10, max_padding=0)
    [[1], [4], [0, 2], [3]]
    """
    batches = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            longest = lengths[batches[-1][0]]
            fits = (len(batches[-1]) + 1) * longest <= max_total
            if fits and longest - lengths[item] <= max_padding:
                batches[-1].append(item)
                continue
        batches.append([item])
    return batches


def _entry_name(path):
    """Utterance, size and times of its file: what the store calls it."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such audio file; restore it, or correct the "
            "list or CSV that names it."
        ) from None
    return (
        f"{utterance_key(path)}|{state.st_size}|{state.st_mtime_ns}"
        f"|{state.st_ctime_ns}"
    )


def audio_state(located):
    """A hash of a list's files, by what :class:`EmbeddingStore` knows of them.

    Arguments
    ---------
    located : LocatedTrials
        The list.

    Returns
    -------
    str
        Another one if a file was changed or replaced.

    Raises
    ------
    UserError
        If a file is missing.
    """
    files = [file for files in located.enrol_files for file in files]
    entries = map(_entry_name, [*files, *located.test_files])
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16]


def _check_audio(path, sample_rate):
    """Number of samples by the header; UserError where it is of no use."""
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise UserError(
            f"{path}: not a readable audio file ({error}); restore it, or "
            "take its trials out of the list."
        ) from error
    if info.samplerate != sample_rate or info.channels != 1:
        raise UserError(
            f"{path}: expected one channel at {sample_rate} Hz, as the model "
            f"was trained, but found {info.channels} at {info.samplerate} Hz; "
            "convert the file."
        )
    if info.frames == 0:
        raise UserError(
            f"{path}: the audio file is empty; restore it, or take its trials "
            "out of the list."
        )
    return info.frames


def check_samples(samples, path, start=0):
    """Refuse audio with NaN or infinite samples, which a float file can hold.

    Arguments
    ---------
    samples : numpy.ndarray
        What was read, (samples,) or (samples, channels).
    path : str
        The file, for the message.
    start : int
        Where in the file it was read from, in samples.

    Raises
    ------
    UserError
        Naming the file and its first bad sample.

    Example
    -------
    >>> check_samples(np.array([0.5, np.nan]), "a.wav", start=100)
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: a.wav: sample 101 is NaN or infinite; \
restore the file, or take it out of the list or CSV that names it.
    """
    finite = np.isfinite(samples)
    if finite.all():
        return
    bad = ~finite.reshape(len(samples), -1).all(1)
    raise UserError(
        f"{path}: sample {start + int(np.argmax(bad))} is NaN or infinite; "
        "restore the file, or take it out of the list or CSV that names it."
    )


def _read_batch(segments):
    """Read segments of (entry, path, start, length) into (batch, samples)."""
    wavs = torch.zeros(len(segments), segments[0][3])
    for row, (_, path, start, length) in enumerate(segments):
        try:
            signal, _ = soundfile.read(
                path, frames=length, start=start, dtype="float32"
            )
        except (soundfile.LibsndfileError, OSError) as error:
            raise UserError(
                f"{path}: reading failed ({error}); restore the file."
            ) from error
        if len(signal) < length:
            raise UserError(
                f"{path}: the audio file is cut short, its header promises "
                f"more than the {start + len(signal)} samples it has; restore "
                "the file."
            )
        check_samples(signal, path, start)
        wavs[row, :length] = torch.from_numpy(signal)
    return segments, wavs


def _read_ahead(function, items, workers):
    """Results of ``function`` in order, a few items ahead of the consumer."""
    pool = ThreadPoolExecutor(workers)
    waiting = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _embed_batch(model, segments, wavs):
    """Embeddings (batch, dim) as a float32 array, checked to be finite."""
    lengths = torch.tensor([float(length) for *_, length in segments])
    try:
        embeddings = model.embed(wavs, (lengths / wavs.shape[1]).to(wavs))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the device has too little memory for a batch of {len(segments)} "
            f"utterances, {wavs.shape[1] / model.sample_rate:.1f} s each; run "
            "again with a smaller --max_batch_seconds, what was embedded is "
            "kept."
        ) from error
    embeddings = embeddings.float().cpu()
    finite = torch.isfinite(embeddings).all(dim=1)
    if not finite.all():
        _, path, *_ = segments[int(torch.nonzero(~finite)[0])]
        raise UserError(
            f"{path}: {model.source} gives an embedding with NaN or infinity; "
            "the model has diverged or the audio is broken."
        )
    return embeddings.numpy()


def enrol_models(embeddings, members):
    """One embedding per enrolment model: the mean of the unit-length ones.

    Arguments
    ---------
    embeddings : torch.Tensor
        Of the utterances, (N, D).
    members : list of list of int
        Rows of each model's utterances.

    Returns
    -------
    torch.Tensor
        (models, D). A model of one utterance keeps its direction.

    Example
    -------
    >>> embeddings = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> enrol_models(embeddings, [[0], [0, 1]])
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    counts = torch.tensor([len(rows) for rows in members])
    model = torch.repeat_interleave(torch.arange(len(members)), counts)
    rows = torch.tensor([row for rows in members for row in rows])
    sums = embeddings.new_zeros(len(members), embeddings.shape[1])
    unit = unit_length(embeddings)
    sums.index_add_(0, model.to(sums.device), unit[rows.to(unit.device)])
    return sums / counts.to(sums).unsqueeze(1)


@full_float32()
def score_trials(enrol, test, pairs, block=65536):
    """Cosine score of each trial.

    Equal to ``torch.nn.CosineSimilarity(dim=-1, eps=1e-6)`` on the gathered
    rows, as SpeechBrain's ``SpeakerRecognition`` has it.

    Arguments
    ---------
    enrol : torch.Tensor
        Embeddings of the enrolment side, (N, D).
    test : torch.Tensor
        Embeddings of the test side, (M, D); may be the same tensor.
    pairs : torch.Tensor
        Row in ``enrol`` and row in ``test`` of each trial, int64, (P, 2).
    block : int
        Trials scored at a time; bounds the memory to ``2 * block * D``
        numbers.

    Returns
    -------
    torch.Tensor
        Scores in [-1, 1], (P,), on the embeddings' device.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> pairs = torch.tensor([[0, 1], [0, 2]])
    >>> score_trials(embeddings, embeddings, pairs)
    tensor([0., 1.])
    """
    # Norms are taken once per utterance, not once per trial.
    unit_enrol = unit_length(enrol)
    unit_test = unit_enrol if test is enrol else unit_length(test)
    scores = enrol.new_empty(len(pairs))
    for start in range(0, len(pairs), block):
        part = pairs[start : start + block].to(enrol.device)
        scores[start : start + block] = torch.einsum(
            "pd,pd->p", unit_enrol[part[:, 0]], unit_test[part[:, 1]]
        )
    return scores


def unit_length(embeddings):
    """Embeddings (..., D) divided by their norms, as the cosine score does.

    Example
    -------
    >>> unit_length(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    return torch.nn.functional.normalize(embeddings, dim=-1, eps=COSINE_EPS)


@full_float32()
def cohort_statistics(embeddings, cohort, top=None, block=512):
    """Mean and standard deviation of each utterance's impostor scores.

    Over the whole cohort they need no scores: the mean of cosines is the
    cosine with the mean, and their variance a quadratic form in the cohort's
    covariance, D x D. Over the highest scores there is one product with the
    cohort for each block of utterances, so the memory is ``block * cohort``
    numbers whatever the number of utterances.

    Arguments
    ---------
    embeddings : torch.Tensor
        One side of the trials, (N, D).
    cohort : torch.Tensor
        Embeddings of other speakers, (C, D).
    top : int, optional
        Use the ``top`` highest scores of each utterance only (adaptive
        normalisation).
    block : int
        Utterances at a time.

    Returns
    -------
    mean : torch.Tensor
        (N,).
    std : torch.Tensor
        Unbiased, as ``torch.std``, (N,).

    Raises
    ------
    ValueError
        If the cohort, or ``top``, is less than two, or the cohort has fewer
        than ``top`` utterances.

    Example
    -------
    >>> cohort = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> cohort_statistics(torch.tensor([[2.0, 0.0]]), cohort)
    (tensor([0.5000]), tensor([0.7071]))
    """
    used = len(cohort) if top is None else top
    if used < 2 or used > len(cohort):
        raise ValueError(
            f"a cohort of {len(cohort)} utterances of which {used} are used "
            "has no statistics: at least two must be used, and no more than "
            "there are."
        )
    cohort = unit_length(cohort)
    # In float64, as the scores of one speaker with a cohort may differ little.
    centre = cohort.double().mean(dim=0)
    spread = cohort.double() - centre
    covariance = spread.T @ spread / (len(cohort) - 1)
    mean, std = embeddings.new_empty(2, len(embeddings))
    for start in range(0, len(embeddings), block):
        part = slice(start, start + block)
        unit = unit_length(embeddings[part])
        if top is None:
            unit = unit.double()
            mean[part] = unit @ centre
            variance = torch.einsum("nd,de,ne->n", unit, covariance, unit)
            std[part] = variance.clamp(min=0).sqrt()
        else:
            scores = torch.topk(unit @ cohort.T, top, dim=1, sorted=False)
            std[part], mean[part] = torch.std_mean(scores.values, dim=1)
    return mean, std


def normalise_scores(scores, pairs, enrol_statistics, test_statistics, method):
    """Normalise trial scores by the cohort scores of their two sides.

    ``z-norm`` uses the enrolment side's statistics, ``t-norm`` the test
    side's, ``s-norm`` the mean of both results; ``as-norm`` is s-norm with
    statistics of the closest cohort utterances (``top`` of
    :func:`cohort_statistics`).

    Arguments
    ---------
    scores : torch.Tensor
        (P,).
    pairs : torch.Tensor
        Row of each trial's enrolment and test side, int64, (P, 2).
    enrol_statistics : tuple of torch.Tensor
        Mean and standard deviation of each enrolment row.
    test_statistics : tuple of torch.Tensor
        The same of each test row.
    method : str
        One of ``z-norm``, ``t-norm``, ``s-norm``, ``as-norm``.

    Returns
    -------
    torch.Tensor
        (P,).

    Raises
    ------
    ValueError
        If the method is unknown.

    Example
    -------
    >>> statistics = torch.tensor([0.5]), torch.tensor([0.25])
    >>> pairs = torch.tensor([[0, 0]])
    >>> score = torch.tensor([1.0])
    >>> normalise_scores(score, pairs, statistics, statistics, "s-norm")
    tensor([2.])
    """
    if method not in NORMALISATIONS:
        raise ValueError(
            f"unknown score normalisation {method!r}; known are "
            f"{', '.join(NORMALISATIONS)}."
        )
    pairs = pairs.to(scores.device)
    mean, std = (values[pairs[:, 0]] for values in enrol_statistics)
    by_enrol = (scores - mean) / std
    if method == "z-norm":
        return by_enrol
    mean, std = (values[pairs[:, 1]] for values in test_statistics)
    by_test = (scores - mean) / std
    if method == "t-norm":
        return by_test
    return (by_enrol + by_test) / 2


def calibration_features(scores, enrol_seconds, test_seconds):
    """What the calibration sees of each trial.

    Arguments
    ---------
    scores : torch.Tensor
        (P,).
    enrol_seconds : torch.Tensor
        Speech on the enrolment side of each trial, (P,).
    test_seconds : torch.Tensor
        Speech on the test side of each trial, (P,).

    Returns
    -------
    torch.Tensor
        Score, the logarithms of the two durations, and the score times the
        test side's, since a score says less the less was heard; float64,
        (P, 4).
    """
    scores = scores.double().cpu()
    enrol, test = enrol_seconds.double().log(), test_seconds.double().log()
    return torch.stack([scores, enrol, test, scores * test], dim=1)


def train_calibration(features, labels):
    """Logistic regression from features to log-likelihood ratios.

    Targets and nontargets get the same total weight, so the log odds are the
    log-likelihood ratio.

    Arguments
    ---------
    features : torch.Tensor
        Of the dev trials, (P, K).
    labels : torch.Tensor
        True for target trials, (P,).

    Returns
    -------
    weights : torch.Tensor
        (K,), float64.
    offset : float
        The log-likelihood ratio is ``features @ weights + offset``.

    Raises
    ------
    UserError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UserError(
            "score calibration needs scikit-learn, which is not installed; "
            "run `pip install scikit-learn`, or leave calibration_list empty."
        ) from None
    features = features.double()
    # Fitted on standardised features, so that the weak penalty treats them
    # alike; one that never varies gets no weight.
    mean, std = features.mean(dim=0), features.std(dim=0)
    scale = torch.where(std > 1e-9, std, torch.full_like(std, torch.inf))
    regression = LogisticRegression(
        C=1e4, class_weight="balanced", max_iter=1000
    )
    regression.fit(((features - mean) / scale).numpy(), labels.cpu().numpy())
    weights = torch.from_numpy(regression.coef_[0]) / scale
    return weights, float(regression.intercept_[0]) - float(weights @ mean)


def model_size(model, seconds=3.0):
    """Parameters and multiply-accumulates of the embedding model.

    The classifier and the features are left out, as papers do.

    Arguments
    ---------
    model : SpeakerModel
        On any device.
    seconds : float
        Length of the input that is counted.

    Returns
    -------
    parameters : int
        Number of weights.
    macs : int
        Half of the floating-point operations of convolutions and matrix
        products on one input.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = model.embedding_model
    device = next(network.parameters()).device
    n_samples = seconds_to_samples(seconds, model.sample_rate)
    wavs = torch.zeros(1, n_samples, device=device)
    with torch.inference_mode():
        feats = model.features(wavs)
        with FlopCounterMode(display=False) as counter:
            model.embed_features(feats)
    parameters = sum(weight.numel() for weight in network.parameters())
    return parameters, counter.get_total_flops() // 2


def read_cohort(path, data_folder, size, seed):
    """Choose cohort utterances out of a training annotation.

    Arguments
    ---------
    path : str or Path
        CSV with the columns ``wav`` and ``spk_id``, as prepare_voxceleb
        writes; ``$data_root`` stands for the data folder. Several segments of
        a file are one utterance.
    data_folder : str or Path
        The corpus.
    size : int
        Most utterances to take, drawn at random.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict
        Speaker of each utterance's file, by path.

    Raises
    ------
    UserError
        If the file or a column is missing.
    """
    speaker_of = {}
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                wav = row["wav"].replace("$data_root", str(data_folder))
                speaker_of[wav] = row["spk_id"]
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such cohort; give the train.csv in the "
            "save folder of a training run."
        ) from None
    except KeyError as error:
        raise UserError(
            f"{path}: the column {error.args[0]} is missing; expected a CSV "
            "as prepare_voxceleb writes it."
        ) from None
    if len(speaker_of) > size:
        drawn = random.Random(seed).sample(sorted(speaker_of), size)
        speaker_of = {wav: speaker_of[wav] for wav in drawn}
    return speaker_of


def trial_groups(located, separator):
    """Masks of the trials within each group of speakers.

    Arguments
    ---------
    located : LocatedTrials
        The list.
    separator : str
        A speaker's group is its name up to this.

    Returns
    -------
    dict
        Mask (P,) for each group with target and nontarget trials, by name.
        Empty if there is only one group, or the speakers are not known.
    """
    if located.doubt:
        return {}
    enrol, test = (
        [speaker.split(separator)[0] for speaker in side]
        for side in (located.enrol_speakers, located.test_speakers)
    )
    names = sorted({*enrol, *test})
    if len(names) < 2:
        return {}
    number = {name: index for index, name in enumerate(names)}
    enrol = torch.tensor([number[name] for name in enrol])[located.pairs[:, 0]]
    test = torch.tensor([number[name] for name in test])[located.pairs[:, 1]]
    groups = {}
    for index, name in enumerate(names):
        inside = (enrol == index) & (test == index)
        labels = located.trials.labels[inside]
        if labels.any() and not labels.all():
            groups[name] = inside
    return groups


def check_held_out(
    located,
    sources,
    allow=False,
    consequence="its error rates would be too low",
    way_out="or go on with --allow_training_speakers True",
):
    """Refuse to measure on speakers that something was learnt from.

    Arguments
    ---------
    located : LocatedTrials
        The list to be scored.
    sources : dict
        Speakers of each source, by a phrase such as ``the training data of
        the model teacher``.
    allow : bool
        Return the reasons instead of raising them.
    consequence : str
        What is wrong with figures on such a list.
    way_out : str
        What a user may do beside taking other speakers.

    Returns
    -------
    list of str
        A sentence for each source that holds speakers of the list.

    Raises
    ------
    UserError
        If a source does and ``allow`` is false.
    """
    reasons = []
    for source, speakers in sources.items():
        speakers = {*speakers, *plain_speakers(speakers)}
        known = sorted(set(located.speakers) & speakers)
        if known:
            reasons.append(
                f"{located.trials.name}: {source} holds {len(known)} of its "
                f"{len(located.speakers)} speakers ({_shorten(known)}), so "
                f"{consequence}"
            )
    if reasons and not allow:
        raise UserError(
            f"{reasons[0]}; use speakers that were held out, {way_out}."
        )
    return reasons


def training_speakers(models):
    """The speakers that models, teachers and initial weights have learnt.

    Arguments
    ---------
    models : dict
        Models by name, as :class:`imlkd_brain.teacher.SpeakerModel`.

    Returns
    -------
    dict
        Speakers of each source, as :func:`check_held_out` takes them.
    """
    sources = {}
    for name, model in models.items():
        sources[f"the training data of the model {name}"] = model.speakers
        if model.teacher_speakers:
            sources[
                "the training data of the teacher or initial weights of the "
                f"model {name}"
            ] = model.teacher_speakers
    return sources


class Scorer:
    """Scores of trial lists by one model, every embedding computed once.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    embed : callable
        ``embed(model, paths, seconds)`` gives embeddings (N, D) and seconds
        of speech (N,); :func:`embed_utterances` with a store and options.
    crop_enrolment : bool
        Crop the enrolment side too, not the test side alone.
    cohort : sequence of str
        Files of the cohort, embedded whole.
    subtract_mean : bool
        Subtract the cohort's mean embedding from all embeddings.
    score_norm : str, optional
        One of ``z-norm``, ``t-norm``, ``s-norm``, ``as-norm``.
    cohort_top : int
        Highest cohort scores that ``as-norm`` uses.
    """

    def __init__(
        self,
        model,
        embed,
        crop_enrolment=False,
        cohort=(),
        subtract_mean=False,
        score_norm=None,
        cohort_top=300,
    ):
        self.model = model
        self.embed = embed
        self.crop_enrolment = crop_enrolment
        self.score_norm = score_norm
        self.top = cohort_top if score_norm == "as-norm" else None
        self.mean, self.cohort = None, None
        if cohort:
            self.cohort, _ = self._embed(list(cohort), None)
            if subtract_mean:
                self.mean = self.cohort.mean(dim=0)
                self.cohort = self.cohort - self.mean

    def score(self, located, seconds=None):
        """Score a list at one duration of test speech.

        Arguments
        ---------
        located : LocatedTrials
            The list.
        seconds : float, optional
            Length of the crop; whole utterances without it.

        Returns
        -------
        scores : torch.Tensor
            (P,), on the CPU.
        speech : tuple of torch.Tensor
            Seconds of speech on the enrolment and the test side, (P,) each.
        """
        pairs = located.pairs
        flat = [file for files in located.enrol_files for file in files]
        members, end = [], 0
        for files in located.enrol_files:
            members.append(list(range(end, end + len(files))))
            end += len(files)
        crop = seconds if self.crop_enrolment else None
        enrol, enrol_speech = self._embed(flat, crop)
        test, test_speech = self._embed(located.test_files, seconds)
        if self.mean is not None:
            enrol, test = enrol - self.mean, test - self.mean
        enrol = enrol_models(enrol, members)
        scores = score_trials(enrol, test, pairs)
        if self.score_norm:
            scores = normalise_scores(
                scores,
                pairs,
                cohort_statistics(enrol, self.cohort, self.top),
                cohort_statistics(test, self.cohort, self.top),
                self.score_norm,
            )
        enrol_speech = torch.stack([enrol_speech[m].sum() for m in members])
        speech = enrol_speech[pairs[:, 0]], test_speech[pairs[:, 1]]
        return scores.cpu(), speech

    def _embed(self, files, seconds):
        """Embeddings on the model's device, and seconds of speech."""
        embeddings, speech = self.embed(self.model, files, seconds)
        return embeddings.to(next(self.model.parameters()).device), speech
