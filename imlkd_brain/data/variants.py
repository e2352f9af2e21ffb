"""Training chunks that can be had again: the same ones in a walk and a training.

A stored answer of a teacher belongs to a chunk of a row of the training set. A
row has ``n_variants`` chunks. Where a variant's chunk begins, what is added to
it and where its segment begins are drawn from the seed, the row and the
variant alone.

Authors: IML-KD contributors
"""

import inspect
import random
from dataclasses import dataclass

import torch

from imlkd_brain.data.crops import RandomChunks
from imlkd_brain.data.datasets import ChunkReader
from imlkd_brain.errors import UserError
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import ReproducibleRandomSampler


@dataclass
class Recipe:
    """What a chunk and its segment depend on beside row and variant.

    Arguments
    ---------
    seed : int
        Of the walk.
    seconds : float
        Length of a chunk.
    sample_rate : int
        In Hz.
    durations : list of float
        Seconds of segments; variant k has ``durations[k % len(durations)]``.
    frame_rate : float
        The student's frames per second, in which segments begin and end.
    n_frames : int
        The student's frames of a chunk.

    Example
    -------
    >>> recipe = Recipe(1, 2.0, 16000, [1.0, 1.5], 100.0, 201)
    >>> recipe.segment_frames(0), recipe.segment_frames(1)
    (100, 150)
    """

    seed: int
    seconds: float
    sample_rate: int
    durations: list
    frame_rate: float
    n_frames: int

    def segment_frames(self, variant):
        """Return the student's frames of a variant's segment."""
        duration = self.durations[variant % len(self.durations)]
        return min(self.n_frames, max(1, round(duration * self.frame_rate)))

    def draw(self, purpose, row, variant):
        """Return a random stream that nothing else has."""
        return random.Random(f"{self.seed}/{purpose}/{variant}/{row}")

    def frames(self, row, variant):
        """Return the frames of a segment in its chunk, (frames,), int64."""
        n_frames = self.segment_frames(variant)
        stream = self.draw("segment", row, variant)
        start = stream.randint(0, self.n_frames - n_frames)
        return torch.arange(start, start + n_frames)


class VariantReader:
    """Reads the chunk of a row and a variant, augmented where asked for.

    Variant k is the chunk that a training with the same seed draws in epoch
    k + 1, see :class:`imlkd_brain.data.crops.RandomChunks`.

    Arguments
    ---------
    recipe : Recipe
        What chunks depend on.
    n_variants : int
        Chunks of a row.
    speeds : sequence of float
        The speeds that rows have.
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        Applied to each chunk by itself.
    """

    def __init__(self, recipe, n_variants, speeds, wav_augment):
        self.recipe = recipe
        self.wav_augment = wav_augment
        self.readers = []
        for variant in range(n_variants):
            chunks = RandomChunks(recipe.seed)
            chunks.epoch = variant + 1
            self.readers.append(
                ChunkReader(chunks, recipe.seconds, recipe.sample_rate, speeds)
            )

    def __call__(self, id_, wav, duration, speed, variant):
        """Return the chunk (samples,) of a row and a variant."""
        signal = self.readers[variant](id_, wav, duration, speed)
        if self.wav_augment is None:
            return signal
        number = self.recipe.draw("augment", id_, variant).getrandbits(32)
        state = random.getstate()
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                random.seed(number)
                heard, _ = self.wav_augment(signal[None], torch.ones(1))
        finally:
            random.setstate(state)
        if heard.shape != (1, len(signal)):
            raise UserError(
                f"wav_augment: makes {tuple(heard.shape)} of one chunk of "
                f"{len(signal)} samples, but a stored answer belongs to one "
                "chunk of the same length; give concat_original and "
                "parallel_augment False and repeat_augment 1, or "
                "`--augmentation False`."
            )
        return heard[0]


class VariantSet(DynamicItemDataset):
    """The rows of a training set, each with several variants of its chunk.

    Item ``row + variant * len(dataset)`` is a row's variant. The length is
    the number of rows, as an epoch takes one variant of each.

    Arguments
    ---------
    rows : dict
        Rows by ID, as :func:`imlkd_brain.data.datasets.train_dataset` has
        them.
    recipe : Recipe
        What chunks and segments depend on.
    n_variants : int
        Chunks of a row.
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        See :class:`VariantReader`.
    """

    def __init__(self, rows, recipe, n_variants, wav_augment=None):
        super().__init__(rows)
        self.recipe, self.n_variants = recipe, n_variants
        self.pipeline.add_static_keys(["variant"])
        speeds = sorted({row["speed"] for row in rows.values()})
        self.add_dynamic_item(
            VariantReader(recipe, n_variants, speeds, wav_augment),
            takes=["id", "wav", "duration", "speed", "variant"],
            provides="sig",
        )
        self.add_dynamic_item(
            recipe.frames, takes=["id", "variant"], provides="frames"
        )
        self.set_output_keys(["id", "sig", "spk_id", "frames"])

    def __getitem__(self, index):
        """Return the item of a row and a variant."""
        variant, row = divmod(int(index), len(self))
        if not 0 <= variant < self.n_variants:
            raise IndexError(f"item {index}: there is no variant {variant}")
        name = self.data_ids[row]
        return self.pipeline.compute_outputs(
            {"id": name, "variant": variant, **self.data[name]}
        )


class VariantSampler(ReproducibleRandomSampler):
    """Permutes rows as ever; all items of a batch have the same variant.

    Batch number b of all processes together, a block of ``batch_size *
    n_processes`` items, has a variant that is drawn from seed, epoch and b.
    Its segments then have one duration.

    Arguments
    ---------
    dataset : VariantSet
        The training set.
    seed : int
        Of the order and of the variants.
    batch_size : int
        Items in a batch of one process.
    n_processes : int
        Processes that share an epoch; process r takes items r, r +
        n_processes, ... as torch's ``DistributedSampler`` gives them.
    drop_last : bool
        If True, items that are too few for all processes are left out;
        otherwise the last items are repeated.
    order : ReproducibleRandomSampler, optional
        Draws the rows of an epoch, as many as there are items here; a
        permutation without it.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> class Rows(list):
    ...     n_variants = 3
    >>> sampler = VariantSampler(Rows(range(6)), seed=1, batch_size=2)
    >>> [index // 6 for index in sampler]
    [0, 0, 2, 2, 1, 1]
    """

    def __init__(
        self,
        dataset,
        seed,
        batch_size,
        n_processes=1,
        drop_last=False,
        order=None,
    ):
        super().__init__(dataset, seed)
        self.order = order
        self.n_variants = dataset.n_variants
        self.n_rows = len(dataset)
        self.block = batch_size * n_processes
        spare = self.n_rows % n_processes
        self.n_items = self.n_rows - spare
        if spare and not drop_last:
            self.n_items += n_processes

    def __len__(self):
        return self.n_items

    def __iter__(self):
        if self.order is not None:
            self.order.set_epoch(self.epoch)
        rows = list(self.order or super().__iter__())
        # Not DistributedSampler's repetitions: they have another variant.
        missing = max(0, self.n_items - self.n_rows)
        if missing and self.order is None:
            rows += rows[-missing:]
        rows = rows[: self.n_items]
        for place, row in enumerate(rows):
            if place % self.block == 0:
                number = place // self.block
                stream = random.Random(f"{self.seed}/{self.epoch}/{number}")
                variant = stream.randrange(self.n_variants)
            yield row + variant * self.n_rows


def augmentation_settings(wav_augment):
    """Describe augmentations, for a fingerprint.

    Arguments
    ---------
    wav_augment : speechbrain.augment.augmenter.Augmenter or None
        None: no augmentation.

    Returns
    -------
    dict or None
        Plain values by name; lists of noise and room responses by the names
        that their CSV has.
    """
    if wav_augment is None:
        return None
    parts = {"": wav_augment, **getattr(wav_augment, "augmentations", {})}
    settings = {}
    for name, part in parts.items():
        settings[f"{name}.class".lstrip(".")] = type(part).__name__
        # What it was built with; a call leaves more behind.
        given = set().union(
            *(
                inspect.signature(kind.__init__).parameters
                for kind in type(part).__mro__
                if "__init__" in vars(kind)
            )
        )
        for key in sorted(given & vars(part).keys() - {"num_workers"}):
            value = getattr(part, key)
            if isinstance(value, bool | int | float | str | list | tuple):
                settings[f"{name}.{key}".lstrip(".")] = _described(key, value)
    return settings


def _described(key, value):
    """A setting as JSON holds it; a CSV by the IDs of its rows."""
    if key != "csv_file":
        return list(value) if isinstance(value, tuple) else value
    with open(value, encoding="utf-8") as stream:
        return [line.partition(",")[0].strip() for line in stream][1:]
