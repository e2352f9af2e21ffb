"""Turns scores into log-likelihood ratios, trained on another list.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.errors import UserError


def calibration_features(scores, enrol_seconds, test_seconds):
    """Features of each trial for the calibration.

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
        logarithm of the test side's, as a score from short speech says less;
        float64, (P, 4).
    """
    scores = scores.double().cpu()
    enrol, test = enrol_seconds.double().log(), test_seconds.double().log()
    return torch.stack([scores, enrol, test, scores * test], dim=1)


def train_calibration(features, labels):
    """Train a logistic regression from features to log-likelihood ratios.

    Targets and nontargets get the same total weight, so the log odds are the
    log-likelihood ratio. Features are standardised, so that the weak penalty
    treats them alike.

    Arguments
    ---------
    features : torch.Tensor
        Of the dev trials, (P, K).
    labels : torch.Tensor
        True for target trials, (P,).

    Returns
    -------
    callable
        Gives log-likelihood ratios (P,), float64, of features (P, K).

    Raises
    ------
    UserError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise UserError(
            "score calibration needs scikit-learn, which is not installed; "
            "run `pip install scikit-learn`, or leave calibration_list empty."
        ) from None
    regression = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1e4, class_weight="balanced", max_iter=1000),
    )
    regression.fit(features.double().numpy(), labels.cpu().numpy())

    def calibrate(features):
        return torch.from_numpy(
            regression.decision_function(features.double().numpy())
        )

    return calibrate
