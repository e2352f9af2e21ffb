"""The table of the losses that a method in the YAML can name.

Authors: IML-KD contributors
"""

from collections.abc import Callable
from dataclasses import dataclass

from imlkd_brain.distillation.attention import attention_loss
from imlkd_brain.distillation.losses import (
    batch_loss,
    class_loss,
    decoupled_kd_loss,
    dist_loss,
    embedding_loss,
    instance_loss,
    multi_level_kd_loss,
)
from imlkd_brain.distillation.rivals import relation_loss, triage_loss


@dataclass(frozen=True)
class Term:
    """A loss that a method in the YAML can name.

    Arguments
    ---------
    function : callable
        The loss. It returns a scalar.
    relational : bool
        Whether it relates the utterances of a batch to each other, so that a
        batch of one utterance means nothing to it.
    needs : tuple of str
        What the function is called with, in the order of its arguments:

        - ``logits``: the student's and the teacher's, two of shape (B, C)
        - ``embeddings``: the student's and the teacher's, (B, D_s), (B, D_t)
        - ``attention``: the scores of the student's pooling, (B, channels, T),
          and the teacher's time weights (B, T)
        - ``target``: true classes, shape (B,)
        - ``projection``: from (B, D_s) to (B, D_t), or None
        - ``temperature``: one ``tau``; the loss is summed over the YAML's list
        - ``temperatures``: the YAML's list for multi-level KD
        - any other name ``x``: the option ``<term>_x`` of the YAML
    """

    function: Callable
    relational: bool
    needs: tuple


TERMS = {
    "instance": Term(instance_loss, False, ("logits", "temperature")),
    "embedding": Term(embedding_loss, False, ("embeddings", "projection")),
    "class": Term(class_loss, True, ("logits", "temperature")),
    "batch": Term(batch_loss, True, ("logits", "temperature")),
    "multi_level": Term(multi_level_kd_loss, True, ("logits", "temperatures")),
    "decoupled": Term(
        decoupled_kd_loss,
        False,
        ("logits", "target", "alpha", "beta", "temperature"),
    ),
    "correlation": Term(
        dist_loss, True, ("logits", "temperature", "beta", "gamma")
    ),
    "relation": Term(relation_loss, True, ("embeddings",)),
    "triage": Term(
        triage_loss,
        False,
        ("logits", "target", "cutoff", "alpha", "beta", "temperature"),
    ),
    "attention": Term(attention_loss, False, ("attention",)),
}


def tensors_of(terms):
    """Return the tensors of ``Outputs`` that relational terms read, by name.

    Example
    -------
    >>> tensors_of(["relation"])
    ['student_embeddings', 'teacher_embeddings']
    """
    needs = {need for term in terms for need in TERMS[term].needs}
    return [
        name
        for need, names in (
            ("logits", ("student", "teacher")),
            ("embeddings", ("student_embeddings", "teacher_embeddings")),
        )
        if need in needs
        for name in names
    ]
