"""Makes the maps of every model, and keeps them on disk.

Authors: IML-KD contributors
"""

import hashlib
import os
from dataclasses import dataclass, fields
from functools import cache

import torch
from tqdm import tqdm

from imlkd_brain.data.crops import duration_name, read_durations
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.maps import saliency_map
from imlkd_brain.explanation.scores import features_of
from imlkd_brain.explanation.tasks import seeded
from imlkd_brain.files import cached, check_regular


@dataclass
class MapPlan:
    """How maps are made, and where they are kept.

    Attributes
    ----------
    methods : dict of str to dict
        Options of each method.
    durations : list
        Seconds of crops from the middle of the utterance, or ``full``.
    batch_frames : int
        At most this many frames go through a network at once.
    seed : int
        For the random control.
    allow_tf32 : bool
        Whether enrolments are embedded in TF32.
    save_folder : str
        Where maps, curves and sanity checks are kept.
    progressbar : bool
        If True, show a progress bar.

    Raises
    ------
    UserError
        If a duration is neither ``full`` nor seconds.
    """

    methods: dict
    durations: list
    batch_frames: int
    seed: int
    allow_tf32: bool
    save_folder: str
    progressbar: bool = True

    def __post_init__(self):
        read_durations(self.durations)

    def kept(self, name, ingredients, record, compute):
        """Read records from the save folder, or compute and keep them.

        Arguments
        ---------
        name : str
            Of the file.
        ingredients : list
            Everything that the records depend on, see :func:`identity`.
        record : type
            The dataclass of the records.
        compute : callable
            Returns the list of records.

        Returns
        -------
        records : list
        """
        form = [field.name for field in fields(record)]
        rows = cached(
            self.save_folder,
            name,
            [form, *ingredients],
            lambda: [vars(item) for item in compute()],
        )
        return [record(**row) for row in rows]

    def progress(self, what, unit, total=None):
        """Open a progress bar."""
        return tqdm(
            total=total,
            desc=what,
            unit=unit,
            dynamic_ncols=True,
            disable=not self.progressbar,
        )


@dataclass
class MapSet:
    """The maps of one model for the utterances of a task at one duration.

    Attributes
    ----------
    features : list of torch.Tensor
        Features (T, F) of each utterance.
    places : list of tuple of float
        Start and end of each crop in seconds of its utterance.
    maps : dict of str to list
        By method: a map (T, F) of each utterance.
    gap : torch.Tensor
        Shape (U,), completeness gap of Integrated Gradients; NaN without them.
    clean, empty : torch.Tensor
        Shape (U,), scores of the utterances and of all-zero features.
    frame_rate : float
        Frames of the features per second.
    """

    features: list
    places: list
    maps: dict
    gap: torch.Tensor
    clean: torch.Tensor
    empty: torch.Tensor
    frame_rate: float


def all_maps(subjects, plan):
    """Compute, or read, the maps of all models at all durations.

    Arguments
    ---------
    subjects : dict of str to Subject
        The models by name, all on the same task.
    plan : MapPlan
        How maps are made.

    Returns
    -------
    maps : dict
        ``maps[name][duration]`` is a :class:`MapSet`.
    """
    task = next(iter(subjects.values())).task
    n_utterances = len(task.utterances)
    total = len(subjects) * len(plan.durations) * n_utterances
    maps = {name: {} for name in subjects}
    with plan.progress(f"maps, {task.name}", "utt", total) as progress:
        for name, subject in subjects.items():
            for duration in plan.durations:
                before = progress.n

                def compute(subject=subject, duration=duration):
                    return [compute_maps(subject, duration, plan, progress)]

                (maps[name][duration],) = plan.kept(
                    f"maps_{task.name}_{name}_{duration_name(duration)}",
                    identity(subject, duration, plan),
                    MapSet,
                    compute,
                )
                progress.update(before + n_utterances - progress.n)
    return maps


def compute_maps(subject, duration, plan, progress):
    """Compute a :class:`MapSet`; ``progress`` counts the utterances."""
    features, places = features_of(subject, duration)
    n_items = len(features)
    result = MapSet(
        features,
        places,
        {method: [None] * n_items for method in plan.methods},
        torch.full((n_items,), torch.nan),
        torch.zeros(n_items),
        torch.zeros(n_items),
        subject.model.sample_rate / subject.model.hop_samples,
    )
    generator = seeded(plan.seed, subject.name, subject.task.name, duration)
    for indices, batch in subject.batches(
        features, plan.batch_frames, generator
    ):
        with torch.no_grad():
            column = batch.target[:, None]
            clean = batch.score(batch.feats).gather(1, column)
            empty = batch.score(torch.zeros_like(batch.feats))
            result.clean[indices] = clean[:, 0].cpu()
            result.empty[indices] = empty.gather(1, column)[:, 0].cpu()
        for method, options in plan.methods.items():
            attribution, gap = saliency_map(method, batch, options)
            for index, item in zip(indices, attribution.cpu(), strict=True):
                result.maps[method][index] = item
            if gap is not None:
                result.gap[indices] = gap.cpu()
        progress.update(len(indices))
    return result


def identity(subject, duration, plan):
    """List everything that the maps of a subject depend on.

    Kept maps are read again only if it has not changed.
    """
    task = subject.task
    everyone = [*task.utterances, *task.enrolments]
    return [
        subject.name,
        subject.model.key,
        str(duration),
        [(u.key, content_of(u.path)) for u in everyone],
        [u.speaker for u in task.utterances],
        task.own,
        task.trials,
        list(plan.methods.items()),
        plan.seed,
        plan.allow_tf32,
    ]


def content_of(path):
    """Hash the bytes of a file; read it once as long as it does not change.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        BLAKE2b, hexadecimal.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    try:
        check_regular(path)
        state = os.stat(path)
        times = state.st_size, state.st_mtime_ns, state.st_ctime_ns
        return _content_of(str(path), times)
    except OSError as error:
        raise UserError(
            f"{path}: no readable audio file; restore or remove it."
        ) from error


@cache
def _content_of(path, times):
    """Hash a file that has this size and these times."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
