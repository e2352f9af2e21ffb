"""Error measures of speaker verification: exact, O(N log N), O(N) memory.

:func:`EER` and :func:`minDCF` are drop-ins for SpeechBrain's functions of the
same names: the same arguments, the same returns, and the same convention.
That convention is: a trial is accepted when its score is *above* the
threshold, so a target is missed at ``score <= threshold``; candidate
thresholds are the scores themselves and the midpoints between neighbours;
where several thresholds are equally good, the lowest wins. Where SpeechBrain
counts errors anew for every threshold, here the scores are sorted once and
the counts read off by binary search.

The other measures use float64 rates from integer counts and add the operating
point "accept everything" (threshold minus infinity), as NIST's definitions
do. A normalised DCF is divided by the cost of the better of the two systems
that do not listen, ``min(c_miss * p_target, c_fa * (1 - p_target))``, and is
therefore at most 1 at its minimum.

Everything runs on the device the scores are on, but for the convex hull,
which is a sequential algorithm and runs on the CPU.
"""

import math

import torch
from scipy.optimize import isotonic_regression

BOOTSTRAP_BLOCK = 2**18  # weights held at a time, or those of
BOOTSTRAP_DRAWS = 16  # as many draws, if those are more


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
    positive, negative = _check_scores(positive_scores, negative_scores)
    thresholds = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    accept_all = thresholds.new_full((1,), -math.inf)
    thresholds = torch.cat([accept_all, thresholds])
    misses, false_alarms = _error_counts(positive, negative, thresholds)
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
        cost, unit = _detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)
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
        The normalised cost; above 1 means worse than not listening.

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
    positive, negative = _check_scores(positive_scores, negative_scores)
    _check_prior(p_target)
    if threshold is None:
        threshold = math.log(c_fa * (1 - p_target) / (c_miss * p_target))
    p_miss = float((positive <= threshold).double().mean())
    p_fa = float((negative > threshold).double().mean())
    cost, unit = _detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)
    return cost / unit


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
    positive, negative = _check_scores(positive_scores, negative_scores)
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

    Unlike :func:`EER` it does not depend on how ties and steps are read: it
    is the point where the hull of all operating points crosses
    ``p_miss = p_fa``, and never above 0.5.

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


def det_points(positive_scores, negative_scores):
    """The corners of the detection error trade-off curve.

    Between two corners the curve is a step; points on its straight parts are
    left out, so that a list of millions of trials stays quick to draw.

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


def summary(positive_scores, negative_scores, p_targets=(0.01,)):
    """Every figure that needs scores only, by name.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of the target trials.
    negative_scores : torch.Tensor
        Scores of the nontarget trials.
    p_targets : sequence of float
        Priors of the minDCF, both costs 1.

    Returns
    -------
    dict
        ``eer``, ``eer_threshold``, ``rocch_eer``, ``min_cllr``, and for each
        prior ``min_dcf_<prior>`` (normalised) and
        ``min_dcf_speechbrain_<prior>`` (not normalised).

    Raises
    ------
    ValueError
        If there are no scores of one kind, or one is not finite.

    Example
    -------
    >>> figures = summary(torch.tensor([1.0]), torch.tensor([0.0]))
    >>> figures["eer"], figures["min_dcf_0.01"]
    (0.0, 0.0)
    """
    eer, threshold = EER(positive_scores, negative_scores)
    figures = {
        "eer": eer,
        "eer_threshold": threshold,
        "rocch_eer": rocch_eer(positive_scores, negative_scores),
        "min_cllr": min_cllr(positive_scores, negative_scores),
    }
    normalised = normalised_min_dcf(positive_scores, negative_scores, p_targets)
    for p_target in p_targets:
        figures[f"min_dcf_{p_target:g}"] = normalised[p_target][0]
        figures[f"min_dcf_speechbrain_{p_target:g}"] = minDCF(
            positive_scores, negative_scores, p_target=p_target
        )[0]
    return figures


def bootstrap_over_speakers(
    scores,
    labels,
    enrol_speakers,
    test_speakers,
    p_target=0.01,
    c_miss=1.0,
    c_fa=1.0,
    samples=1000,
    seed=0,
):
    """EER and normalised minDCF on resampled speakers.

    Trials of one speaker stand and fall together, so resampling trials makes
    intervals that are far too narrow. Here speakers are drawn with
    replacement: a target trial counts as often as its speaker was drawn, a
    nontarget trial as often as the product of its two speakers' numbers.
    With the same trials and seed, two systems are measured on the same draws,
    so their replicates may be subtracted.

    Arguments
    ---------
    scores : torch.Tensor
        Scores, (N,).
    labels : torch.Tensor
        True for target trials, (N,).
    enrol_speakers : torch.Tensor
        Index of the enrolment speaker of each trial, integers from 0, (N,).
    test_speakers : torch.Tensor
        Index of the test speaker of each trial, (N,).
    p_target : float
        Prior probability of a target, for the minDCF.
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false acceptance.
    samples : int
        How many times the speakers are drawn.
    seed : int
        Seed of the draws.

    Returns
    -------
    dict
        ``eer`` and ``min_dcf``: replicates, float64 tensors (samples,). A draw
        without target or without nontarget trials gives NaN.

    Raises
    ------
    ValueError
        If there are no trials of one kind, or a score is not finite.

    Example
    -------
    >>> scores = torch.tensor([2.0, 3.0, 0.0, 1.0])
    >>> labels = torch.tensor([True, True, False, False])
    >>> enrol = torch.tensor([0, 1, 0, 1])
    >>> test = torch.tensor([0, 1, 1, 0])
    >>> draws = bootstrap_over_speakers(scores, labels, enrol, test, samples=9)
    >>> draws["eer"].nanmean().item()
    0.0
    """
    labels = labels.bool()
    _check_scores(scores[labels], scores[~labels])
    _check_prior(p_target)
    speakers = int(torch.maximum(enrol_speakers.max(), test_speakers.max())) + 1
    trials = _SortedTrials(scores, labels, enrol_speakers, test_speakers)
    counts = bootstrap_counts(
        speakers, samples, torch.Generator().manual_seed(seed)
    )
    replicates = {
        "eer": torch.full((samples,), math.nan, dtype=torch.float64),
        "min_dcf": torch.full((samples,), math.nan, dtype=torch.float64),
    }
    # Many draws at a time: a call costs more than a sum over a few trials.
    rows = max(BOOTSTRAP_DRAWS, BOOTSTRAP_BLOCK // len(scores))
    for start in range(0, samples, rows):
        eer, min_dcf = trials.lowest(
            counts[start : start + rows].to(scores.device),
            p_target,
            c_miss,
            c_fa,
        )
        replicates["eer"][start : start + rows] = eer.cpu()
        replicates["min_dcf"][start : start + rows] = min_dcf.cpu()
    return replicates


def bootstrap_counts(n_speakers, n_replicates, generator=None):
    """How often each speaker is drawn in each bootstrap replicate.

    Speakers, not utterances or trials, are drawn with replacement: those of
    one speaker are not independent.

    Arguments
    ---------
    n_speakers : int
        Number of speakers.
    n_replicates : int
        Number of replicates R.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    counts : torch.Tensor
        Shape (R, S), float64, rows sum to S.

    Example
    -------
    >>> bootstrap_counts(5, 2).sum(1).tolist()
    [5.0, 5.0]
    """
    draws = torch.randint(
        n_speakers, (n_replicates, n_speakers), generator=generator
    )
    counts = torch.zeros(n_replicates, n_speakers, dtype=torch.float64)
    return counts.scatter_add_(
        1, draws, torch.ones(draws.shape, dtype=torch.float64)
    )


class _SortedTrials:
    """Trials sorted once by score, for many weightings of their speakers.

    A draw sums up the weights of the targets and those of the nontargets in
    the order of the scores. Thresholds lie in blocks, and as both error rates
    are monotone, those at the ends of a block bound those inside. Only a block
    that may hold a better threshold than all ends is looked at threshold by
    threshold. Weights are whole numbers, so that sums are exact.
    """

    def __init__(self, scores, labels, enrol, test):
        order = torch.argsort(scores)
        ordered, labels = scores[order], labels[order]
        # A threshold cannot part equal scores: only the last of a run counts.
        last = torch.ones_like(labels)
        last[:-1] = ordered[:-1] != ordered[1:]
        self.sums = self.weights = None
        # int32 halves what a draw reads.
        self.target = enrol[order][labels].int()
        self.enrol = enrol[order][~labels].int()
        self.test = test[order][~labels].int()
        # Trials of each kind up to each threshold; the first accepts all.
        upto = [
            torch.nn.functional.pad(kind.cumsum(0)[last], (1, 0))
            for kind in (labels, ~labels)
        ]
        # The two steps cost the same where a block has as many thresholds as
        # there are blocks. The last block ends with repeats of its last one.
        length = math.ceil(math.sqrt(len(upto[0])))
        missing = -len(upto[0]) % length
        self.targets, self.nontargets = (
            torch.cat([n, n[-1:].expand(missing)]).view(-1, length)
            for n in upto
        )

    def _cumulated(self, counts):
        """Weights of both kinds up to each trial, (R, 1 + trials of it)."""
        rows = len(counts)
        # int32 takes half the time, and holds all but absurd draws.
        most = float(counts.max()) ** 2 * max(len(self.target), len(self.enrol))
        kind = torch.int32 if most < 2**31 else torch.int64
        counts = counts.to(kind)
        if (
            self.sums is None
            or len(self.sums[0]) < rows
            or self.weights.dtype != kind
        ):
            # Kept: new memory in every block of draws costs as much as the
            # sums themselves.
            self.sums = [
                counts.new_zeros(rows, 1 + len(speakers))
                for speakers in (self.target, self.enrol)
            ]
            self.weights = counts.new_empty(2, len(self.enrol))
        misses, rejected = (sums[:rows] for sums in self.sums)
        first, second = self.weights
        # Row by row: indexing one axis is several times as fast as the second.
        for drawn, missed, refused in zip(
            counts, misses, rejected, strict=True
        ):
            torch.cumsum(
                drawn.index_select(0, self.target),
                0,
                dtype=kind,
                out=missed[1:],
            )
            torch.index_select(drawn, 0, self.enrol, out=first)
            torch.index_select(drawn, 0, self.test, out=second)
            torch.cumsum(first.mul_(second), 0, dtype=kind, out=refused[1:])
        return misses, rejected

    def lowest(self, counts, p_target, c_miss, c_fa):
        """EER and normalised minDCF (R,) under counts of speakers (R, S)."""
        misses, rejected = self._cumulated(counts)
        totals = misses[:, -1:].double(), rejected[:, -1:].double()

        def rates(missed, refused, totals):
            return missed / totals[0], 1.0 - refused / totals[1]

        def cost_of(p_miss, p_fa):
            return _detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)

        def nearest_of(p_miss, p_fa):
            """Lowest gap of a row, the EER there, and the column."""
            gap, at = (p_fa - p_miss).abs().min(1)
            ends = (rate.gather(1, at[:, None]) for rate in (p_fa, p_miss))
            return gap, sum(ends).squeeze(1) / 2, at

        blocks, length = self.targets.shape
        p_miss, p_fa = rates(
            misses[:, self.targets[:, [0, -1]].flatten()],
            rejected[:, self.nontargets[:, [0, -1]].flatten()],
            totals,
        )
        lowest_gap, eer, at = nearest_of(p_miss, p_fa)
        place = at // 2 * length + at % 2 * (length - 1)
        cost, unit = cost_of(p_miss, p_fa)
        lowest_cost = cost.amin(1)
        # No gap and no cost inside a block is below these.
        gap = p_fa - p_miss
        gap = torch.maximum(gap[:, 1::2], -gap[:, 0::2]).clamp(min=0.0)
        cost = cost_of(p_miss[:, 0::2], p_fa[:, 1::2])[0]
        # Comparisons with the NaN of a draw without a kind are false.
        row, block = torch.nonzero(
            (gap < lowest_gap[:, None]) | (cost < lowest_cost[:, None]),
            as_tuple=True,
        )
        chunk = max(1, BOOTSTRAP_BLOCK // length)
        for some, within in zip(
            row.split(chunk), block.split(chunk), strict=True
        ):
            p_miss, p_fa = rates(
                *(
                    sums.take(upto[within] + (some * sums.shape[1])[:, None])
                    for sums, upto in (
                        (misses, self.targets),
                        (rejected, self.nontargets),
                    )
                ),
                [total[some] for total in totals],
            )
            cost = cost_of(p_miss, p_fa)[0].amin(1)
            lowest_cost.scatter_reduce_(0, some, cost, "amin")
            gap, found, at = nearest_of(p_miss, p_fa)
            at += within * length
            # Of equally near thresholds the lowest wins.
            nearest = lowest_gap.scatter_reduce(0, some, gap, "amin")
            place[nearest < lowest_gap] = blocks * length
            tied = gap == nearest[some]
            first = place.scatter_reduce(0, some[tied], at[tied], "amin")
            chosen = tied & (at == first[some])
            eer[some[chosen]] = found[chosen]
            lowest_gap, place = nearest, first
        return eer, lowest_cost / unit


def confidence_interval(replicates, confidence=0.95):
    """Percentile interval of bootstrap replicates.

    Arguments
    ---------
    replicates : torch.Tensor
        Values of :func:`bootstrap_over_speakers`, (samples,); NaN is left out.
    confidence : float
        Share of the replicates the interval holds.

    Returns
    -------
    low : float
        Lower end.
    high : float
        Upper end.

    Raises
    ------
    ValueError
        If every replicate is NaN.

    Example
    -------
    >>> confidence_interval(torch.arange(101.0), confidence=0.5)
    (25.0, 75.0)
    """
    values = replicates[~replicates.isnan()].double()
    if len(values) == 0:
        raise ValueError(
            "no draw of speakers held both target and nontarget trials: "
            "an interval needs more speakers."
        )
    tail = (1.0 - confidence) / 2
    ends = torch.tensor([tail, 1.0 - tail], dtype=torch.float64)
    low, high = torch.quantile(values, ends.to(values.device)).tolist()
    return low, high


def _check_scores(positive_scores, negative_scores):
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


def _check_prior(p_target):
    """ValueError for a prior that is not between 0 and 1."""
    if not 0.0 < p_target < 1.0:
        raise ValueError(
            f"p_target must lie between 0 and 1, but it is {p_target}."
        )


def _error_counts(positive, negative, thresholds):
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
    positive, negative = _check_scores(positive_scores, negative_scores)
    scores = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    midpoints = (scores[:-1] + scores[1:]) / 2
    thresholds = scores.new_empty(2 * len(scores) - 1)
    thresholds[0::2], thresholds[1::2] = scores, midpoints
    if not torch.isfinite(midpoints).all():
        # The sum of two huge scores overflows: its midpoint is out of order.
        thresholds = torch.sort(thresholds).values
    misses, false_alarms = _error_counts(positive, negative, thresholds)
    return (
        thresholds,
        misses.float() / len(positive),
        false_alarms.float() / len(negative),
    )


def _detection_cost(p_miss, p_fa, p_target, c_miss, c_fa):
    """Detection cost, and the cost of the better system that does not listen."""
    _check_prior(p_target)
    cost = c_miss * p_target * p_miss + c_fa * (1 - p_target) * p_fa
    return cost, min(c_miss * p_target, c_fa * (1 - p_target))


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
    positive, negative = _check_scores(positive_scores, negative_scores)
    positive, negative = positive.cpu(), negative.cpu()
    scores = torch.unique_consecutive(
        torch.sort(torch.cat([positive, negative])).values
    )
    misses, false_alarms = _error_counts(positive, negative, scores)
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
