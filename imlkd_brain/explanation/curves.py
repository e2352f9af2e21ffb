"""Deletion and insertion curves of every model and method, kept on disk.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

import torch

from imlkd_brain.data.crops import duration_name
from imlkd_brain.errors import UserError
from imlkd_brain.explanation.keys import OPTIONS
from imlkd_brain.explanation.map_sets import MapPlan, identity
from imlkd_brain.explanation.perturbation import (
    empty_input,
    identification_curves,
    importance_ranks,
    perturbation_outputs,
)
from imlkd_brain.explanation.scores import SHUFFLED
from imlkd_brain.explanation.tasks import seeded
from imlkd_brain.values import check_given


@dataclass
class CurvePlan:
    """How curves are made.

    Attributes
    ----------
    maps : MapPlan
        How the maps were made.
    durations : list
        Durations of the maps that curves are made of.
    units : list of str
        ``bins``, ``frames`` or both.
    n_levels : int
        Levels from 0 to 100 %.
    baselines : dict of str to list of str
        Empty inputs of the directions ``deletion`` and ``insertion``.
    blur_sigma : float
        Of the baseline ``blur``, in frames and bands.
    posterior_scale : float
        Scale of the AAM-softmax that trained the classifiers.

    Raises
    ------
    UserError
        If a duration, a unit or a baseline is unknown, or there are fewer than
        two levels.
    """

    maps: MapPlan
    durations: list
    units: list
    n_levels: int
    baselines: dict
    blur_sigma: float
    posterior_scale: float

    def __post_init__(self):
        check_given(OPTIONS, n_levels=self.n_levels, units=self.units)
        for duration in self.durations:
            if duration not in self.maps.durations:
                raise UserError(
                    f"curve_durations: {duration} is not one of the durations "
                    f"{self.maps.durations}; add it to them."
                )
        for direction, baselines in self.baselines.items():
            check_given(OPTIONS, **{f"{direction}_baselines": baselines})

    @property
    def first_duration(self):
        """The first duration of the curves, or of the maps without curves."""
        return [*self.durations, *self.maps.durations][0]


@dataclass
class Curve:
    """A curve of each utterance, or of each trial.

    Attributes
    ----------
    unit : str
        ``bins`` or ``frames``.
    direction : str
        ``deletion`` or ``insertion``.
    baseline : str
        The empty input.
    metric : str
        ``score`` or ``posterior``, ``top1`` and so on, of each utterance;
        ``eer``: the scores of the trials, from which the EER is computed.
    values : torch.Tensor
        Shape (utterances, levels) or (trials, levels).
    """

    unit: str
    direction: str
    baseline: str
    metric: str
    values: torch.Tensor

    @property
    def condition(self):
        """Unit, direction, baseline and metric as entries of a row."""
        return {
            key: value for key, value in vars(self).items() if key != "values"
        }


def all_curves(subjects, maps, duration, plan):
    """Compute, or read, the curves of every model but the shuffled control.

    Arguments
    ---------
    subjects : dict of str to Subject
        The models by name, all on the same task.
    maps : dict
        From :func:`imlkd_brain.explanation.map_sets.all_maps`.
    duration : float or str
        Seconds of the crops, or ``full``.
    plan : CurvePlan
        How curves are made.

    Returns
    -------
    curves : dict
        ``curves[name][method]`` is a list of :class:`Curve`.
    """
    names = [name for name in subjects if name != SHUFFLED]
    task = subjects[names[0]].task
    curves = {name: {} for name in names}
    options = [
        plan.units,
        plan.n_levels,
        plan.baselines,
        plan.blur_sigma,
        plan.posterior_scale,
    ]
    methods = list(plan.maps.methods)
    with plan.maps.progress(
        f"curves, {task.name}", "method", len(names) * len(methods)
    ) as progress:
        for name in names:
            for method in methods:

                def compute(name=name, method=method):
                    return compute_curves(
                        subjects[name], maps[name][duration], method, plan
                    )

                curves[name][method] = plan.maps.kept(
                    f"curves_{task.name}_{name}_{duration_name(duration)}_{method}",
                    [*identity(subjects[name], duration, plan.maps), options],
                    Curve,
                    compute,
                )
                progress.update(1)
    return curves


def compute_curves(subject, map_set, method, plan):
    """Compute deletion and insertion curves of the maps of one method.

    Arguments
    ---------
    subject : Subject
        The model and the utterances.
    map_set : MapSet
        Their maps.
    method : str
        Whose maps.
    plan : CurvePlan
        How curves are made.

    Returns
    -------
    curves : list of Curve
    """
    features = map_set.features
    levels = torch.linspace(0, 1, plan.n_levels)
    generator = seeded(plan.maps.seed, "ties")
    conditions = [
        (direction, kind)
        for direction, kinds in plan.baselines.items()
        for kind in kinds
        if kind == "zero" or baselines_differ(features, kind)
    ]
    embeddings = {}
    for indices, batch in subject.batches(features, plan.maps.batch_frames):
        maps = torch.stack([map_set.maps[method][i] for i in indices])
        for unit in plan.units:
            ranks = importance_ranks(maps.to(subject.device), unit, generator)
            for direction, kind in conditions:
                clean = batch.feats
                empty = empty_input(clean, kind, plan.blur_sigma)
                ends = (clean, empty)
                if direction == "insertion":
                    ends = (empty, clean)
                output = perturbation_outputs(
                    subject.model.embed_features,
                    *ends,
                    ranks,
                    levels,
                    plan.maps.batch_frames,
                )
                place = embeddings.setdefault(
                    (unit, direction, kind),
                    output.new_zeros(len(features), *output.shape[1:]),
                )
                place[indices] = output
    return [
        Curve(*condition, metric, values.cpu())
        for condition, output in embeddings.items()
        for metric, values in metrics_of(
            subject, output, plan.posterior_scale
        ).items()
    ]


def baselines_differ(features, kind):
    """Whether a baseline differs from ``zero`` for these features (T, F)."""
    if kind != "band_mean":
        return kind != "zero"
    return any(
        float(item.mean(0).abs().max()) > 1e-3 * float(item.std())
        for item in features
    )


@torch.no_grad()
def metrics_of(subject, embeddings, posterior_scale):
    """Compute the quantities that the curves show.

    Arguments
    ---------
    subject : Subject
        The model and the utterances.
    embeddings : torch.Tensor
        Shape (U, L, D): each utterance at each level.
    posterior_scale : float
        As in :class:`CurvePlan`.

    Returns
    -------
    metrics : dict of str to torch.Tensor
        By metric, see :class:`Curve`: (U, L), or (trials, L).
    """
    if subject.enrolled is None:
        cosines = subject.model.classify(embeddings.flatten(0, 1))
        return identification_curves(
            cosines.view(*embeddings.shape[:2], -1),
            subject.target,
            posterior_scale,
        )
    directions = torch.nn.functional.normalize(subject.enrolled, dim=-1)
    units = torch.nn.functional.normalize(embeddings, dim=-1)
    own = directions[subject.target][:, None]
    # The cosine is brought to [0, 1], so that its area is in [0, 1] too.
    metrics = {"score": (1 + (units * own).sum(-1)) / 2}
    if subject.task.trials:
        pairs = torch.tensor(
            [trial[:2] for trial in subject.task.trials], device=subject.device
        )
        metrics["eer"] = torch.stack(
            [
                (directions[pairs[:, 0]] * level[pairs[:, 1]]).sum(-1)
                for level in units.unbind(1)
            ],
            dim=1,
        )
    return metrics
