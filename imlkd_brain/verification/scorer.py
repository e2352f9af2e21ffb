"""Scores whole trial lists with one model: embed, normalise, compare.

Authors: IML-KD contributors
"""

from dataclasses import dataclass, field

import torch

from imlkd_brain.data.trial_audio import LocatedTrials
from imlkd_brain.errors import UserError
from imlkd_brain.verification.calibration import (
    calibration_features,
    train_calibration,
)
from imlkd_brain.verification.scoring import (
    cohort_statistics,
    enrol_models,
    normalise_scores,
    score_trials,
)
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class BackEnd:
    """How scores are made from embeddings.

    Arguments
    ---------
    crop_enrolment : bool
        If True, crop both sides of a trial; if False, the test side only.
    mean_subtraction : bool
        Subtract the cohort's mean embedding from all embeddings.
    score_norm : str or None
        One of :data:`imlkd_brain.verification.scoring.NORMALISATIONS`.
    cohort_top : int
        Highest cohort scores that ``as-norm`` uses.
    """

    crop_enrolment: bool = False
    mean_subtraction: bool = False
    score_norm: str = None
    cohort_top: int = 300


@dataclass(frozen=True)
class Scored:
    """The scores of a list by a model, at each duration of test speech.

    Arguments
    ---------
    located : LocatedTrials
        The list.
    model : str
        The model's name.
    scores : dict
        Scores (P,) at each duration, by the duration's name.
    ratios : dict
        Log-likelihood ratios (P,) at the same durations. Empty without
        calibration.
    """

    located: LocatedTrials
    model: str
    scores: dict
    ratios: dict = field(default_factory=dict)

    @property
    def list_name(self):
        """The list's name."""
        return self.located.trials.name


class Scorer:
    """Scores of trial lists by one model.

    Arguments
    ---------
    model : SpeakerModel
        On the device to use.
    embed : callable
        ``embed(model, paths, seconds)`` gives embeddings (N, D) and seconds
        of speech (N,), as :class:`imlkd_brain.verification.embeddings.Embedder`.
    back_end : BackEnd
        How scores are made.
    cohort : sequence of str
        Files of the cohort, embedded whole.
    """

    def __init__(self, model, embed, back_end=None, cohort=()):
        self.model = model
        self.embed = embed
        self.back_end = back_end or BackEnd()
        self.mean, self.cohort = None, None
        if cohort:
            self.cohort, _ = self._embed(list(cohort), None)
            if self.back_end.mean_subtraction:
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
        pairs, norm = located.pairs, self.back_end.score_norm
        flat = [file for files in located.enrol_files for file in files]
        members, end = [], 0
        for files in located.enrol_files:
            members.append(list(range(end, end + len(files))))
            end += len(files)
        crop = seconds if self.back_end.crop_enrolment else None
        enrol, enrol_speech = self._embed(flat, crop)
        test, test_speech = self._embed(located.test_files, seconds)
        if self.mean is not None:
            enrol, test = enrol - self.mean, test - self.mean
        enrol = enrol_models(enrol, members)
        scores = score_trials(enrol, test, pairs)
        if norm:
            top = self.back_end.cohort_top if norm == "as-norm" else None
            scores = normalise_scores(
                scores,
                pairs,
                cohort_statistics(enrol, self.cohort, top),
                cohort_statistics(test, self.cohort, top),
                norm,
            )
        _check_scores(scores, located)
        enrol_speech = torch.stack([enrol_speech[m].sum() for m in members])
        speech = enrol_speech[pairs[:, 0]], test_speech[pairs[:, 1]]
        return scores.cpu(), speech

    def _embed(self, files, seconds):
        """Embeddings on the model's device, and seconds of speech."""
        embeddings, speech = self.embed(self.model, files, seconds)
        return embeddings.to(next(self.model.parameters()).device), speech


def _check_scores(scores, located):
    """Refuse scores that are not finite, and name their trials."""
    bad = torch.nonzero(~torch.isfinite(scores)).flatten().tolist()
    if bad:
        lines = ", ".join(str(located.trials.lines[i]) for i in bad[:3])
        raise UserError(
            f"{located.trials.path}: {len(bad)} scores are NaN or infinite "
            f"(lines {lines}{', ...' if len(bad) > 3 else ''}); look at the "
            "audio of these trials and of the cohort, or give another "
            "score_norm."
        )


def score_lists(name, scorer, lists, durations, calibration=None):
    """Score all lists at all durations with one model.

    Arguments
    ---------
    name : str
        The model's name.
    scorer : Scorer
        Of the model.
    lists : list of LocatedTrials
        The lists.
    durations : dict
        Seconds of test speech, None for all of it, by the duration's name.
    calibration : LocatedTrials, optional
        Dev trials that calibrate the scores.

    Returns
    -------
    list of Scored
        One for each list.
    """
    if calibration is not None:
        calibrate = _calibration(scorer, calibration, durations)
    scored = []
    for located in lists:
        scores, speech = {}, {}
        for duration, seconds in durations.items():
            scores[duration], speech[duration] = scorer.score(located, seconds)
            _, test_speech = speech[duration]
            short = int((test_speech < (seconds or 0)).sum())
            if short:
                logger.info(
                    f"{located.trials.name}: {short} of {len(test_speech)} "
                    f"trials have test utterances shorter than {duration}; "
                    "these are used whole"
                )
        ratios = {}
        if calibration is not None:
            ratios = {
                duration: calibrate(
                    calibration_features(scores[duration], *speech[duration])
                )
                for duration in durations
            }
        scored.append(Scored(located, name, scores, ratios))
    return scored


def _calibration(scorer, located, durations):
    """Train a calibration on a list at all durations together."""
    features = []
    for seconds in durations.values():
        scores, speech = scorer.score(located, seconds)
        features.append(calibration_features(scores, *speech))
    labels = located.trials.labels.repeat(len(durations))
    return train_calibration(torch.cat(features), labels)
