"""Cllr, minimum Cllr and the ROCCH EER: how good likelihood ratios are.

Everything runs on the scores' device, except for the convex hull. Its
algorithm is sequential and runs on the CPU.

Authors: IML-KD contributors
"""

import math

import torch
from scipy.optimize import isotonic_regression

from imlkd_brain.metrics.error_rates import check_scores, error_counts


def cllr(positive_scores, negative_scores):
    """Cost of the log-likelihood ratios, in bits, over all operating points.

    ``(mean log2(1 + exp(-target)) + mean log2(1 + exp(nontarget))) / 2``
    (Brümmer and du Preez, 2006). The scores must be natural log-likelihood
    ratios; 1 is the cost of a system that always says 0.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Log-likelihood ratios of the target trials.
    negative_scores : torch.Tensor
        Log-likelihood ratios of the nontarget trials.

    Returns
    -------
    float
        The cost; 0 is perfect.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> cllr(torch.zeros(3), torch.zeros(5))
    1.0
    """
    positive, negative = check_scores(positive_scores, negative_scores)
    return _cllr(positive.double(), negative.double())


def min_cllr(positive_scores, negative_scores):
    """The lowest Cllr that any increasing map of the scores can reach.

    The map is found by pool-adjacent-violators: in each of its blocks, the
    log-likelihood ratio is the log of the ratio of the two shares.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.

    Returns
    -------
    float
        The cost in bits, between 0 and 1.

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> min_cllr(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5]))
    0.0
    """
    misses, correct_rejections = _convex_hull_counts(
        positive_scores, negative_scores
    )
    in_block_targets = misses.diff().double()
    in_block_nontargets = correct_rejections.diff().double()
    share_targets = in_block_targets / misses[-1]
    share_nontargets = in_block_nontargets / correct_rejections[-1]
    llr = share_targets.log() - share_nontargets.log()
    # A block of one kind only has an infinite ratio of the right sign and
    # costs nothing; softplus gives that 0, and 0 * 0 for the absent kind.
    bits_target = torch.nn.functional.softplus(-llr)
    bits_nontarget = torch.nn.functional.softplus(llr)
    cost = (share_targets * bits_target)[in_block_targets > 0].sum()
    cost += (share_nontargets * bits_nontarget)[in_block_nontargets > 0].sum()
    return float(cost) / (2 * math.log(2))


def rocch_eer(positive_scores, negative_scores):
    """Equal error rate on the convex hull of the ROC.

    The hull of all operating points crosses ``p_miss = p_fa`` there. Unlike
    the EER, it needs no rule for ties and steps, and it is never above 0.5.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.

    Returns
    -------
    float
        The equal error rate, in [0, 0.5].

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> rocch_eer(torch.tensor([0.0, 2.0]), torch.tensor([1.0]))
    0.3333333333333333
    """
    misses, correct_rejections = _convex_hull_counts(
        positive_scores, negative_scores
    )
    p_miss = misses.double() / misses[-1]
    p_fa = 1.0 - correct_rejections.double() / correct_rejections[-1]
    right = int(torch.nonzero(p_miss >= p_fa)[0])
    left = right - 1
    gap_left = float(p_fa[left] - p_miss[left])
    gap_right = float(p_miss[right] - p_fa[right])
    step = float(p_miss[right] - p_miss[left])
    return float(p_miss[left]) + step * gap_left / (gap_left + gap_right)


def _cllr(target_llr, nontarget_llr):
    """Cllr of float64 log-likelihood ratios, in bits."""
    softplus = torch.nn.functional.softplus
    cost = softplus(-target_llr).mean() + softplus(nontarget_llr).mean()
    return float(cost) / (2 * math.log(2))


def _convex_hull_counts(positive_scores, negative_scores):
    """Vertices of the ROC's convex hull, as integer counts.

    Returns
    -------
    misses : torch.Tensor
        Targets rejected at each vertex, ascending from 0 to all, int64, (K,).
    correct_rejections : torch.Tensor
        Nontargets rejected at each vertex, ascending from 0 to all, (K,).
    """
    positive, negative = check_scores(positive_scores, negative_scores)
    positive, negative = positive.cpu(), negative.cpu()
    scores = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    misses, false_alarms = error_counts(positive, negative, scores)
    zero = misses.new_zeros(1)
    misses = torch.cat([zero, misses])
    correct_rejections = torch.cat([zero, len(negative) - false_alarms])
    targets = misses.diff().double()
    trials = targets + correct_rejections.diff().double()
    blocks = isotonic_regression(
        (targets / trials).numpy(), weights=trials.numpy()
    ).blocks
    vertices = torch.from_numpy(blocks).long()
    return misses[vertices], correct_rejections[vertices]
