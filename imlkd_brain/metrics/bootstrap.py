"""Bootstrap over speakers: draws, resampled means and resampled error rates.

The utterances and trials of one speaker are not independent. So speakers are
drawn with replacement, and utterances and trials come with their speakers.
All draws come from :func:`bootstrap_counts`. Two systems that are measured
under the same counts are measured on the same draws, so their replicates may
be subtracted. Intervals of replicates are in
:mod:`imlkd_brain.metrics.intervals`.

Authors: IML-KD contributors
"""

import math

import torch

from imlkd_brain.metrics.error_rates import (
    check_prior,
    check_scores,
    detection_cost,
)

BOOTSTRAP_BLOCK = 2**18  # weights of trials held at a time
BOOTSTRAP_DRAWS = 16  # draws at a time, also where they hold more weights


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


def replicated_means(values, speaker, counts):
    """Mean over all utterances and over those of each bootstrap replicate.

    Arguments
    ---------
    values : torch.Tensor
        Shape (N, ...), one row an utterance.
    speaker : torch.Tensor
        Shape (N,), the index of its speaker.
    counts : torch.Tensor
        Shape (R, S), from :func:`bootstrap_counts`.

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


def bootstrap_over_speakers(scores, labels, enrol, test, counts, p_target=0.01):
    """EER and normalised minDCF under resampled speakers.

    A target trial counts as often as its speaker was drawn. A nontarget trial
    counts as often as the product of the numbers of its two speakers. The
    conventions are those of
    :func:`imlkd_brain.metrics.error_rates.error_rates`: a trial is accepted
    above the threshold, the EER is the mean of the two rates where they are
    nearest, and of several such thresholds the lowest is taken.

    Arguments
    ---------
    scores : torch.Tensor
        Shape (N,).
    labels : torch.Tensor
        Shape (N,), True for target trials.
    enrol : torch.Tensor
        Shape (N,), index of the enrolment speaker of each trial.
    test : torch.Tensor
        Shape (N,), index of the test speaker of each trial.
    counts : torch.Tensor
        Shape (R, S), how often each speaker counts in each replicate, from
        :func:`bootstrap_counts`. A row of ones gives the figures of the list
        itself.
    p_target : float
        Prior probability of a target, for the minDCF. Both costs are 1.

    Returns
    -------
    eer : torch.Tensor
        Shape (R,), float64, on the CPU, in [0, 1]. NaN for a draw without
        target or without nontarget trials.
    min_dcf : torch.Tensor
        Shape (R,), the same for the minDCF.

    Raises
    ------
    ValueError
        If there are no trials of one kind, a score is not finite, or the
        prior is not between 0 and 1.

    Example
    -------
    >>> scores = torch.tensor([0.9, 0.4, 0.6, 0.1])
    >>> labels = torch.tensor([True, True, False, False])
    >>> enrol, test = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0])
    >>> counts = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    >>> bootstrap_over_speakers(scores, labels, enrol, test, counts)[0]
    tensor([0.5000, 0.4167], dtype=torch.float64)
    """
    labels = labels.bool()
    check_scores(scores[labels], scores[~labels])
    check_prior(p_target)
    trials = _SortedTrials(scores, labels, enrol, test)
    # Many draws at a time: a call costs more than a sum over a few trials.
    rows = max(BOOTSTRAP_DRAWS, BOOTSTRAP_BLOCK // len(scores))
    eer, min_dcf = torch.full((2, len(counts)), math.nan, dtype=torch.float64)
    for start in range(0, len(counts), rows):
        part = slice(start, start + rows)
        eer[part], min_dcf[part] = trials.lowest(
            counts[part].to(scores.device), p_target
        )
    return eer, min_dcf


class _SortedTrials:
    """Trials sorted once by score, for many weightings of their speakers.

    For each draw, the weights of targets and nontargets are summed up in the
    order of the scores. The thresholds are split into blocks. Both error rates
    are monotone, so the rates at the ends of a block bound those inside. Only
    a block that may hold a better threshold than all ends is searched.
    Weights are whole numbers, so the sums are exact.
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

    def lowest(self, counts, p_target):
        """EER and normalised minDCF (R,) under counts of speakers (R, S)."""
        misses, rejected = self._cumulated(counts)
        totals = misses[:, -1:].double(), rejected[:, -1:].double()
        blocks, length = self.targets.shape
        # The first and the last threshold of each block
        p_miss, p_fa, gap = _operating_points(
            misses[:, self.targets[:, [0, -1]].flatten()],
            rejected[:, self.nontargets[:, [0, -1]].flatten()],
            totals,
        )
        lowest_gap, eer, at = _nearest(p_miss, p_fa, gap)
        place = at // 2 * length + at % 2 * (length - 1)
        cost, unit = detection_cost(p_miss, p_fa, p_target, 1.0, 1.0)
        lowest_cost = cost.amin(1)
        # No gap and no cost inside a block is below these.
        gap = torch.maximum(gap[:, 1::2], -gap[:, 0::2]).clamp(min=0.0)
        cost, _ = detection_cost(
            p_miss[:, 0::2], p_fa[:, 1::2], p_target, 1.0, 1.0
        )
        # Equal gaps of one sign are equal rates, so no lower threshold hides
        # in a block that only ties.
        row, block = torch.nonzero(
            (gap < lowest_gap[:, None]) | (cost < lowest_cost[:, None]),
            as_tuple=True,
        )
        chunk = max(1, BOOTSTRAP_BLOCK // length)
        for some, within in zip(
            row.split(chunk), block.split(chunk), strict=True
        ):
            p_miss, p_fa, gap = _operating_points(
                *(
                    sums.take(upto[within] + (some * sums.shape[1])[:, None])
                    for sums, upto in (
                        (misses, self.targets),
                        (rejected, self.nontargets),
                    )
                ),
                [total[some] for total in totals],
            )
            cost, _ = detection_cost(p_miss, p_fa, p_target, 1.0, 1.0)
            lowest_cost.scatter_reduce_(0, some, cost.amin(1), "amin")
            gap, found, at = _nearest(p_miss, p_fa, gap)
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


def _operating_points(missed, refused, totals):
    """Both error rates at thresholds, and false alarms less misses.

    The third is multiplied by both totals. It is then a whole number, so that
    no rounding decides which threshold is the nearest.
    """
    targets, nontargets = totals
    gap = (nontargets - refused) * targets - missed * nontargets
    return missed / targets, 1.0 - refused / nontargets, gap


def _nearest(p_miss, p_fa, gap):
    """Lowest absolute gap of each row, the EER there, and the column."""
    gap, at = gap.abs().min(1)
    ends = (rate.gather(1, at[:, None]) for rate in (p_fa, p_miss))
    return gap, sum(ends).squeeze(1) / 2, at
