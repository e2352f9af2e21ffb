"""The three levels of IML-KD, the methods it is compared with, their weights.

Shapes: logits (B, C), already scaled (30 times the cosine, without margin),
embeddings (B, D). ``p = softmax(z / tau)`` and ``P`` the matrix of its rows;
``_s`` is the student, ``_t`` the teacher. No gradient reaches the teacher.

Autocast of the caller does not reach these losses. Those of logits compute in
float64 (float32 where the device has no other) and return float32 or better:
they are differences of posteriors, small against what is subtracted when the
student comes close to its teacher.

Reference
---------
Yang, Wei, Lu, Lu and Li, "Integrated Multi-Level Knowledge Distillation for
Enhanced Speaker Verification", arXiv 2409.09389 (2024).
"""

import functools
import math
import numbers

import torch
import torch.nn.functional as F

from imlkd_brain.errors import UserError

BRANCHES = ("raw", "integrated", "cross")
TERMS = (
    "instance",
    "embedding",
    "class",
    "batch",
    "multi_level",
    "decoupled",
    "correlation",
)
ETA_SCHEDULES = ("constant", "linear", "cosine")

# The terms that relate the items of a batch to each other.
_RELATIONAL = ("class", "batch", "multi_level", "correlation")


def _in_float64(loss):
    """Run a loss of logits in float64, autocast off, the teacher detached."""

    @functools.wraps(loss)
    def wrapper(student_logits, teacher_logits, *args, **kwargs):
        device = student_logits.device.type
        widest = torch.float32 if device == "mps" else torch.float64
        with torch.autocast(device, enabled=False):
            value = loss(
                student_logits.to(widest),
                teacher_logits.detach().to(widest),
                *args,
                **kwargs,
            )
        return value.to(
            torch.promote_types(student_logits.dtype, torch.float32)
        )

    return wrapper


@_in_float64
def instance_loss(student_logits, teacher_logits, temperature):
    """Posteriors of each utterance: ``tau^2 * mean_i KL(p_t,i || p_s,i)``.

    ``tau^2`` keeps the gradient's size when the temperature changes. This is
    also vanilla KD: Hinton, Vinyals and Dean, "Distilling the Knowledge in a
    Neural Network", arXiv 1503.02531 (2015).

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Example
    -------
    >>> logits = torch.tensor([[30.0, 0.0]])
    >>> instance_loss(logits, logits, temperature=2)
    tensor(0.)
    """
    return temperature**2 * F.kl_div(
        torch.log_softmax(student_logits / temperature, dim=1),
        torch.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


vanilla_kd_loss = instance_loss


def embedding_loss(student, teacher, projection=None):
    """Direction of the embeddings: ``mean_i |n(W e_s,i) - n(e_t,i)|^2``.

    ``n`` scales to unit length, so this is ``2 - 2 cos``, in [0, 4]. ``W`` is
    learnt and needed where the dimensions differ.

    Arguments
    ---------
    student : torch.Tensor
        Shape (B, D_s).
    teacher : torch.Tensor
        Shape (B, D_t).
    projection : torch.nn.Module, optional
        From (B, D_s) to (B, D_t), such as ``torch.nn.Linear(D_s, D_t,
        bias=False)``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality.

    Raises
    ------
    UserError
        If the dimensions do not meet.

    Example
    -------
    >>> student = torch.tensor([[2.0, 0.0]])
    >>> embedding_loss(student, torch.tensor([[0.0, 5.0]]))
    tensor(2.)
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.to(dtype), teacher.detach().to(dtype)
        if projection is not None:
            student = projection(student)
        if student.shape != teacher.shape:
            raise UserError(
                f"The student's embeddings are {tuple(student.shape)} and the "
                f"teacher's {tuple(teacher.shape)}: give the embedding term a "
                "projection from the one dimension to the other."
            )
        difference = F.normalize(student, dim=1) - F.normalize(teacher, dim=1)
        return difference.square().sum(1).mean()


@_in_float64
def class_loss(student_logits, teacher_logits, temperature):
    """Relations between classes: ``|P_t' P_t - P_s' P_s|_F^2 / C``.

    The C x C matrices are never built. With ``D = P_s - P_t`` and ``M = (P_s +
    P_t) / 2``, ``P_s' P_s - P_t' P_t = M' D + D' M`` exactly, and so::

        |M'D + D'M|_F^2 = 2 <M M', D D'>_F + 2 <D M', (D M')'>_F

    three B x B products. Every term is of second order in ``D``, so nothing
    cancels when the student comes close to the teacher, unlike in ``|P_t
    P_t'|^2 + |P_s P_s'|^2 - 2 |P_s P_t'|^2``.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality and for B permuted alike in both.

    Example
    -------
    >>> student = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> teacher = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    >>> class_loss(student, teacher, temperature=1)
    tensor(1.)
    """
    mean, difference = _mean_and_difference(
        student_logits, teacher_logits, temperature
    )
    cross = difference @ mean.T
    squared = ((mean @ mean.T) * (difference @ difference.T)).sum()
    return 2 * (squared + (cross * cross.T).sum()) / mean.shape[1]


@_in_float64
def batch_loss(student_logits, teacher_logits, temperature):
    """Relations between utterances: ``|P_t P_t' - P_s P_s'|_F^2 / B``.

    With ``D`` and ``M`` of :func:`class_loss` the difference of the two Gram
    matrices is ``D M' + (D M')'`` exactly: one B x B product.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality and for C permuted in one of them.

    Example
    -------
    >>> student = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> teacher = torch.tensor([[50.0, 0.0], [50.0, 0.0]])
    >>> batch_loss(student, teacher, temperature=1)
    tensor(1.)
    """
    mean, difference = _mean_and_difference(
        student_logits, teacher_logits, temperature
    )
    cross = difference @ mean.T
    return (cross + cross.T).square().sum() / len(mean)


def multi_level_kd_loss(
    student_logits, teacher_logits, temperatures=(2, 3, 4, 5, 6)
):
    """The three levels on plain inputs, summed over temperatures.

    ``sum_tau [instance(tau) + class(tau) + batch(tau)]``, ``tau^2`` on the
    instance term only. Jin, Wang and Lin, "Multi-Level Logit Distillation",
    CVPR 2023, without its confidence masks.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperatures : iterable of float
        Every ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality.

    Example
    -------
    >>> logits = torch.rand(4, 10)
    >>> multi_level_kd_loss(logits, logits)
    tensor(0.)
    """
    return sum(
        level(student_logits, teacher_logits, temperature)
        for temperature in temperatures
        for level in (instance_loss, class_loss, batch_loss)
    )


@_in_float64
def decoupled_kd_loss(
    student_logits, teacher_logits, target, alpha, beta, temperature=1
):
    """KD with the target and the non-target speakers weighed apart.

    ::

        tau^2 * mean_i [alpha KL(b_t || b_s) + beta KL(q_t || q_s)]

    ``b = (p_y, 1 - p_y)`` is the binary posterior of the true speaker and
    ``q`` the posterior among the others. ``alpha = 1``, ``beta = 1 - p_t,y``
    is vanilla KD; a larger ``beta`` emphasises the non-target speakers. Zhao,
    Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", CVPR 2022.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C), C at least 2.
    teacher_logits : torch.Tensor
        Shape (B, C).
    target : torch.Tensor
        True classes, shape (B,), int64.
    alpha : float or torch.Tensor
        Weight of the target part, a number or shape (B,).
    beta : float or torch.Tensor
        Weight of the non-target part, a number or shape (B,).
    temperature : float
        ``tau``.

    Returns
    -------
    torch.Tensor
        Scalar in nats, zero at equality.

    Example
    -------
    >>> logits = torch.tensor([[3.0, 1.0, 0.0]])
    >>> decoupled_kd_loss(logits, logits, torch.tensor([0]), alpha=1, beta=8)
    tensor(0.)
    """
    binary_student, others_student = _decouple(
        student_logits / temperature, target
    )
    binary_teacher, others_teacher = _decouple(
        teacher_logits / temperature, target
    )
    binary = _kl(binary_teacher, binary_student)
    others = _kl(others_teacher, others_student)
    return temperature**2 * (alpha * binary + beta * others).mean()


@_in_float64
def dist_loss(student_logits, teacher_logits, temperature, beta, gamma):
    """DIST: Pearson correlation within utterances and within classes.

    ::

        beta * mean_i [1 - corr(P_s[i, :], P_t[i, :])]
        + gamma * mean_c [1 - corr(P_s[:, c], P_t[:, c])]

    Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger
    Teacher", NeurIPS 2022. A row or column that is constant in one of the two
    has no correlation and counts zero.

    Arguments
    ---------
    student_logits : torch.Tensor
        Shape (B, C).
    teacher_logits : torch.Tensor
        Shape (B, C).
    temperature : float
        ``tau``.
    beta : float
        Weight of the relation between classes within an utterance.
    gamma : float
        Weight of the relation between utterances within a class.

    Returns
    -------
    torch.Tensor
        Scalar, zero at equality, at most ``2 * (beta + gamma)``.

    Example
    -------
    >>> student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> dist_loss(student, student.flip(0), temperature=1, beta=1, gamma=0)
    tensor(2.)
    """
    student = _posteriors(student_logits, temperature)
    teacher = _posteriors(teacher_logits, temperature)
    within_utterances = _one_minus_correlation(student, teacher, dim=1)
    within_classes = _one_minus_correlation(student, teacher, dim=0)
    return beta * within_utterances.mean() + gamma * within_classes.mean()


class DistillationObjective:
    """``eta * sum_k w_k L_k`` over the branches and terms of one method.

    A method is a set of overrides: which terms act on which branch, and with
    which weights. The speaker loss on the training chunks is not part of it.

    ============== ========================== =============================
    branch         the student sees           the teacher sees
    ============== ========================== =============================
    ``raw``        the training chunk ``x``   ``x``
    ``integrated`` ``I(x_d)`` of a segment    the same ``I(x_d)``
    ``cross``      ``I(x_d)`` of a segment    all of ``x``, unweighted
    ============== ========================== =============================

    ``cross`` is ours: the segment has to give what the whole chunk gives, as
    in teacher-student learning for short utterances (Jung, Heo, Shim and Yu,
    ASRU 2019, arXiv 1810.10884), here with integrated inputs and all levels.

    =============== ======================================
    ``instance``    :func:`instance_loss`
    ``embedding``   :func:`embedding_loss`
    ``class``       :func:`class_loss`
    ``batch``       :func:`batch_loss`
    ``multi_level`` :func:`multi_level_kd_loss`
    ``decoupled``   :func:`decoupled_kd_loss`
    ``correlation`` :func:`dist_loss`
    =============== ======================================

    Arguments
    ---------
    method : str
        A key of ``methods``.
    methods : dict
        ``{method: {branch: {term: weight}}}``; a branch left out has no terms,
        a weight of zero leaves a term out.
    temperature : float or list of float
        ``tau`` of all terms of posteriors but ``multi_level``; each is summed
        over a list.
    temperatures : list of float
        Those of ``multi_level``. It is ``instance``, ``class`` and ``batch``
        of that list, under one weight.
    decoupled_alpha : float
        Weight of the target part of ``decoupled``.
    decoupled_beta : float
        Weight of its non-target part.
    correlation_beta : float
        Weight of ``correlation`` within utterances.
    correlation_gamma : float
        Weight of ``correlation`` within classes.
    eta : float
        Weight of the whole against the speaker loss.
    eta_warmup_steps : int
        Updates over which ``eta`` grows linearly from near zero.
    eta_schedule : str
        After the warm-up ``constant``, or a ``linear`` or ``cosine`` fall to
        zero at ``eta_total_steps``.
    eta_total_steps : int or None
        Updates of the whole training; not read by ``constant``.

    Raises
    ------
    UserError
        For an unknown method, branch or term (listing those there are) or a
        value out of range.

    Example
    -------
    >>> objective = DistillationObjective(
    ...     method="vanilla_kd",
    ...     methods={"scratch": {}, "vanilla_kd": {"raw": {"instance": 1.0}}},
    ...     temperature=1.0, temperatures=[2, 3], decoupled_alpha=1.0,
    ...     decoupled_beta=8.0, correlation_beta=1.0, correlation_gamma=1.0,
    ...     eta=2.0, eta_warmup_steps=0, eta_schedule="constant",
    ...     eta_total_steps=None,
    ... )
    >>> objective.terms, objective.needs("raw"), objective.needs("integrated")
    (['raw/instance'], True, False)
    >>> logits = torch.tensor([[5.0, 0.0]], requires_grad=True)
    >>> terms = objective.branch_terms("raw", logits, torch.zeros(1, 2))
    >>> loss, weighted = objective.weighted(terms, step=0)
    >>> bool(loss == 2 * terms["raw/instance"])
    True
    """

    def __init__(
        self,
        method,
        methods,
        temperature,
        temperatures,
        decoupled_alpha,
        decoupled_beta,
        correlation_beta,
        correlation_gamma,
        eta,
        eta_warmup_steps,
        eta_schedule,
        eta_total_steps,
    ):
        self.method = method
        self.weights = _read_method(method, methods)
        self.terms = list(self.weights)
        if not isinstance(temperature, list | tuple):
            temperature = [temperature]
        if not temperature:
            raise UserError(
                "temperature is an empty list, but posteriors need at least "
                "one: give a number such as 4.0 or a list of them."
            )
        for value in temperature:
            _check_number("temperature", value, above=0)
        if not isinstance(temperatures, list | tuple) or not temperatures:
            raise UserError(
                f"temperatures is {temperatures!r}, but multi-level KD sums "
                "over a list such as [2, 3, 4, 5, 6]."
            )
        for value in temperatures:
            _check_number("each of temperatures", value, above=0)
        for key, value in (
            ("decoupled_alpha", decoupled_alpha),
            ("decoupled_beta", decoupled_beta),
            ("correlation_beta", correlation_beta),
            ("correlation_gamma", correlation_gamma),
            ("eta", eta),
            ("eta_warmup_steps", eta_warmup_steps),
        ):
            _check_number(key, value)
        if eta_schedule not in ETA_SCHEDULES:
            raise UserError(
                f"eta_schedule is {eta_schedule!r}, but must be one of "
                f"{', '.join(ETA_SCHEDULES)}."
            )
        if eta_schedule != "constant":
            _check_number(
                "eta_total_steps", eta_total_steps, above=eta_warmup_steps
            )
        self.temperature = tuple(temperature)
        self.temperatures = tuple(temperatures)
        self.decoupled_alpha = decoupled_alpha
        self.decoupled_beta = decoupled_beta
        self.correlation_beta = correlation_beta
        self.correlation_gamma = correlation_gamma
        self.eta = eta
        self.eta_warmup_steps = eta_warmup_steps
        self.eta_schedule = eta_schedule
        self.eta_total_steps = eta_total_steps

    def needs(self, branch):
        """Whether any term acts on a branch.

        Arguments
        ---------
        branch : str
            ``raw``, ``integrated`` or ``cross``.

        Returns
        -------
        bool

        Raises
        ------
        UserError
            For another branch.
        """
        return bool(self._terms_of(branch))

    @property
    def needs_teacher(self):
        """Whether there is any term at all."""
        return bool(self.terms)

    @property
    def needs_embeddings(self):
        """Whether any term compares embeddings (and may need a projection)."""
        return any(name.endswith("/embedding") for name in self.terms)

    def check(self, batch_size, durations, chunk=math.inf):
        """Say before training what would make a term meaningless.

        Arguments
        ---------
        batch_size : int
            Utterances per batch.
        durations : list of float
            Seconds, as the integrated inputs have them.
        chunk : float
            Seconds of a training chunk, of which segments are cut; no limit
            without.

        Raises
        ------
        UserError
            For a relational term in batches of one, or integrated inputs
            without a duration or with one longer than the chunk.
        """
        relational = [
            name for name in self.terms if name.split("/")[1] in _RELATIONAL
        ]
        if relational and batch_size < 2:
            raise UserError(
                f"batch_size is {batch_size}, but {relational[0]} of method "
                f"{self.method} relates the utterances of a batch: use at "
                "least 2."
            )
        segments = self.needs("integrated") or self.needs("cross")
        if segments and not durations:
            raise UserError(
                f"durations is empty, but method {self.method} draws segments "
                "of various durations: give a list of seconds such as "
                "[1.0, 2.0, 3.0]."
            )
        if segments and max(durations) > chunk:
            raise UserError(
                f"durations: {max(durations):g} s is longer than a training "
                f"chunk (sentence_len: {chunk:g} s), so segments of that "
                "length cannot be cut; lower it, or raise sentence_len."
            )

    def branch_terms(
        self,
        branch,
        student_logits,
        teacher_logits,
        student_embeddings=None,
        teacher_embeddings=None,
        target=None,
        projection=None,
    ):
        """The unweighted terms of one branch.

        Arguments
        ---------
        branch : str
            ``raw``, ``integrated`` or ``cross``.
        student_logits : torch.Tensor
            Shape (B, C).
        teacher_logits : torch.Tensor
            Shape (B, C).
        student_embeddings : torch.Tensor, optional
            Shape (B, D_s), for ``embedding``.
        teacher_embeddings : torch.Tensor, optional
            Shape (B, D_t), for ``embedding``.
        target : torch.Tensor, optional
            Shape (B,), int64, for ``decoupled``.
        projection : torch.nn.Module, optional
            From (B, D_s) to (B, D_t), for ``embedding``.

        Returns
        -------
        dict of str to torch.Tensor
            ``branch/term`` to a scalar, in the order of ``terms``.
        """
        logits = (student_logits, teacher_logits)

        def summed(loss, **options):
            return sum(
                loss(*logits, temperature=temperature, **options)
                for temperature in self.temperature
            )

        losses = {
            "instance": lambda: summed(instance_loss),
            "embedding": lambda: embedding_loss(
                student_embeddings, teacher_embeddings, projection
            ),
            "class": lambda: summed(class_loss),
            "batch": lambda: summed(batch_loss),
            "multi_level": lambda: multi_level_kd_loss(
                *logits, self.temperatures
            ),
            "decoupled": lambda: summed(
                decoupled_kd_loss,
                target=target,
                alpha=self.decoupled_alpha,
                beta=self.decoupled_beta,
            ),
            "correlation": lambda: summed(
                dist_loss,
                beta=self.correlation_beta,
                gamma=self.correlation_gamma,
            ),
        }
        return {
            f"{branch}/{term}": losses[term]()
            for term in self._terms_of(branch)
        }

    def weighted(self, terms, step):
        """The distillation loss and what each term adds to it.

        Arguments
        ---------
        terms : dict of str to torch.Tensor
            From :meth:`branch_terms`, of all branches in use.
        step : int
            Updates done so far.

        Returns
        -------
        loss : torch.Tensor
            Scalar ``eta(step) * sum_k w_k L_k``; zero without terms.
        weighted : dict of str to torch.Tensor
            ``eta(step) * w_k * L_k`` of each term; they sum to ``loss``.
        """
        eta = self.eta_at(step)
        weighted = {
            name: eta * self.weights[name] * value
            for name, value in terms.items()
        }
        if not weighted:
            return torch.zeros(()), weighted
        return sum(weighted.values()), weighted

    def eta_at(self, step):
        """``eta`` after ``step`` updates: warm-up, then the schedule.

        Arguments
        ---------
        step : int
            Updates done so far.

        Returns
        -------
        float
            The weight of the distillation loss in the next update.
        """
        if step < self.eta_warmup_steps:
            return self.eta * (step + 1) / (self.eta_warmup_steps + 1)
        if self.eta_schedule == "constant":
            return self.eta
        length = self.eta_total_steps - self.eta_warmup_steps
        done = min(1.0, (step - self.eta_warmup_steps) / length)
        if self.eta_schedule == "linear":
            return self.eta * (1 - done)
        return self.eta * (1 + math.cos(math.pi * done)) / 2

    def _terms_of(self, branch):
        """Names of the terms on one branch."""
        if branch not in BRANCHES:
            raise UserError(
                f"There is no branch {branch!r}: use one of "
                f"{', '.join(BRANCHES)}."
            )
        return [
            name.split("/")[1]
            for name in self.terms
            if name.startswith(f"{branch}/")
        ]


def gradient_shares(weighted_terms, parameters, retain_graph=True):
    """Each weighted term's part in the gradient of some parameters.

    ``|g_k| / sum_j |g_j|`` with ``g_k`` the gradient of term k alone. Norms do
    not add up as the gradients do, so these are shares of effort, not of
    direction. No ``.grad`` changes.

    Arguments
    ---------
    weighted_terms : dict of str to torch.Tensor
        Scalars, the speaker loss among them if it is to be compared.
    parameters : iterable of torch.Tensor
        Those of the student; the ones without gradient are left out.
    retain_graph : bool
        Whether the graph is needed afterwards, as for the update itself.

    Returns
    -------
    dict of str to float
        Shares that sum to one; all zero if no term has a gradient.

    Example
    -------
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> gradient_shares({"a": (3 * w).sum(), "b": (-w).sum()}, [w])
    {'a': 0.75, 'b': 0.25}
    """
    parameters = [p for p in parameters if p.requires_grad]
    names = [
        name for name, term in weighted_terms.items() if term.requires_grad
    ]
    norms = []
    for position, name in enumerate(names):
        gradients = torch.autograd.grad(
            weighted_terms[name],
            parameters,
            # The terms share the student's forward pass.
            retain_graph=retain_graph or position < len(names) - 1,
            allow_unused=True,
        )
        norms.append(
            torch.stack(
                [g.float().norm() for g in gradients if g is not None]
                or [torch.zeros((), device=parameters[0].device)]
            ).norm()
        )
    shares = dict.fromkeys(weighted_terms, 0.0)
    if norms:
        # One transfer for all terms.
        values = torch.stack(norms).tolist()
        total = sum(values)
        if total > 0:
            shares.update(
                (name, value / total)
                for name, value in zip(names, values, strict=True)
            )
    return shares


def _posteriors(logits, temperature):
    """``P``, the rows ``softmax(z / tau)``, shape (B, C)."""
    return torch.softmax(logits / temperature, dim=1)


def _mean_and_difference(student_logits, teacher_logits, temperature):
    """``M = (P_s + P_t) / 2`` and ``D = P_s - P_t``, both (B, C)."""
    student = _posteriors(student_logits, temperature)
    teacher = _posteriors(teacher_logits, temperature)
    return (student + teacher) / 2, student - teacher


def _kl(teacher, student):
    """KL of each row of log-posteriors, shape (B,); minus infinity is p = 0."""
    impossible = teacher.isneginf()
    return (
        teacher.exp()
        * (
            teacher.masked_fill(impossible, 0)
            - student.masked_fill(impossible, 0)
        )
    ).sum(1)


def _decouple(logits, target):
    """Log-posteriors of target against the rest (B, 2), and among the rest.

    The second has shape (B, C) with minus infinity at the target.
    """
    target = target[:, None]
    others = logits.scatter(1, target, -torch.inf)
    binary = torch.cat(
        [logits.gather(1, target), others.logsumexp(1, keepdim=True)], dim=1
    )
    return torch.log_softmax(binary, dim=1), torch.log_softmax(others, dim=1)


def _one_minus_correlation(student, teacher, dim):
    """``1 - corr`` along a dimension, as ``|n(a) - n(b)|^2 / 2``.

    This form is exactly zero at equality and does not cancel near it.
    """
    student, student_varies = _standardise(student, dim)
    teacher, teacher_varies = _standardise(teacher, dim)
    squared = (student - teacher).square().sum(dim)
    return squared / 2 * (student_varies & teacher_varies)


def _standardise(posteriors, dim):
    """Centred and of unit length, and whether there was any variation."""
    centred = posteriors - posteriors.mean(dim, keepdim=True)
    peak = centred.detach().abs().amax(dim, keepdim=True)
    # Below this the mean's own rounding is all there is.
    rounding = 64 * torch.finfo(posteriors.dtype).eps
    varies = peak > rounding * posteriors.detach().amax(dim, keepdim=True)
    # A speaker's posterior can be tiny throughout: the peak goes out first.
    scaled = torch.where(varies, centred / peak.where(varies, 1.0), 0.0)
    return F.normalize(scaled, dim=dim), varies.squeeze(dim)


def _read_method(method, methods):
    """``{branch/term: weight}`` of a method, after checking all of them."""
    if not isinstance(methods, dict) or method not in methods:
        names = ", ".join(methods) if isinstance(methods, dict) else "none"
        raise UserError(
            f"method is {method!r}, but the methods there are: {names}."
        )
    weights = {}
    for name, branches in methods.items():
        _check_mapping(f"method {name}", branches)
        for branch, terms in (branches or {}).items():
            if branch not in BRANCHES:
                raise UserError(
                    f"Method {name} has a branch {branch!r}, but a branch is "
                    f"one of {', '.join(BRANCHES)}."
                )
            _check_mapping(f"{branch} of method {name}", terms)
            for term, weight in (terms or {}).items():
                if term not in TERMS:
                    raise UserError(
                        f"Method {name} has a term {term!r} on {branch}, but "
                        f"a term is one of {', '.join(TERMS)}."
                    )
                _check_number(f"the weight {name}/{branch}/{term}", weight)
                if name == method and weight > 0:
                    weights[f"{branch}/{term}"] = weight
    return weights


def _check_mapping(key, value):
    """Refuse what is neither a mapping nor left empty."""
    if value is not None and not isinstance(value, dict):
        raise UserError(
            f"{key} is {value!r}, but must be a mapping such as "
            "{raw: {instance: 1.0}} for a method or {instance: 1.0} for a "
            "branch."
        )


def _check_number(key, value, above=None):
    """Refuse what is not a finite number of at least zero (or above a limit)."""
    valid = isinstance(value, numbers.Real) and not isinstance(value, bool)
    valid = valid and math.isfinite(value)
    valid = valid and (value >= 0 if above is None else value > above)
    if not valid:
        limit = "of at least 0" if above is None else f"above {above}"
        raise UserError(
            f"{key} is {value!r}, but must be a finite number {limit}."
        )
