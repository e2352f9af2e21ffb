"""Confidence intervals from resampled speakers, and EERs of weighted trials.

Authors: IML-KD contributors
"""

import math

import torch

from imlkd_brain.metrics.error_rates import (
    _check_scores,
    check_prior,
    detection_cost,
)

BOOTSTRAP_BLOCK = 2**18  # weights held at a time, or those of
BOOTSTRAP_DRAWS = 16  # as many draws, if those are more


def replicated_means(values, speaker, counts):
    """Mean over utterances, once as it is and once per bootstrap replicate.

    Arguments
    ---------
    values : torch.Tensor
        Shape (N, ...), one row an utterance.
    speaker : torch.Tensor
        Shape (N,), the index of its speaker.
    counts : torch.Tensor
        Shape (R, S), from
        :func:`imlkd_brain.metrics.bootstrap.bootstrap_counts`.

    Returns
    -------
    mean : torch.Tensor
        Shape (...), float64.
    replicates : torch.Tensor
        Shape (R, ...), float64; NaN where no utterance was drawn.
    """
    values = values.double()
    weights = counts.to(values.device)[:, speaker]
    rows = values.flatten(1) if values.dim() > 1 else values[:, None]
    sums = weights @ rows / weights.sum(1, keepdim=True)
    return values.mean(0), sums.view(len(counts), *values.shape[1:])


def weighted_eer(scores, labels, weights):
    """EER of one list of trials under many weightings of the trials.

    The threshold is the score at which the weighted shares of false
    acceptances and false rejections are nearest, and the EER is their mean
    there. One sort serves all weightings.

    Arguments
    ---------
    scores : torch.Tensor
        Shape (K,), one per trial.
    labels : torch.Tensor
        Shape (K,), True for a target trial.
    weights : torch.Tensor
        Shape (R, K), how often each trial counts in each weighting. Whole
        numbers are counted exactly up to 2**24 in float32.

    Returns
    -------
    eer : torch.Tensor
        Shape (R,), in [0, 1]; NaN where no target or no nontarget is left.

    Example
    -------
    >>> scores = torch.tensor([0.9, 0.4, 0.6, 0.1])
    >>> labels = torch.tensor([True, True, False, False])
    >>> weighted_eer(scores, labels, torch.ones(1, 4))
    tensor([0.5000], dtype=torch.float64)
    """
    order = scores.argsort(descending=True)
    sorted_scores = scores[order]
    # index_select: several times as fast as indexing a second axis.
    weights = weights.index_select(1, order)
    if not weights.is_floating_point():
        weights = weights.double()
    is_target = labels[order].to(weights.dtype)
    # A threshold cannot part equal scores: only the last of a run counts.
    last = torch.ones_like(sorted_scores, dtype=torch.bool)
    last[:-1] = sorted_scores[1:] != sorted_scores[:-1]
    last = last.nonzero()[:, 0]
    hits, false_alarms = (
        (weights * kind).cumsum(1).index_select(1, last)
        for kind in (is_target, 1 - is_target)
    )
    n_targets, n_nontargets = hits[:, -1:], false_alarms[:, -1:]
    # Misses fall and false alarms rise with every trial accepted: the nearest
    # point is where they cross or the one before it; -1 is to accept none.
    crossed = (hits / n_targets + false_alarms / n_nontargets < 1).sum(1) - 1
    rates = []
    for step in (crossed, crossed + 1):
        step = step.clamp(max=hits.shape[1] - 1)[:, None]
        index = step.clamp(min=0)
        hit, false_alarm = (
            torch.where(step < 0, 0.0, counts.gather(1, index).double())
            / counts[:, -1:].double()
            for counts in (hits, false_alarms)
        )
        rates.append(torch.cat((1 - hit, false_alarm), 1))
    before, after = rates
    nearer = (before[:, 0] - before[:, 1]).abs() <= (
        after[:, 0] - after[:, 1]
    ).abs()
    return torch.where(nearer, before.mean(1), after.mean(1))


def interval(replicates, confidence=0.95):
    """Percentile interval of bootstrap replicates.

    Arguments
    ---------
    replicates : torch.Tensor
        Shape (R, ...).
    confidence : float
        Share of the replicates inside.

    Returns
    -------
    low, high : torch.Tensor
        Shape (...).
    """
    tail = (1 - confidence) / 2
    low, high = torch.nanquantile(
        replicates,
        torch.tensor([tail, 1 - tail], dtype=replicates.dtype),
        dim=0,
    )
    return low, high


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
    check_prior(p_target)
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
            return detection_cost(p_miss, p_fa, p_target, c_miss, c_fa)

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
