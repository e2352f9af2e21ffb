"""Explains one task: maps, curves and sanity checks of every model.

Authors: IML-KD contributors
"""

from dataclasses import dataclass

from imlkd_brain.data.crops import duration_name
from imlkd_brain.explanation.clock import Clock
from imlkd_brain.explanation.curves import all_curves, baselines_differ
from imlkd_brain.explanation.map_sets import all_maps
from imlkd_brain.explanation.sanity import all_sanity
from imlkd_brain.explanation.scores import TEACHER, Subject
from imlkd_brain.explanation.tasks import Task
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


@dataclass
class Explanation:
    """What was computed for a task.

    Attributes
    ----------
    task : Task
        The utterances.
    subjects : dict of str to Subject
        The models by name.
    maps : dict
        ``maps[name][duration]`` is a :class:`MapSet`.
    curves : dict
        ``curves[duration][name][method]`` is a list of :class:`Curve`.
    similarities : dict of str to list of Similarity
        By the name of the model.
    """

    task: Task
    subjects: dict
    maps: dict
    curves: dict
    similarities: dict

    @property
    def zero_means(self):
        """Names of durations at which the baseline ``band_mean`` is zero."""
        return [
            duration_name(duration)
            for duration in self.curves
            if not baselines_differ(
                self.maps[TEACHER][duration].features, "band_mean"
            )
        ]


def explain_task(task, models, plan, n_sanity, clock=None):
    """Compute maps, curves and sanity checks, or read those that are kept.

    Arguments
    ---------
    task : Task
        The utterances.
    models : dict of str to SpeakerModel
        The models by name, the teacher first.
    plan : CurvePlan
        How maps and curves are made.
    n_sanity : int
        Utterances of the sanity check, which is for held-out speakers only.
    clock : Clock
        Measures the stages.

    Returns
    -------
    explanation : Explanation
    """
    clock = clock or Clock()
    subjects = {name: Subject(name, models[name], task) for name in models}
    clock.lap("enrolment")
    maps = all_maps(subjects, plan.maps)
    clock.lap(f"maps ({task.name})")
    curves = {
        duration: all_curves(subjects, maps, duration, plan)
        for duration in plan.durations
    }
    clock.lap(f"curves ({task.name})")
    similarities = {}
    if task.name == "verification" and n_sanity > 0:
        duration = plan.first_duration
        similarities = all_sanity(subjects, maps, duration, n_sanity, plan.maps)
        clock.lap("sanity")
    explanation = Explanation(task, subjects, maps, curves, similarities)
    for duration in explanation.zero_means:
        logger.info(
            f"{task.name}, {duration}: the baseline band_mean is zero, since "
            "the features are normalised over the same frames."
        )
    return explanation
