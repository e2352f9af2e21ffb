"""SpeechBrain datasets of a training, and its speakers' label encoder.

Authors: IML-KD contributors
"""

import torch
import torchaudio

import speechbrain as sb
from imlkd_brain.data.annotations import UNLABELLED, read_annotation
from imlkd_brain.data.audio import read_audio, read_converted, repeat_to
from imlkd_brain.data.crops import RandomChunks, seconds_to_samples
from imlkd_brain.data.in_shard import Shards
from imlkd_brain.data.speakers import utterance_key
from imlkd_brain.errors import UserError
from imlkd_brain.files import in_place_of
from speechbrain.utils.distributed import run_on_main


def train_dataset(
    annotation,
    data_folder,
    seconds,
    sample_rate,
    seed,
    speeds=(1.0,),
    labels=None,
    shards=None,
):
    """Return the training set and its random chunks.

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
    labels : imlkd_brain.data.labels.Labels, optional
        Says which utterances have a label; all of them have without it.
    shards : str, optional
        A folder of shards that the files are read out of, see
        :mod:`imlkd_brain.data.shards`.

    Returns
    -------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives id, sig and spk_id.
    chunks : RandomChunks
        Set ``chunks.epoch`` when an epoch starts.
    """
    read = read_annotation if labels is None else labels.rows
    rows = read(annotation, data_folder)
    if shards is not None:
        Shards(shards).in_place_of_files(rows, data_folder, annotation)
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


class ChunkReader:
    """Reads the epoch's chunk of an utterance at the row's speed.

    Arguments
    ---------
    chunks : RandomChunks
        Draws where chunks start.
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
        # As in SpeechBrain's recipe, a chunk may start anywhere in its file:
        # `duration` is that of the file, not of the row.
        n_file = seconds_to_samples(duration, self.sample_rate)
        start = self.chunks(id_, n_file, n_read)
        read = read_audio
        if id_.startswith(UNLABELLED):
            read = read_converted  # nobody's corpus, of any format
        signal = read(wav, start, n_read, self.sample_rate)
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


class LabelledIndex(SpeakerIndex):
    """A :class:`SpeakerIndex` where utterances may have no label."""

    def __call__(self, speaker, labelled):
        """Return the index, -1 without a label, int64, (1,)."""
        return super().__call__(speaker) if labelled else torch.tensor([-1])


def has_unlabelled(dataset):
    """Whether some utterances of a training set may have no label."""
    return any("labelled" in row for row in dataset.data.values())


def index_speakers(dataset, encoder):
    """Let a dataset give ``spk_id_encoded``, a speaker's index, for ``spk_id``.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        It has spk_id.
    encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The training speakers.
    """
    keys = [key for key in dataset.pipeline.output_mapping if key != "spk_id"]
    index, takes = SpeakerIndex(encoder), ["spk_id"]
    if has_unlabelled(dataset):
        index, takes = LabelledIndex(encoder), ["spk_id", "labelled"]
    dataset.add_dynamic_item(index, takes=takes, provides="spk_id_encoded")
    dataset.set_output_keys([*keys, "spk_id_encoded"])


def valid_dataset(annotation, data_folder, sample_rate, labels=None):
    """Return the validation set: the CSV's own segments, longest first.

    Arguments
    ---------
    annotation : str
        CSV with the columns of ``prepare_voxceleb``.
    data_folder : str
        Stands for ``$data_root`` in the CSV.
    sample_rate : int
        In Hz.
    labels : imlkd_brain.data.labels.Labels, optional
        Says which utterances can be validated on.

    Returns
    -------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Gives id, sig, spk_id and utterance (``speaker/session/file``). None
        where there is nothing to validate on.
    """
    read = read_annotation if labels is None else labels.valid_rows
    rows = read(annotation, data_folder)
    if labels is not None and not rows:
        return None
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


def encode_speakers(dataset, path, expected=None, begun=True):
    """Return the label encoder of the training speakers.

    Speakers are numbered in the order of their names. Two runs on the same
    speakers agree, also if their CSVs have another order.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The training set.
    path : str
        The encoder's file; read if it exists.
    expected : int, optional
        The number of speakers that the YAML claims, to check.
    begun : bool
        If False, no checkpoint depends on the file, and a file of other
        speakers is replaced.

    Returns
    -------
    encoder : speechbrain.dataio.encoder.CategoricalEncoder

    Raises
    ------
    UserError
        If a training has begun with other speakers, if there are fewer than
        two, or if their number is not ``expected``.
    """
    rows = dataset.data.values()
    if has_unlabelled(dataset):
        rows = [row for row in rows if row["labelled"]]
        if not rows:
            return sb.dataio.encoder.CategoricalEncoder()
    speakers = sorted({row["spk_id"] for row in rows})
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
    run_on_main(_keep_encoder, args=[speakers, path, begun])
    encoder = _kept_encoder(path)
    encoder.expect_len(len(speakers))
    if sorted(encoder.lab2ind) != speakers:
        raise UserError(
            f"{path}: holds other speakers than the training annotation; the "
            "output_folder belongs to another experiment, give a new one."
        )
    return encoder


def _keep_encoder(speakers, path, begun):
    """Write the label encoder, unless the old one must stay."""
    kept = _kept_encoder(path)
    if kept is not None and (begun or sorted(kept.lab2ind) == speakers):
        return
    encoder = sb.dataio.encoder.CategoricalEncoder()
    for speaker in speakers:
        encoder.add_label(speaker)
    with in_place_of(path) as temporary:
        encoder.save(temporary)


def _kept_encoder(path):
    """Read a label encoder; None if there is none, or half of one."""
    encoder = sb.dataio.encoder.CategoricalEncoder()
    try:
        return encoder if encoder.load_if_possible(path) else None
    except KeyError:
        # The file ends before the last lines, which SpeechBrain looks up.
        return None


def check_batches(options, n_items=None):
    """Refuse options that give batches of one utterance.

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
    """Return how many batches a process trains on in an epoch.

    Arguments
    ---------
    n_items : int
        Items of the training set.
    n_processes : int
        Processes that share the items, as with torch's DistributedSampler.
    batch_size : int
        Items in a batch.
    drop_last : bool
        If True, items that do not fill a batch of every process are left out.

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


def check_known_speakers(dataset, encoder, annotation):
    """Refuse validation speakers that the classifier has no class for.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        The validation set.
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
