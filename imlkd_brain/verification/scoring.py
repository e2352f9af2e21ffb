"""Cosine scores of trials, and their normalisation with a cohort.

Tensors in, tensors out: no file and no SpeechBrain.

Authors: IML-KD contributors
"""

import torch

from imlkd_brain.precision import full_float32

COSINE_EPS = 1e-6  # smallest norm, as in SpeechBrain's SpeakerRecognition

NORMALISATIONS = ("z-norm", "t-norm", "s-norm", "as-norm")


def enrol_models(embeddings, members):
    """One embedding per enrolment model: the mean of the unit-length ones.

    Arguments
    ---------
    embeddings : torch.Tensor
        Of the utterances, (N, D).
    members : list of list of int
        Rows of each model's utterances.

    Returns
    -------
    torch.Tensor
        (models, D). A model of one utterance keeps its direction.

    Example
    -------
    >>> embeddings = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> enrol_models(embeddings, [[0], [0, 1]])
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    counts = torch.tensor([len(rows) for rows in members])
    model = torch.repeat_interleave(torch.arange(len(members)), counts)
    rows = torch.tensor([row for rows in members for row in rows])
    sums = embeddings.new_zeros(len(members), embeddings.shape[1])
    unit = unit_length(embeddings)
    sums.index_add_(0, model.to(sums.device), unit[rows.to(unit.device)])
    return sums / counts.to(sums).unsqueeze(1)


@full_float32()
def score_trials(enrol, test, pairs, block=65536):
    """Cosine score of each trial.

    Equal to ``torch.nn.CosineSimilarity(dim=-1, eps=1e-6)`` on the gathered
    rows, as SpeechBrain's ``SpeakerRecognition`` has it.

    Arguments
    ---------
    enrol : torch.Tensor
        Embeddings of the enrolment side, (N, D).
    test : torch.Tensor
        Embeddings of the test side, (M, D); may be the same tensor.
    pairs : torch.Tensor
        Row in ``enrol`` and row in ``test`` of each trial, int64, (P, 2).
    block : int
        Trials scored at a time; bounds the memory to ``2 * block * D``
        numbers.

    Returns
    -------
    torch.Tensor
        Scores in [-1, 1], (P,), on the embeddings' device.

    Example
    -------
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> pairs = torch.tensor([[0, 1], [0, 2]])
    >>> score_trials(embeddings, embeddings, pairs)
    tensor([0., 1.])
    """
    # Norms are taken once per utterance, not once per trial.
    unit_enrol = unit_length(enrol)
    unit_test = unit_enrol if test is enrol else unit_length(test)
    scores = enrol.new_empty(len(pairs))
    for start in range(0, len(pairs), block):
        part = pairs[start : start + block].to(enrol.device)
        scores[start : start + block] = torch.einsum(
            "pd,pd->p", unit_enrol[part[:, 0]], unit_test[part[:, 1]]
        )
    return scores


def unit_length(embeddings):
    """Embeddings (..., D) divided by their norms, as the cosine score does.

    Example
    -------
    >>> unit_length(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    return torch.nn.functional.normalize(embeddings, dim=-1, eps=COSINE_EPS)


@full_float32()
def cohort_statistics(embeddings, cohort, top=None, block=512):
    """Mean and standard deviation of each utterance's impostor scores.

    Over the whole cohort they need no scores: the mean of cosines is the
    cosine with the mean, and their variance a quadratic form in the cohort's
    covariance, D x D. Over the highest scores there is one product with the
    cohort for each block of utterances, so the memory is ``block * cohort``
    numbers whatever the number of utterances.

    Arguments
    ---------
    embeddings : torch.Tensor
        One side of the trials, (N, D).
    cohort : torch.Tensor
        Embeddings of other speakers, (C, D).
    top : int, optional
        Use the ``top`` highest scores of each utterance only (adaptive
        normalisation).
    block : int
        Utterances at a time.

    Returns
    -------
    mean : torch.Tensor
        (N,).
    std : torch.Tensor
        Unbiased, as ``torch.std``, (N,).

    Raises
    ------
    ValueError
        If the cohort, or ``top``, is less than two, or the cohort has fewer
        than ``top`` utterances.

    Example
    -------
    >>> cohort = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> cohort_statistics(torch.tensor([[2.0, 0.0]]), cohort)
    (tensor([0.5000]), tensor([0.7071]))
    """
    used = len(cohort) if top is None else top
    if used < 2 or used > len(cohort):
        raise ValueError(
            f"a cohort of {len(cohort)} utterances of which {used} are used "
            "has no statistics: at least two must be used, and no more than "
            "there are."
        )
    cohort = unit_length(cohort)
    # In float64, as the scores of one speaker with a cohort may differ little.
    centre = cohort.double().mean(dim=0)
    spread = cohort.double() - centre
    covariance = spread.T @ spread / (len(cohort) - 1)
    mean, std = embeddings.new_empty(2, len(embeddings))
    for start in range(0, len(embeddings), block):
        part = slice(start, start + block)
        unit = unit_length(embeddings[part])
        if top is None:
            unit = unit.double()
            mean[part] = unit @ centre
            variance = torch.einsum("nd,de,ne->n", unit, covariance, unit)
            std[part] = variance.clamp(min=0).sqrt()
        else:
            scores = torch.topk(unit @ cohort.T, top, dim=1, sorted=False)
            std[part], mean[part] = torch.std_mean(scores.values, dim=1)
    return mean, std


def normalise_scores(scores, pairs, enrol_statistics, test_statistics, method):
    """Normalise trial scores by the cohort scores of their two sides.

    ``z-norm`` uses the enrolment side's statistics, ``t-norm`` the test
    side's, ``s-norm`` the mean of both results; ``as-norm`` is s-norm with
    statistics of the closest cohort utterances (``top`` of
    :func:`cohort_statistics`).

    Arguments
    ---------
    scores : torch.Tensor
        (P,).
    pairs : torch.Tensor
        Row of each trial's enrolment and test side, int64, (P, 2).
    enrol_statistics : tuple of torch.Tensor
        Mean and standard deviation of each enrolment row.
    test_statistics : tuple of torch.Tensor
        The same of each test row.
    method : str
        One of ``z-norm``, ``t-norm``, ``s-norm``, ``as-norm``.

    Returns
    -------
    torch.Tensor
        (P,).

    Raises
    ------
    ValueError
        If the method is unknown.

    Example
    -------
    >>> statistics = torch.tensor([0.5]), torch.tensor([0.25])
    >>> pairs = torch.tensor([[0, 0]])
    >>> score = torch.tensor([1.0])
    >>> normalise_scores(score, pairs, statistics, statistics, "s-norm")
    tensor([2.])
    """
    if method not in NORMALISATIONS:
        raise ValueError(
            f"unknown score normalisation {method!r}; known are "
            f"{', '.join(NORMALISATIONS)}."
        )
    pairs = pairs.to(scores.device)
    mean, std = (values[pairs[:, 0]] for values in enrol_statistics)
    by_enrol = (scores - mean) / std
    if method == "z-norm":
        return by_enrol
    mean, std = (values[pairs[:, 1]] for values in test_statistics)
    by_test = (scores - mean) / std
    if method == "t-norm":
        return by_test
    return (by_enrol + by_test) / 2
