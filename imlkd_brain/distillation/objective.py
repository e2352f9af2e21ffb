"""A method's objective: which losses it sums, with which weights.

:class:`DistillationObjective` reads a method from the YAML and checks it.
The losses themselves are in :mod:`imlkd_brain.distillation.losses`.

Authors: IML-KD contributors
"""

import math

import torch

from imlkd_brain.distillation.attention import find_pooling
from imlkd_brain.distillation.keys import OBJECTIVE as OPTIONS
from imlkd_brain.distillation.methods import (
    BRANCHES,
    GIVEN,
    check_fall,
    check_term_options,
    read_method,
)
from imlkd_brain.distillation.schedules import remaining
from imlkd_brain.distillation.terms import TERMS, tensors_of
from imlkd_brain.errors import UserError
from imlkd_brain.values import check_given


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
    ``segment``    ``x_d`` itself             all of ``x``, unweighted
    ============== ========================== =============================

    ``cross`` is ours: the segment has to give what the whole chunk gives, as
    in teacher-student learning for short utterances (Jung, Heo, Shim and Yu,
    ASRU 2019, arXiv 1810.10884), here with integrated inputs and all levels.
    ``segment`` is the same with plain segments, whatever the mode of I is.

    The terms are the rows of ``imlkd_brain.distillation.terms.TERMS``.

    Arguments
    ---------
    method : str
        A key of ``methods``.
    methods : dict
        ``{method: {branch: {term: weight}}}``; 0 leaves a term out.
    temperature : float or list of float
        ``tau`` of all terms of posteriors but ``multi_level``; each is summed
        over a list.
    temperatures : list of float
        Those of ``multi_level``. It is ``instance``, ``class`` and ``batch``
        of that list, under one weight.
    eta : float
        Weight of the whole against the speaker loss.
    eta_warmup_steps : int
        Updates over which ``eta`` grows linearly from near zero.
    eta_schedule : str
        After the warm-up ``constant``, or a ``linear`` or ``cosine`` fall to
        zero at ``eta_total_steps``.
    eta_total_steps : int or None
        Updates after which ``eta`` is zero; None for those of the whole
        training, see :meth:`plan`. Not read by ``constant``.
    embedding_projection : str
        ``differing``: the embedding term projects the student's embeddings
        where the two dimensions differ; ``always``: where they agree as well,
        since the teacher's space need not be the student's.
    gather_batch : bool
        Whether terms that relate utterances see those of all processes; if
        False, each process relates its own.
    **options : float
        The options of the terms, named ``<term>_<option>``:
        ``decoupled_alpha``, ``decoupled_beta``, ``correlation_beta`` and
        ``correlation_gamma``, ``triage_cutoff``, ``triage_alpha`` and
        ``triage_beta``, weights of the parts of these losses. Two
        numbers ``[start, end]`` change linearly over the training.

    Raises
    ------
    UserError
        For an unknown method, branch or term (listing those there are), an
        option that is missing or unknown, or a value out of range.

    Example
    -------
    >>> objective = DistillationObjective(
    ...     method="vanilla_kd",
    ...     methods={"scratch": {}, "vanilla_kd": {"raw": {"instance": 1.0}}},
    ...     temperature=1.0, temperatures=[2, 3], decoupled_alpha=1.0,
    ...     decoupled_beta=8.0, correlation_beta=1.0, correlation_gamma=1.0,
    ...     triage_cutoff=0.9, triage_alpha=1.0, triage_beta=1.0, eta=2.0,
    ...     eta_warmup_steps=0, eta_schedule="constant", gather_batch=True,
    ...     eta_total_steps=None, embedding_projection="differing",
    ... )
    >>> objective.terms, objective.needs("raw"), objective.needs("integrated")
    (['raw/instance'], True, False)
    >>> logits = torch.tensor([[5.0, 0.0]], requires_grad=True)
    >>> from imlkd_brain.distillation.guidance import Outputs
    >>> outputs = Outputs(logits, None, torch.zeros(1, 2))
    >>> terms = objective.branch_terms("raw", outputs)
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
        eta,
        eta_warmup_steps,
        eta_schedule,
        eta_total_steps,
        embedding_projection,
        gather_batch,
        **options,
    ):
        self.method = method
        self.weights = read_method(method, methods)
        self.terms = list(self.weights)
        check_given(
            OPTIONS,
            temperature=temperature,
            temperatures=temperatures,
            eta=eta,
            eta_warmup_steps=eta_warmup_steps,
            eta_schedule=eta_schedule,
            eta_total_steps=eta_total_steps,
            embedding_projection=embedding_projection,
            gather_batch=gather_batch,
        )
        check_term_options(options)
        if eta_total_steps is not None:
            check_fall(eta_schedule, eta_warmup_steps, eta_total_steps)
        if not isinstance(temperature, (list, tuple)):
            temperature = [temperature]
        self.temperature = tuple(temperature)
        self.temperatures = tuple(temperatures)
        self.options = options
        self.eta = eta
        self.eta_warmup_steps = eta_warmup_steps
        self.eta_schedule = eta_schedule
        self.eta_total_steps = eta_total_steps
        self.embedding_projection = embedding_projection
        self.gather_batch = gather_batch
        self.training_steps = None

    def plan(self, training_steps):
        """Say how long the training is, which schedules follow.

        Arguments
        ---------
        training_steps : int
            Updates of the whole training.

        Raises
        ------
        UserError
            If eta still warms up at the end, where it should be zero.
        """
        self.training_steps = training_steps
        if self.needs_teacher:
            warmup = self.eta_warmup_steps
            check_fall(self.eta_schedule, warmup, self._eta_end)

    @property
    def _eta_end(self):
        """The update from which a falling ``eta`` is zero."""
        if self.eta_total_steps is None:
            return self.training_steps
        return self.eta_total_steps

    def needs(self, branch):
        """Whether any term acts on a branch.

        Arguments
        ---------
        branch : str
            A row of the table.

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
    def cuts_segments(self):
        """Whether any term acts on segments of the chunks."""
        return self.integrates or self.needs("segment")

    def attributes(self, mode):
        """Whether the teacher is asked for attribution in a mode of ``I``."""
        return (self.integrates and mode != "identity") or self.needs_attention

    def asks_classes(self, integrated):
        """Whether anything depends on the teacher's classes, I(x) included."""
        of_speaker = integrated.target != "own_embedding"
        attributed = of_speaker and self.attributes(integrated.mode)
        return bool(self.of_classes) or attributed

    @property
    def of_classes(self):
        """Names of the terms that compare posteriors over speakers."""
        return [
            name
            for name in self.terms
            if {"logits", "target"} & {*TERMS[name.split("/")[1]].needs}
        ]

    @property
    def integrates(self):
        """Whether any term acts on integrated inputs of segments."""
        return self.needs("integrated") or self.needs("cross")

    def needs_projection(self, student_dim, teacher_dim):
        """Whether embeddings of these dimensions are to be projected."""
        wanted = self.embedding_projection == "always"
        wanted = wanted or student_dim != teacher_dim
        return wanted and self.reads("projection")

    @property
    def needs_attention(self):
        """Whether any term reads the student's attention and time weights."""
        return self.reads("attention")

    def reads(self, what):
        """Whether any term is called with it, see ``Term.needs``."""
        return any(
            what in TERMS[name.split("/")[1]].needs for name in self.terms
        )

    def check(
        self, batch_size, durations, chunk=math.inf, embedding_model=None
    ):
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
        embedding_model : torch.nn.Module
            The student, which the attention term needs a pooling of.

        Raises
        ------
        UserError
            For a relational term in batches of one, segments without a
            duration or with one longer than the chunk, or attention where
            there is none.
        """
        relational = [
            name for name in self.terms if TERMS[name.split("/")[1]].relational
        ]
        if relational and batch_size < 2:
            raise UserError(
                f"batch_size is {batch_size}, but {relational[0]} of method "
                f"{self.method} relates the utterances of a batch: use at "
                "least 2."
            )
        if "raw/attention" in self.terms:
            raise UserError(
                f"Method {self.method} has attention on raw, but the teacher's "
                "time weights are those of segments: give the term to "
                "integrated, cross or segment."
            )
        if self.needs_attention:
            find_pooling(embedding_model)
        if self.cuts_segments and not durations:
            raise UserError(
                f"durations is empty, but method {self.method} draws segments "
                "of various durations: give a list of seconds such as "
                "[1.0, 2.0, 3.0]."
            )
        if self.cuts_segments and max(durations) > chunk:
            raise UserError(
                f"durations: {max(durations):g} s is longer than a training "
                f"chunk (sentence_len: {chunk:g} s), so segments of that "
                "length cannot be cut; lower it, or raise sentence_len."
            )

    def branch_terms(
        self,
        branch,
        outputs,
        target=None,
        projection=None,
        step=0,
        labelled=None,
        rows=(),
    ):
        """The unweighted terms of one branch.

        Arguments
        ---------
        branch : str
            A row of the table.
        outputs : imlkd_brain.distillation.guidance.Outputs
            Logits and embeddings of student and teacher on this branch.
        target : torch.Tensor, optional
            True classes, shape (B,), int64.
        projection : torch.nn.Module, optional
            From (B, D_s) to (B, D_t).
        step : int
            Updates done so far, which options that change depend on.
        labelled : torch.Tensor, optional
            Rows that have a true class; all have without it. Terms that need
            one are of these alone, and zero where there are none.
        rows : list of int, optional
            Utterances of each process, where several train together.

        Returns
        -------
        dict of str to torch.Tensor
            ``branch/term`` to a scalar, in the order of ``terms``.
        """
        names = self._terms_of(branch)
        common = [n for n in names if self.gather_batch and TERMS[n].relational]
        related = common and outputs.of_all(rows, tensors_of(common))
        return {
            f"{branch}/{term}": self._term(
                term,
                related if term in common else outputs,
                *(target, projection, step, labelled),
            )
            for term in names
        }

    def _term(self, name, outputs, target, projection, step, labelled=None):
        """One unweighted term, summed over the temperatures it is given."""
        term = TERMS[name]
        if labelled is not None and "target" in term.needs:
            if not len(labelled):
                return outputs.student.sum() * 0
            outputs, target = outputs.of_rows(labelled), target[labelled]
        known = {
            "logits": (outputs.student, outputs.teacher),
            "embeddings": (
                outputs.student_embeddings,
                outputs.teacher_embeddings,
            ),
            "target": (target,),
            "attention": (outputs.attention, outputs.weights),
            "projection": (projection,),
            "temperatures": (self.temperatures,),
        }
        values = []
        for temperature in self.temperature:
            known["temperature"] = (temperature,)
            arguments = []
            for need in term.needs:
                arguments += (
                    known[need]
                    if need in GIVEN
                    else (self.option_at(f"{name}_{need}", step),)
                )
            values.append(term.function(*arguments))
            if "temperature" not in term.needs:
                break
        return sum(values)

    def weighted(self, terms, step, shares=None):
        """The distillation loss and what each term adds to it.

        Arguments
        ---------
        terms : dict of str to torch.Tensor
            From :meth:`branch_terms`, of all branches in use.
        step : int
            Updates done so far.
        shares : dict of str to tuple of float, optional
            By branch, :func:`imlkd_brain.distributed.share_of` this process's
            utterances, and those with a label; 1 without it.

        Returns
        -------
        loss : torch.Tensor
            Scalar ``eta(step) * sum_k w_k L_k``; zero without terms.
        weighted : dict of str to torch.Tensor
            ``eta(step) * w_k * L_k`` of each term; they sum to ``loss``.
        """
        eta = self.eta_at(step)
        weighted = {
            name: eta * self.weights[name] * self._share(name, shares) * value
            for name, value in terms.items()
        }
        if not weighted:
            return torch.zeros(()), weighted
        return sum(weighted.values()), weighted

    def _share(self, name, shares):
        """What a process's own value of a term counts."""
        branch, term = name.split("/")
        gathers = self.gather_batch and TERMS[term].relational
        if gathers or shares is None:
            return 1.0
        return shares[branch]["target" in TERMS[term].needs]

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
        length = self._eta_end - self.eta_warmup_steps
        done = (step - self.eta_warmup_steps) / length
        return self.eta * remaining(self.eta_schedule, done)

    def option_at(self, name, step):
        """An option of a term after ``step`` updates.

        Arguments
        ---------
        name : str
            ``<term>_<option>``.
        step : int
            Updates done so far.

        Returns
        -------
        float
            The option, or its place on the straight line from the first to
            the second of two numbers.
        """
        value = self.options[name]
        if not isinstance(value, (list, tuple)):
            return value
        start, end = value[0], value[-1]
        done = step / self.training_steps if self.training_steps else 0.0
        return end + (start - end) * remaining("linear", done)

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
