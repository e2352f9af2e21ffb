"""Reads a method from the YAML: which terms act on which branch.

Authors: IML-KD contributors
"""

from imlkd_brain.distillation.attribution import check_choice
from imlkd_brain.distillation.keys import OBJECTIVE as OPTIONS
from imlkd_brain.distillation.keys import OTHER_OPTION
from imlkd_brain.distillation.terms import TERMS
from imlkd_brain.errors import UserError, expected_sentence
from imlkd_brain.values import check_given, check_value, short

BRANCHES = ("raw", "integrated", "cross", "segment")
# What a term may need that is no option of its own.
GIVEN = (
    "logits",
    "embeddings",
    "attention",
    "target",
    "projection",
    "temperature",
    "temperatures",
)


def read_method(method, methods):
    """``{branch/term: weight}`` of a method, after checking all of them."""
    check_given(OPTIONS, method=method, methods=methods)
    check_choice("method", method, methods)
    weights = {}
    for name, branches in methods.items():
        for branch, terms in (branches or {}).items():
            check_choice(f"a branch of methods.{name}", branch, BRANCHES)
            for term, weight in (terms or {}).items():
                check_choice(f"a term of methods.{name}.{branch}", term, TERMS)
                if name == method and weight > 0:
                    weights[f"{branch}/{term}"] = weight
    return weights


def check_term_options(options):
    """Refuse options of the terms that are missing, unknown or no weight."""
    expected = [
        f"{name}_{need}"
        for name, term in TERMS.items()
        for need in term.needs
        if need not in GIVEN
    ]
    for key in expected:
        option = OPTIONS.get(key, OTHER_OPTION)
        check_value(key, options.get(key), option)
    for key in options:
        if key not in expected:
            raise UserError(
                f"objective: the option {key!r} belongs to no term; the "
                f"options are {', '.join(expected)}."
            )


def check_fall(schedule, warmup, total):
    """Refuse a fall of eta that ends before it begins."""
    if schedule != "constant" and (total <= warmup):
        expected = (
            f"a number above eta_warmup_steps ({short(warmup)}) where "
            f"eta_schedule is {schedule}"
        )
        raise UserError(
            expected_sentence("eta_total_steps", short(total), expected)
        )
