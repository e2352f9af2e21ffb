"""Measures the threshold and calibration that a model folder carries.

They come from dev trials. A threshold chosen on the test trials would be judged
by the trials that it was fitted to, so the lists in ``trial_lists`` never give
it. The trials are scored as the model is used by the command ``imlkd``: cosines,
without a cohort.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.errors import UserError
from imlkd_brain.metrics.error_rates import EER
from imlkd_brain.models.decision import Decision, fingerprint, write_decision
from imlkd_brain.models.folder import find_inference_folder
from imlkd_brain.models.sources import is_name
from imlkd_brain.verification.report import one_word
from imlkd_brain.verification.scorer import BackEnd, Scorer

LEAST_TRIALS = 2  # of each kind
PENALTY = 1e-4  # of half the squared slope, beside the mean log loss


class NoThreshold(UserError):
    """A model whose scores no threshold fits; its trials are good ones."""


def measure_decisions(models, embed, located, durations):
    """Measure every model, also where one has learnt nothing.

    Arguments
    ---------
    models : dict
        Models by name.
    embed, located, durations
        See :func:`measure_decision`.

    Returns
    -------
    dict
        By the model's name its :class:`Decision`, or the :class:`NoThreshold`
        that says why there is none.

    Raises
    ------
    UserError
        If there are too few trials.
    """
    decisions = {}
    for name, model in models.items():
        try:
            decisions[name] = measure_decision(model, embed, located, durations)
        except NoThreshold as reason:
            decisions[name] = reason
    return decisions


def measure_decision(model, embed, located, durations):
    """Measure a model's threshold and calibration on dev trials.

    Arguments
    ---------
    model : imlkd_brain.models.speaker_model.SpeakerModel
        On the device to use.
    embed : callable
        See :class:`imlkd_brain.verification.scorer.Scorer`.
    located : LocatedTrials
        The dev trials.
    durations : dict
        Seconds of test speech by the duration's name. The first is used.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        If there are too few trials.
    NoThreshold
        If target trials do not score higher.
    """
    duration, seconds = next(iter(durations.items()))
    scores, _ = Scorer(model, embed, BackEnd()).score(located, seconds)
    return decide(
        scores,
        located.trials.labels,
        list=located.trials.name,
        duration=duration,
        fingerprint=fingerprint(model),
    )


def decide(scores, labels, **about):
    """Fit the threshold and the calibration.

    Arguments
    ---------
    scores : torch.Tensor
        Of the dev trials, (P,).
    labels : torch.Tensor
        True for target trials, (P,).
    **about
        The other entries of :class:`Decision`.

    Returns
    -------
    Decision

    Raises
    ------
    UserError
        If there are too few trials.
    NoThreshold
        If target trials do not score higher.
    """
    name = about["list"]
    targets, nontargets = scores[labels], scores[~labels]
    if min(len(targets), len(nontargets)) < LEAST_TRIALS:
        raise UserError(
            f"{name}: {len(targets)} target and {len(nontargets)} nontarget "
            f"trials are too few for a threshold; give --decision_list with "
            f"at least {LEAST_TRIALS} of each."
        )
    eer, threshold = EER(targets, nontargets)
    slope, offset = fit_line(scores, labels)
    if not slope > 0:
        raise NoThreshold(
            f"{name}: target trials do not score higher than nontarget ones, "
            "so there is no threshold to store; train the model first."
        )
    return Decision(
        threshold=float(threshold),
        slope=slope,
        offset=offset,
        eer=float(eer),
        trials=len(scores),
        **about,
    )


def fit_line(scores, labels):
    """Fit ``slope * score + offset`` to the log-likelihood ratio.

    A logistic regression in which target and nontarget trials have the same
    total weight (N. Brummer and J. du Preez, "Application-independent
    evaluation of speaker detection", 2006). The scores are standardised. A
    weak penalty keeps the slope finite where the trials are separable.

    Arguments
    ---------
    scores : torch.Tensor
        (P,).
    labels : torch.Tensor
        True for target trials, (P,).

    Returns
    -------
    slope : float
    offset : float

    Example
    -------
    >>> labels = torch.tensor([True, True, False, False])
    >>> slope, offset = fit_line(torch.tensor([3.0, 1.0, 2.0, 0.0]), labels)
    >>> slope > 0, round(slope * 1.5 + offset, 6)
    (True, 0.0)
    """
    from scipy.optimize import minimize

    scores = scores.double()
    mean, spread = scores.mean(), scores.std(correction=0).clamp(min=1e-12)
    standard = (scores - mean) / spread
    signs = torch.where(labels, 1.0, -1.0).double()
    weights = torch.where(
        labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()
    ).double()

    def loss(line):
        slope, offset = torch.from_numpy(line)
        margins = signs * (slope * standard + offset)
        value = (weights * torch.nn.functional.softplus(-margins)).sum()
        value = value + 0.5 * PENALTY * slope**2
        pull = -weights * signs * torch.sigmoid(-margins)
        gradient = torch.stack(
            [(pull * standard).sum() + PENALTY * slope, pull.sum()]
        )
        return float(value), gradient.numpy()

    found = minimize(loss, [1.0, 0.0], jac=True, tol=1e-10)
    slope = found.x[0] / float(spread)
    return float(slope), float(found.x[1] - slope * float(mean))


def write_decisions(folder, decisions, models, store):
    """Write each model's decision beside the results, and into its folder.

    Arguments
    ---------
    folder : Path
        The verification's output folder; files go to
        ``decisions/<model>/decision.json``.
    decisions : dict
        As :func:`measure_decisions` returns them.
    models : dict
        Models by name.
    store : bool
        Whether the models' folders get it as ``decision.json``. A model that
        was given by its name, which all corpora share, does not.

    Returns
    -------
    str
        What was written, a line a model.
    """
    lines = []
    for name, decision in decisions.items():
        if isinstance(decision, NoThreshold):
            lines.append(f"{name}: no threshold ({decision})")
            continue
        place = folder / "decisions" / one_word(name)
        place.mkdir(parents=True, exist_ok=True)
        write_decision(place, decision)
        where, source = place, models[name].source
        if store and not is_name(source):
            where = find_inference_folder(source)
            write_decision(where, decision)
        lines.append(
            f"{name}: one speaker above {decision.threshold:.3f} "
            f"({decision.list}, {decision.duration}; in {where})"
        )
    return "\n".join(lines)
