"""Turns scores into log-likelihood ratios, trained on another list.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.errors import UserError
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


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


def score_model(scorer, lists, calibration, durations):
    """Scores of all lists at all durations.

    Returns
    -------
    scores : dict
        Scores (P,) for each list and duration.
    ratios : dict
        Log-likelihood ratios for the same; empty without calibration list.
    """
    scores, speech, ratios = {}, {}, {}
    for located in lists:
        for name, seconds in durations.items():
            key = (located.trials.name, name)
            scores[key], speech[key] = scorer.score(located, seconds)
            _, test_speech = speech[key]
            short = int((test_speech < (seconds or 0)).sum())
            if short:
                logger.info(
                    f"{key[0]}: in {short} of {len(test_speech)} trials the "
                    f"test utterance is shorter than {name} and taken whole"
                )
    if calibration is not None:
        features = []
        for seconds in durations.values():
            dev_scores, dev_speech = scorer.score(calibration, seconds)
            features.append(calibration_features(dev_scores, *dev_speech))
        weights, offset = train_calibration(
            torch.cat(features),
            calibration.trials.labels.repeat(len(durations)),
        )
        for key in scores:
            features = calibration_features(scores[key], *speech[key])
            ratios[key] = features @ weights + offset
    return scores, ratios
