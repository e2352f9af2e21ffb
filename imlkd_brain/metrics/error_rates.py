"""EER, minDCF, actual DCF and DET points: exact, O(N log N) time, O(N) memory.

:func:`EER` and :func:`minDCF` are drop-ins for SpeechBrain's functions of the
same names: the same arguments, the same returns, and the same convention.
A trial is accepted when its score is *above* the threshold, so a target is
missed at ``score <= threshold``. Candidate thresholds are the scores and the
midpoints between neighbours. Of several equally good thresholds the lowest
wins. SpeechBrain counts the errors anew for every threshold. Here the scores
are sorted once, and a binary search gives the counts.

The other measures use float64 rates from integer counts. As NIST's
definitions, they include the threshold minus infinity, which accepts every
trial. A normalised DCF is divided by
``min(c_miss * p_target, c_fa * (1 - p_target))``, the lower cost of accepting
every trial and accepting none. Its minimum is therefore at most 1.

Authors: IML-KD contributors
"""

import math

import torch


def EER(positive_scores, negative_scores):
    """Equal error rate and its threshold, as SpeechBrain defines them.

    The threshold is the lowest one at which the false rejection and the false
    acceptance rate are closest; the EER is their mean there.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials, any shape, any floating type.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.

    Returns
    -------
    eer : float
        The equal error rate, in [0, 1].
    threshold : float
        The threshold it is reached at.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.5])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> eer, threshold = EER(positive_scores, negative_scores)
    >>> eer
    0.0
    """
    thresholds, p_miss, p_fa = _speechbrain_rates(
        positive_scores, negative_scores
    )
    gap = (p_fa - p_miss).abs()
    closest = torch.nonzero(gap == gap.min()).squeeze(1)
    # A loop over the thresholds, as in SpeechBrain 1.1, compares a float32
    # gap with the float64 gap of the best threshold so far. Among equal
    # float32 gaps, one that was rounded down gives way to the next. The same
    # threshold is chosen here.
    exact_gap = (p_fa[closest].double() - p_miss[closest].double()).abs()
    not_rounded_down = torch.nonzero(exact_gap <= gap[closest].double())
    if len(not_rounded_down) > 0:
        best = int(closest[not_rounded_down[0, 0]])
    else:
        best = int(closest[-1])
    eer = (p_fa[best].item() + p_miss[best].item()) / 2
    return float(eer), float(thresholds[best])


def minDCF(
    positive_scores, negative_scores, c_miss=1.0, c_fa=1.0, p_target=0.01
):
    """Minimum of the detection cost, not normalised, as SpeechBrain defines it.

    The cost is ``c_miss * p_miss * p_target + c_fa * p_fa * (1 - p_target)``.
    For the normalised one that papers print see :func:`normalised_min_dcf`.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials, any shape, any floating type.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false acceptance.
    p_target : float
        Prior probability of a target.

    Returns
    -------
    min_dcf : float
        The lowest cost over all thresholds.
    threshold : float
        The lowest threshold that reaches it.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.5])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> min_dcf, threshold = minDCF(positive_scores, negative_scores)
    >>> min_dcf
    0.0
    """
    thresholds, p_miss, p_fa = _speechbrain_rates(
        positive_scores, negative_scores
    )
    cost = c_miss * p_miss * p_target + c_fa * p_fa * (1 - p_target)
    lowest, best = torch.min(cost, dim=0)
    return float(lowest), float(thresholds[best])


def error_rates(positive_scores, negative_scores):
    """Miss and false acceptance rate at every threshold that changes one.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.

    Returns
    -------
    thresholds : torch.Tensor
        Minus infinity, then the different scores, ascending; (T,).
    p_miss : torch.Tensor
        Share of targets at or below each threshold, float64, (T,); ascending.
    p_fa : torch.Tensor
        Share of nontargets above each threshold, float64, (T,); descending.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> positive_scores = torch.tensor([2.0, 3.0])
    >>> negative_scores = torch.tensor([1.0, 2.0])
    >>> error_rates(positive_scores, negative_scores)[2]
    tensor([1.0000, 0.5000, 0.0000, 0.0000], dtype=torch.float64)
    """
    positive, negative = check_scores(positive_scores, negative_scores)
    thresholds = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    accept_all = thresholds.new_full((1,), -math.inf)
    thresholds = torch.cat([accept_all, thresholds])
    misses, false_alarms = error_counts(positive, negative, thresholds)
    return (
        thresholds,
        misses.double() / len(positive),
        false_alarms.double() / len(negative),
    )


def normalised_min_dcf(
    positive_scores,
    negative_scores,
    p_targets=(0.01,),
    c_miss=1.0,
    c_fa=1.0,
):
    """Normalised minimum detection cost at several priors, in one pass.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.
    p_targets : sequence of float
        The prior probabilities of a target.
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false acceptance.

    Returns
    -------
    dict
        For each prior a pair (normalised minimum cost in [0, 1], threshold).

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite, or a prior
        is not between 0 and 1.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.3])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> normalised_min_dcf(positive_scores, negative_scores, [0.5])[0.5][0]
    0.25
    """
    thresholds, p_miss, p_fa = error_rates(positive_scores, negative_scores)
    results = {}
    for p_target in p_targets:
        cost, unit = detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)
        lowest, best = torch.min(cost, dim=0)
        results[p_target] = (float(lowest) / unit, float(thresholds[best]))
    return results


def actual_dcf(
    positive_scores,
    negative_scores,
    p_target=0.01,
    c_miss=1.0,
    c_fa=1.0,
    threshold=None,
):
    """Normalised detection cost at a threshold fixed beforehand.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.
    p_target : float
        Prior probability of a target.
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false acceptance.
    threshold : float, optional
        Accept above it. Without it the scores are taken for natural
        log-likelihood ratios and the threshold is Bayes',
        ``log(c_fa * (1 - p_target) / (c_miss * p_target))``.

    Returns
    -------
    float
        The normalised cost. Above 1, a constant decision would cost less.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite, or the prior
        is not between 0 and 1.

    Example
    -------
    >>> actual_dcf(torch.tensor([4.0]), torch.tensor([-4.0]), p_target=0.5)
    0.0
    """
    positive, negative = check_scores(positive_scores, negative_scores)
    check_prior(p_target)
    if threshold is None:
        threshold = math.log(c_fa * (1 - p_target) / (c_miss * p_target))
    p_miss = float((positive <= threshold).double().mean())
    p_fa = float((negative > threshold).double().mean())
    cost, unit = detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)
    return cost / unit


def det_points(positive_scores, negative_scores):
    """The corners of the detection error trade-off curve.

    Between two corners the curve is a step; points on its straight parts are
    left out, so that a list of millions of trials is drawn quickly.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.

    Returns
    -------
    p_fa : torch.Tensor
        False acceptance rates, descending from 1 to 0, float64, (K,).
    p_miss : torch.Tensor
        Miss rates, ascending from 0 to 1, float64, (K,).

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> p_fa, p_miss = det_points(torch.tensor([1.0]), torch.tensor([0.0]))
    >>> p_fa.tolist(), p_miss.tolist()
    ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    """
    _, p_miss, p_fa = error_rates(positive_scores, negative_scores)
    corner = torch.ones(len(p_miss), dtype=torch.bool, device=p_miss.device)
    along_miss = (p_fa[:-2] == p_fa[1:-1]) & (p_fa[1:-1] == p_fa[2:])
    along_fa = (p_miss[:-2] == p_miss[1:-1]) & (p_miss[1:-1] == p_miss[2:])
    corner[1:-1] = ~(along_miss | along_fa)
    return p_fa[corner], p_miss[corner]


def check_scores(positive_scores, negative_scores):
    """Flat, detached scores of one floating type; ValueError where unusable."""
    checked = []
    for kind, scores in (
        ("positive_scores", positive_scores),
        ("negative_scores", negative_scores),
    ):
        scores = torch.as_tensor(scores).detach().flatten()
        if len(scores) == 0:
            raise ValueError(f"{kind} is empty: there is no rate to compute.")
        if not scores.is_floating_point():
            scores = scores.to(torch.get_default_dtype())
        finite = torch.isfinite(scores)
        if not finite.all():
            index = int(torch.nonzero(~finite)[0])
            raise ValueError(
                f"{kind} holds {int((~finite).sum())} scores that are not "
                f"finite, the first at index {index} "
                f"({float(scores[index])})."
            )
        checked.append(scores)
    dtype = torch.promote_types(checked[0].dtype, checked[1].dtype)
    return [scores.to(dtype) for scores in checked]


def check_prior(p_target):
    """ValueError for a prior that is not between 0 and 1."""
    if not 0.0 < p_target < 1.0:
        raise ValueError(
            f"p_target must lie between 0 and 1, but it is {p_target}."
        )


def error_counts(positive, negative, thresholds):
    """Targets at or below and nontargets above each threshold, int64."""
    misses = torch.searchsorted(
        torch.sort(positive).values, thresholds, right=True
    )
    rejected = torch.searchsorted(
        torch.sort(negative).values, thresholds, right=True
    )
    return misses, len(negative) - rejected


def _speechbrain_rates(positive_scores, negative_scores):
    """Thresholds and float32 rates exactly as SpeechBrain computes them."""
    positive, negative = check_scores(positive_scores, negative_scores)
    scores = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    midpoints = (scores[:-1] + scores[1:]) / 2
    thresholds = scores.new_empty(2 * len(scores) - 1)
    thresholds[0::2], thresholds[1::2] = scores, midpoints
    if not torch.isfinite(midpoints).all():
        # The sum of two huge scores overflows: its midpoint is out of order.
        thresholds = torch.sort(thresholds).values
    misses, false_alarms = error_counts(positive, negative, thresholds)
    return (
        thresholds,
        misses.float() / len(positive),
        false_alarms.float() / len(negative),
    )


def detection_cost(p_miss, p_fa, p_target, c_miss, c_fa):
    """Detection cost, and the lower cost of accepting all trials or none."""
    check_prior(p_target)
    cost = c_miss * p_target * p_miss + c_fa * (1 - p_target) * p_fa
    return cost, min(c_miss * p_target, c_fa * (1 - p_target))
