"""Command line, datasets and pipelines that the recipe's scripts share.

Authors: IML-KD contributors
"""

import csv
import io
import os
import random
import sys
from collections import defaultdict
from dataclasses import replace

import soundfile
import torch
import torchaudio
from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import speechbrain as sb
from imlkd_brain.errors import UserError
from imlkd_brain.features import seconds_to_samples
from imlkd_brain.speakers import doubt_about, plain_speakers, utterance_key
from imlkd_brain.verification import check_samples, read_trials
from speechbrain.utils.data_utils import download_file
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)
CSV_COLUMNS = ("duration", "wav", "start", "stop", "spk_id")


def load_hyperparameters(argv):
    """Parse a recipe's command line and load its YAML.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.

    Returns
    -------
    hparams_file : str
        The YAML's path; of its base where it names one.
    hparams : dict
        The YAML's objects.
    run_opts : speechbrain.utils.run_opts.RunOptions
        Device and other run options.
    overrides : str
        In YAML form: what the YAML changes of its base, then the command
        line's overrides.

    Raises
    ------
    UserError
        If the YAML is missing, a placeholder was not filled, or an override
        names no key of the YAML.
    """
    if not argv or argv[0].startswith("-"):
        raise UserError(
            "the first argument must be a hyperparameter file, as in "
            f"`python {os.path.basename(sys.argv[0])} hparams/iml_kd.yaml`."
        )
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    try:
        hparams_file, overrides = resolve_base(hparams_file, overrides)
        with open(hparams_file, encoding="utf-8") as stream:
            hparams = load_hyperpyyaml(stream, overrides)
    except FileNotFoundError as error:
        if error.filename != hparams_file:
            raise
        raise UserError(
            f"{hparams_file}: no such hyperparameter file; run in the "
            "recipe's folder (recipes/VoxCeleb/IMLKD), whose hparams/ holds "
            "them."
        ) from None
    except YAMLError as error:
        raise UserError(_unreadable(hparams_file, overrides, error)) from error
    except UserError:
        raise
    except (ImportError, KeyError, TypeError, ValueError) as error:
        message = _yaml_mistake(hparams_file, error)
        if message is None:
            raise
        raise UserError(message) from error
    return hparams_file, hparams, run_opts, overrides


def resolve_base(hparams_file, overrides=""):
    """Turn a YAML with a ``base`` into that base and overrides of it.

    A YAML whose top level has the key ``base`` is read as the base with its
    other keys changed. Mappings are merged, other values are replaced. The
    base is a path relative to the YAML and may have a base of its own.

    Arguments
    ---------
    hparams_file : str
        The YAML's path.
    overrides : str
        The command line's overrides in YAML form. They win over the YAML.

    Returns
    -------
    base : str
        The path of the YAML at the end of the chain.
    overrides : str
        All overrides of it in YAML form.

    Raises
    ------
    UserError
        If a base is missing or names itself, or a key is not in the base.
    """
    yaml = YAML()
    chain = [hparams_file]
    while True:
        with open(chain[-1], encoding="utf-8") as stream:
            content = yaml.load(stream)
        if not isinstance(content, dict) or "base" not in content:
            return chain[-1], overrides
        base = os.path.normpath(
            os.path.join(os.path.dirname(chain[-1]), str(content.pop("base")))
        )
        if not os.path.isfile(base):
            raise UserError(
                f"{chain[-1]}: its base {base} is missing; give the path of a "
                "YAML relative to this one."
            )
        if any(os.path.samefile(base, path) for path in chain):
            raise UserError(
                f"{chain[-1]}: its base {base} leads back to itself; name a "
                "YAML that is whole."
            )
        _check_keys_of_base(chain[-1], content, base)
        if overrides:
            recursive_update(content, yaml.load(overrides))
        stream = io.StringIO()
        yaml.dump(content, stream)
        overrides = stream.getvalue()
        chain.append(base)


def _check_keys_of_base(hparams_file, content, base):
    """Refuse a key that the base does not have."""
    with open(base, encoding="utf-8") as stream:
        known = set(YAML().load(stream) or ())
    # The base of a base has the rest of the keys.
    unknown = [key for key in content if key not in known]
    if unknown and "base" not in known:
        raise UserError(
            f"{hparams_file}: the key `{unknown[0]}` is not in its base "
            f"{base}; check its spelling against that file."
        )


def _unreadable(hparams_file, overrides, error):
    """Say whether the file or an option is no YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", error)).split())
    # The command line's overrides are parsed as a string, the file by name.
    if mark is None or mark.name == hparams_file:
        line = "" if mark is None else f", line {mark.line + 1}"
        return f"{hparams_file}{line}: cannot be read as YAML ({problem})."
    lines = overrides.splitlines()
    option = lines[min(mark.line, len(lines) - 1)]
    return (
        f"the option `--{option.replace(':', '', 1)}` cannot be read as YAML "
        f"({problem}); quote it for the shell, as in `--durations '[1.0, "
        "2.0]'`."
    )


def _yaml_mistake(hparams_file, error):
    """The sentence for what HyperPyYAML complains about; None for a bug."""
    text = " ".join(" ".join(map(str, error.args)).split())
    if "PLACEHOLDER" in text:
        return _placeholder_message(hparams_file, error)
    if isinstance(error, KeyError) and text.startswith("Override"):
        key = text.split("'")[1]
        return (
            f"{hparams_file}: the option `--{key}` names no key of this YAML; "
            "check its spelling against the file."
        )
    if text.startswith(
        (
            "There is no such",
            "The reference",
            "Invalid argument to",
            "The structure of the overrides",
        )
    ):
        return f"{hparams_file}: {text}; correct the YAML or the option."
    return None


def _placeholder_message(hparams_file, error):
    """Say which option is missing and what can be run without VoxCeleb."""
    name = os.path.basename(hparams_file)
    key = str(error).split("'")[1] if "'" in str(error) else "data_folder"
    message = f"{hparams_file}: give `--{key} "
    if key != "data_folder":
        return message + "...`, it has no default."
    message += "/path/to/VoxCeleb1` (a folder with wav/<speaker>/<session>/)"
    trial = os.path.join(os.path.dirname(hparams_file), "minivox", name)
    if os.path.isfile(trial):
        message += (
            "; without VoxCeleb, `python -m imlkd_brain.minivox "
            "--data_folder DIR` installs a small real corpus for "
            f"`{trial} --data_folder DIR`, and `make demo` does both"
        )
    return message + "."


class RandomChunks:
    """Where each utterance's training chunk starts in each epoch.

    The start is drawn from the seed, the epoch and the utterance alone, so
    that all methods see the same chunks at a seed and an interrupted run goes
    on with those it would have had, whatever else draws random numbers.

    The epoch lies in memory that processes share, so that the workers of a
    data loader see it move on, also workers that live longer than an epoch
    (``persistent_workers``).

    Arguments
    ---------
    seed : int
        The experiment's seed.

    Example
    -------
    >>> chunks = RandomChunks(seed=1)
    >>> chunks("a", 100, 40) == RandomChunks(seed=1)("a", 100, 40)
    True
    """

    def __init__(self, seed):
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self):
        """The epoch that chunks are drawn for, in all processes."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch):
        self._epoch.fill_(epoch)

    def __call__(self, utterance, n_samples, n_chunk):
        """Return the first sample of a chunk of ``n_chunk`` samples."""
        if n_samples <= n_chunk:
            return 0
        stream = random.Random(f"{self.seed}/{self.epoch}/{utterance}")
        return stream.randint(0, n_samples - n_chunk)


def read_audio(wav, start=0, n_samples=-1, sample_rate=16000):
    """Read samples of a mono file.

    Arguments
    ---------
    wav : str
        Path of the file.
    start : int
        First sample.
    n_samples : int
        Number of samples; -1 for all.
    sample_rate : int
        The rate the file must have, in Hz.

    Returns
    -------
    signal : torch.Tensor
        (samples,), float32.

    Raises
    ------
    UserError
        If the file is missing, unreadable, empty, not mono, of another
        sampling rate, or holds NaN or infinity.
    """
    try:
        signal, rate = soundfile.read(
            wav, start=start, frames=n_samples, dtype="float32"
        )
    except (soundfile.LibsndfileError, RuntimeError) as error:
        state = "broken" if os.path.exists(wav) else "missing"
        raise UserError(
            f"{wav}: this audio file is {state}; restore it, or prepare the "
            "data again with `--skip_prep False` in a new save_folder."
        ) from error
    if rate != sample_rate or signal.ndim != 1:
        raise UserError(
            f"{wav}: expected mono audio at {sample_rate} Hz, found "
            f"{1 if signal.ndim == 1 else signal.shape[1]} channel(s) at "
            f"{rate} Hz; convert the file, or give the corpus's sample_rate."
        )
    if not len(signal):
        raise UserError(
            f"{wav}: no samples from {start} on; the CSV does not fit the "
            "file, prepare the data again."
        )
    check_samples(signal, wav, start)
    return torch.from_numpy(signal)


def repeat_to(signal, n_samples):
    """Repeat a signal (samples,) until it has ``n_samples`` samples.

    Example
    -------
    >>> repeat_to(torch.tensor([1, 2, 3]), 5)
    tensor([1, 2, 3, 1, 2])
    """
    if len(signal) >= n_samples:
        return signal[:n_samples]
    return signal.repeat(-(-n_samples // len(signal)))[:n_samples]


def train_dataset(
    annotation, data_folder, seconds, sample_rate, seed, speeds=(1.0,)
):
    """Return the training set and what moves its random chunks on.

    Arguments
    ---------
    annotation : str
        CSV with the columns of ``prepare_voxceleb``.
    data_folder : str
        Stands for ``$data_root`` in the CSV.
    seconds : float
        Chunk length.
    sample_rate : int
        In Hz.
    seed : int
        The experiment's seed.
    speeds : sequence of float
        Speed perturbation; every factor but 1.0 makes new speakers, named
        ``<speaker>-sp<factor>``.

    Returns
    -------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives id, sig and spk_id.
    chunks : RandomChunks
        Set its ``epoch`` when an epoch starts.
    """
    rows = _read_csv(annotation, data_folder)
    if tuple(speeds) != (1.0,):
        rows = {
            _perturbed(key, speed): {
                **row,
                "spk_id": _perturbed(row["spk_id"], speed),
                "speed": speed,
            }
            for key, row in rows.items()
            for speed in speeds
        }
    else:
        rows = {key: {**row, "speed": 1.0} for key, row in rows.items()}
    dataset = sb.dataio.dataset.DynamicItemDataset(rows)
    chunks = RandomChunks(seed)
    dataset.add_dynamic_item(
        ChunkReader(chunks, seconds, sample_rate, speeds),
        takes=["id", "wav", "duration", "speed"],
        provides="sig",
    )
    dataset.set_output_keys(["id", "sig", "spk_id"])
    return dataset, chunks


# The functions of a pipeline are objects of classes at the top of the module:
# workers that are started by spawn or forkserver get the dataset as a pickle.


class ChunkReader:
    """Reads an utterance's chunk of the epoch at the row's speed.

    Arguments
    ---------
    chunks : RandomChunks
        Where chunks start.
    seconds : float
        Chunk length.
    sample_rate : int
        In Hz.
    speeds : sequence of float
        The speeds that rows may have.
    """

    def __init__(self, chunks, seconds, sample_rate, speeds):
        self.chunks = chunks
        self.n_chunk = seconds_to_samples(seconds, sample_rate)
        self.sample_rate = sample_rate
        # x times faster: read at a rate of x * sample_rate, hear at
        # sample_rate.
        self.resample = {
            speed: torchaudio.transforms.Resample(
                int(round(speed * sample_rate)), sample_rate
            )
            for speed in speeds
            if speed != 1.0
        }

    def __call__(self, id_, wav, duration, speed):
        """Return the chunk (samples,) of one row."""
        n_read = int(round(self.n_chunk * speed))
        # A chunk may start anywhere in its file, as in SpeechBrain's recipe:
        # `duration` is the file's, whatever rows it was cut into.
        n_file = seconds_to_samples(duration, self.sample_rate)
        start = self.chunks(id_, n_file, n_read)
        signal = read_audio(wav, start, n_read, self.sample_rate)
        if speed != 1.0:
            signal = self.resample[speed](signal)
        return repeat_to(signal, self.n_chunk)


class SegmentReader:
    """Reads the segment that a row names.

    Arguments
    ---------
    sample_rate : int
        The rate the files must have, in Hz.
    """

    def __init__(self, sample_rate):
        self.sample_rate = sample_rate

    def __call__(self, wav, start, stop):
        """Return samples ``start`` to ``stop`` (samples,) of a file."""
        return read_audio(wav, start, stop - start, self.sample_rate)


class SpeakerIndex:
    """Gives a speaker's index in a label encoder.

    Arguments
    ---------
    encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers.
    """

    def __init__(self, encoder):
        self.encoder = encoder

    def __call__(self, speaker):
        """Return the index of a speaker's name, int64, (1,)."""
        return self.encoder.encode_sequence_torch([speaker])


def valid_dataset(annotation, data_folder, sample_rate):
    """Return the validation set: the CSV's own segments, longest first.

    Arguments
    ---------
    annotation : str
        CSV with the columns of ``prepare_voxceleb``.
    data_folder : str
        Stands for ``$data_root`` in the CSV.
    sample_rate : int
        In Hz.

    Returns
    -------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives id, sig, spk_id and utterance (``speaker/session/file``).
    """
    rows = _read_csv(annotation, data_folder)
    length = {k: r["stop"] - r["start"] for k, r in rows.items()}
    order = sorted(rows, key=lambda key: (-length[key], key))
    dataset = sb.dataio.dataset.DynamicItemDataset(
        {key: rows[key] for key in order}
    )

    dataset.add_dynamic_item(
        SegmentReader(sample_rate),
        takes=["wav", "start", "stop"],
        provides="sig",
    )
    dataset.add_dynamic_item(utterance_key, takes="wav", provides="utterance")
    dataset.set_output_keys(["id", "sig", "spk_id", "utterance"])
    return dataset


def _perturbed(name, speed):
    """Name an utterance or speaker at another speed."""
    return name if speed == 1.0 else f"{name}-sp{speed:g}"


def _read_csv(path, data_folder):
    """Read an annotation; {ID: row} with numbers as numbers."""
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: missing; let the script prepare the data (`--skip_prep "
            "False`), or give the annotation's path."
        )
    rows = {}
    with open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        columns = ("ID", *CSV_COLUMNS)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path}: the column(s) {', '.join(missing)} are missing; "
                f"expected {','.join(columns)} as prepare_voxceleb writes "
                "them."
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            key = row.pop("ID")
            if key in rows:
                raise UserError(
                    f"{where}: the ID `{key}` is there more than once; give "
                    "each row its own."
                )
            rows[key] = _numbers(row, where)
            row["wav"] = row["wav"].replace("$data_root", data_folder)
    if not rows:
        raise UserError(
            f"{path}: holds no utterances; check data_folder ({data_folder})."
        )
    return rows


def _numbers(row, where):
    """Turn a row's numbers into numbers, in place."""
    for column, kind in (("duration", float), ("start", int), ("stop", int)):
        try:
            row[column] = kind(row[column])
        except (TypeError, ValueError):
            raise UserError(
                f"{where}: {column} is {row[column]!r}; expected "
                + ("seconds." if kind is float else "a number of samples.")
            ) from None
    if not row["duration"] > 0:
        raise UserError(
            f"{where}: duration is {row['duration']}; expected seconds above 0."
        )
    if not 0 <= row["start"] < row["stop"]:
        raise UserError(
            f"{where}: stop ({row['stop']}) must come after start "
            f"({row['start']}), in samples from 0."
        )
    return row


def encode_speakers(dataset, path, expected=None):
    """Return the label encoder of the training speakers.

    Speakers are numbered in the order of their names, so that two runs on the
    same speakers agree whatever the order of their CSVs.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training set.
    path : str
        Where the encoder is kept; read if it exists.
    expected : int, optional
        The number of speakers that the YAML claims, to check.

    Returns
    -------
    encoder : speechbrain.dataio.encoder.CategoricalEncoder

    Raises
    ------
    UserError
        If a kept encoder is of other speakers, if there are fewer than two,
        or if their number is not ``expected``.
    """
    speakers = sorted({row["spk_id"] for row in dataset.data.values()})
    if len(speakers) < 2:
        raise UserError(
            "the training annotation has fewer than two speakers; check "
            "data_folder and the split."
        )
    if expected is not None and expected != len(speakers):
        raise UserError(
            f"out_n_neurons: the YAML says {expected} speakers but the "
            f"training annotation has {len(speakers)}; leave the key out, it "
            "is derived."
        )
    run_on_main(_keep_encoder, args=[speakers, path])
    encoder = _kept_encoder(path)
    encoder.expect_len(len(speakers))
    if sorted(encoder.lab2ind) != speakers:
        raise UserError(
            f"{path}: holds other speakers than the training annotation; the "
            "output_folder belongs to another experiment, give a new one."
        )
    return encoder


def _keep_encoder(speakers, path):
    """Write the label encoder, where there is none."""
    if _kept_encoder(path) is not None:
        return
    encoder = sb.dataio.encoder.CategoricalEncoder()
    for speaker in speakers:
        encoder.add_label(speaker)
    encoder.save(path + ".tmp")
    os.replace(path + ".tmp", path)


def _kept_encoder(path):
    """The label encoder in a file; None if there is none, or half of one."""
    encoder = sb.dataio.encoder.CategoricalEncoder()
    try:
        return encoder if encoder.load_if_possible(path) else None
    except KeyError:
        # Cut short before the last lines, which SpeechBrain looks up.
        return None


def check_batches(options, n_items=None):
    """Refuse batches that a training cannot be made of.

    Arguments
    ---------
    options : dict
        Of the training set's data loader.
    n_items : int, optional
        How many items a process has in an epoch, where that is known.

    Raises
    ------
    UserError
        For a batch of one utterance, also the last of an epoch, and for
        workers' options where there are no workers.

    Example
    -------
    >>> check_batches({"batch_size": 4}, 9)
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: batch_size: the last batch of an epoch has \
one utterance of 9, but BatchNorm needs two in a batch; give another \
batch_size, or drop_last: True in train_dataloader_options.
    """
    size = options.get("batch_size", 1)
    if not isinstance(size, int) or size < 2:
        raise UserError(
            f"batch_size: {size!r} is not possible, BatchNorm needs two "
            "utterances in a batch; give at least `--batch_size 2`."
        )
    if (
        n_items is not None
        and n_items % size == 1
        and not options.get("drop_last", False)
    ):
        raise UserError(
            "batch_size: the last batch of an epoch has one utterance of "
            f"{n_items}, but BatchNorm needs two in a batch; give another "
            "batch_size, or drop_last: True in train_dataloader_options."
        )
    for key in ("persistent_workers", "multiprocessing_context"):
        if options.get(key) and not options.get("num_workers", 0):
            raise UserError(
                f"train_dataloader_options: {key} is {options[key]!r} without "
                "workers; give `--num_workers 1` or more, or leave it out."
            )


def batches_per_epoch(n_items, n_processes, batch_size=1, drop_last=False):
    """How many batches a process trains on in an epoch.

    Arguments
    ---------
    n_items : int
        Items of the training set.
    n_processes : int
        Processes that share them, as torch's DistributedSampler does it.
    batch_size : int
        Items in a batch.
    drop_last : bool
        Whether what does not fill a batch of every process is left out.

    Returns
    -------
    int

    Example
    -------
    >>> batches_per_epoch(11, 2, batch_size=3, drop_last=True)
    1
    >>> batches_per_epoch(11, 2, batch_size=3)
    2
    """
    if drop_last:
        return n_items // n_processes // batch_size
    # Up: the last batches are smaller, or repeat items for equal shares.
    share = -(-n_items // n_processes)
    return -(-share // batch_size)


def find_list(source, data_folder, save_folder):
    """Return the local path of a trial list.

    Only the main process looks for it and downloads it, so that processes
    which train together do not write the same file. All of them have to call
    it.

    Arguments
    ---------
    source : str or None
        A path, or the URL of an official list. A URL's file is first looked
        for in the data folders (and their ``meta``), then downloaded.
    data_folder : str
        Corpus folder, or several separated by commas.
    save_folder : str
        Where a downloaded list is kept.

    Returns
    -------
    path : str or None

    Raises
    ------
    UserError
        If there is no such file and it cannot be downloaded.
    """
    return run_on_main(_find_list, args=[source, data_folder, save_folder])


def _find_list(source, data_folder, save_folder):
    """See :func:`find_list`."""
    if source is None or os.path.isfile(source):
        return source
    name = os.path.basename(source)
    folders = [folder.strip() for folder in data_folder.split(",")]
    for folder in [*folders, *(os.path.join(f, "meta") for f in folders)]:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    problem = "no such file"
    if "://" in source:
        path = os.path.join(save_folder, name)
        if os.path.isfile(path):
            return path
        try:
            os.makedirs(save_folder, exist_ok=True)
            # Half a list reads as a list, so it gets its name when whole.
            download_file(source, path + ".tmp", replace_existing=True)
            os.replace(path + ".tmp", path)
            return path
        except OSError as error:
            problem = f"cannot be downloaded ({error})"
    raise UserError(
        f"{source}: {problem}; put the trial list into {folders[0]} as {name}."
    )


def check_known_speakers(dataset, encoder, annotation):
    """Refuse validation speakers that the classifier has no class for.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The validation set, where the error rate is what is measured.
    encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers.
    annotation : str
        The validation CSV, for the message.

    Raises
    ------
    UserError
        Naming the first speaker that is not a training speaker.
    """
    speakers = {row["spk_id"] for row in dataset.data.values()}
    unknown = sorted(speakers - set(encoder.lab2ind))
    if unknown:
        raise UserError(
            f"{annotation}: {len(unknown)} speakers are not training speakers "
            f"(first: {unknown[0]}), so there is no error rate; give dev "
            "trials (`--valid_trials`), or utterances of training speakers."
        )


def valid_trials(path, dataset):
    """Read the dev trials and check that the validation set has them all.

    Arguments
    ---------
    path : str or None
        The list; None where there are no dev trials.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The validation set.

    Returns
    -------
    trials : imlkd_brain.verification.Trials or None

    Raises
    ------
    UserError
        If an utterance of the list is not in the validation set, or is
        several files of it.
    """
    if path is None:
        return None
    trials = read_trials(path)
    known = {utterance_key(row["wav"]) for row in dataset.data.values()}
    # Where there are no sessions, a list says less than the set's keys do.
    ends = defaultdict(set)
    for key in known:
        parts = key.split("/")
        for first in range(len(parts)):
            ends["/".join(parts[first:])].add(key)
    several = [u for u in trials.utterances if len(ends.get(u, ())) > 1]
    if several:
        one, other, *_ = sorted(ends[several[0]])
        raise UserError(
            f"{path}: {several[0]} may be {one} or {other} of the validation "
            "annotation; write more of the path in the list."
        )
    unknown = [u for u in trials.utterances if u not in ends]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} utterances of the dev trials are not in "
            f"the validation annotation (first: {unknown[0]}); prepare the "
            "data with this list as valid_trials, in a new save_folder."
        )
    names = [key for u in trials.utterances for key in ends[u]]
    return replace(trials, utterances=names)


def check_dev_speakers(trials, valid_data, train_data, allow=False):
    """Refuse dev trials of speakers that are trained on.

    The error rate on such trials is too low, and a checkpoint that is chosen
    by it is not the best one for new speakers. The annotations say who speaks:
    a preparation that was skipped, or was made with another list, is seen.

    Arguments
    ---------
    trials : imlkd_brain.verification.Trials or None
        Dev trials; None where there are none.
    valid_data, train_data : speechbrain.dataio.dataset.DynamicItemDataset
        The validation and the training set.
    allow : bool
        Warn only.

    Raises
    ------
    UserError
        Naming the first speakers that are in both.
    """
    if trials is None:
        return
    speaker_of = {
        utterance_key(row["wav"]): row["spk_id"]
        for row in valid_data.data.values()
    }
    voices = [speaker_of[utterance] for utterance in trials.utterances]
    doubt = doubt_about(
        voices,
        voices,
        trials.pairs,
        trials.labels,
        lambda trial: f"on line {trials.lines[trial]}",
    )
    if doubt:
        logger.warning(
            f"{trials.path}: the speakers of the dev trials are not known by "
            f"the spk_id of the validation annotation ({doubt}), so nothing "
            "says that they are held out."
        )
    trained = {row["spk_id"] for row in train_data.data.values()}
    both = sorted(set(voices) & (trained | plain_speakers(trained)))
    if not both:
        return
    reason = (
        f"{trials.path}: {len(both)} of {len(set(voices))} speakers of the "
        f"dev trials are training speakers (first: {both[0]}), so the dev "
        "error rate would be too low"
    )
    if not allow:
        raise UserError(
            f"{reason}; give valid_trials of other speakers and prepare the "
            "data anew, or go on with --allow_training_speakers True."
        )
    logger.warning(f"{reason}; going on, as told.")
