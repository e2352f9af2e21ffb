"""Unit tests of ``imlkd_brain.distillation.objective``."""

from types import SimpleNamespace

import pytest
import torch
from helpers.losses import LOSSES, logits

from imlkd_brain.distillation.guidance import Outputs
from imlkd_brain.distillation.losses import embedding_loss
from imlkd_brain.distillation.objective import (
    DistillationObjective,
)
from imlkd_brain.distillation.rivals import relation_loss, triage_loss
from imlkd_brain.distillation.terms import TERMS, Term
from imlkd_brain.errors import UserError
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

B, C = 6, 9
TARGET = torch.tensor([0, 3, 8, 3, 1, 5])

ON_RAW = [term for term in TERMS if term != "attention"]

METHODS = {
    "scratch": {},
    "vanilla_kd": {"raw": {"instance": 1.0}},
    "everything": {
        "raw": dict.fromkeys(ON_RAW, 2.0),
        "integrated": {"class": 3.0, "instance": 5, "batch": 0.0},
    },
    "iml_kd": {"integrated": {"instance": 1.0, "class": 10.0}, "raw": None},
}

OPTIONS = {
    "method": "everything",
    "methods": METHODS,
    "temperature": 1.5,
    "temperatures": [2, 3],
    "decoupled_alpha": 1.0,
    "decoupled_beta": 8.0,
    "correlation_beta": 1.0,
    "correlation_gamma": 2.0,
    "triage_cutoff": 0.7,
    "triage_alpha": 2.0,
    "triage_beta": 3.0,
    "eta": 4.0,
    "eta_warmup_steps": 0,
    "eta_schedule": "constant",
    "eta_total_steps": None,
    "embedding_projection": "differing",
    "gather_batch": True,
}


def build(**changes):
    return DistillationObjective(**{**OPTIONS, **changes})


@pytest.mark.parametrize(
    "terms, target, mode, asks",
    [
        ({"raw": {"embedding": 1}}, "true_class", "time_gate", False),
        ({"raw": {"relation": 1}}, "true_class", "time_gate", False),
        ({"segment": {"embedding": 1}}, "true_class", "time_gate", False),
        ({"raw": {"instance": 1}}, "own_embedding", "time_gate", True),
        ({"cross": {"embedding": 1}}, "true_class", "time_gate", True),
        ({"cross": {"embedding": 1}}, "true_class", "identity", False),
        ({"cross": {"embedding": 1}}, "own_embedding", "time_gate", False),
        ({"segment": {"attention": 1}}, "predicted", "identity", True),
    ],
)
def test_what_depends_on_the_teachers_classes(terms, target, mode, asks):
    objective = build(method="mine", methods={"mine": terms})
    integrated = SimpleNamespace(target=target, mode=mode)
    assert objective.asks_classes(integrated) is asks


class TestObjective:
    @pytest.mark.parametrize(
        "method, terms, needs",
        [
            ("scratch", [], (False, False, False)),
            ("vanilla_kd", ["raw/instance"], (True, True, False)),
            (
                "iml_kd",
                ["integrated/instance", "integrated/class"],
                (True, False, True),
            ),
        ],
    )
    def test_what_a_method_needs(self, method, terms, needs):
        objective = build(method=method)
        assert objective.terms == terms
        assert needs == (
            objective.needs_teacher,
            objective.needs("raw"),
            objective.needs("integrated"),
        )

    def test_terms_are_the_losses(self):
        objective = build()
        student, teacher = logits(0), logits(1)
        e_student, e_teacher = logits(2, (B, 4)), logits(3, (B, 4))
        raw = objective.branch_terms(
            "raw", Outputs(student, e_student, teacher, e_teacher), TARGET
        )
        assert list(raw) == [f"raw/{term}" for term in ON_RAW]
        for term, loss in LOSSES.items():
            torch.testing.assert_close(
                raw[f"raw/{term}"], loss(student, teacher, TARGET)
            )
        torch.testing.assert_close(
            raw["raw/embedding"], embedding_loss(e_student, e_teacher)
        )
        torch.testing.assert_close(
            raw["raw/relation"], relation_loss(e_student, e_teacher)
        )
        integrated = objective.branch_terms(
            "integrated", Outputs(student, None, teacher)
        )
        # A weight of zero is no term.
        assert list(integrated) == ["integrated/class", "integrated/instance"]
        loss, weighted = objective.weighted({**raw, **integrated}, step=0)
        assert list(weighted) == objective.terms
        expected = 4 * (
            2 * sum(raw.values())
            + 3 * integrated["integrated/class"]
            + 5 * integrated["integrated/instance"]
        )
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(sum(weighted.values()), loss)

    def test_a_list_of_temperatures_is_summed_over(self):
        student, teacher = logits(0), logits(1)

        def terms(temperature):
            objective = build(temperature=temperature)
            return objective.branch_terms(
                "raw", Outputs(student, student, teacher, teacher), TARGET
            )

        both, first, second = terms([2, 3]), terms(2), terms(3)
        with_one = [t for t in LOSSES if "temperature" in TERMS[t].needs]
        assert {"instance", "class", "batch"} <= set(with_one)
        for term in with_one:
            torch.testing.assert_close(
                both[f"raw/{term}"],
                first[f"raw/{term}"] + second[f"raw/{term}"],
            )
        # Prior multi-level KD is the three levels under one weight.
        torch.testing.assert_close(
            both["raw/multi_level"],
            sum(both[f"raw/{term}"] for term in ("instance", "class", "batch")),
        )

    def test_projection_reaches_the_embedding_term(self):
        objective = build(method="e", methods={"e": {"raw": {"embedding": 1}}})
        assert objective.needs_projection(4, C)
        assert not objective.needs_projection(4, 4)
        projection = torch.nn.Linear(4, C, bias=False).double()
        student, teacher = logits(2, (B, 4)), logits(3)
        terms = objective.branch_terms(
            "raw", Outputs(None, student, None, teacher), None, projection
        )
        torch.testing.assert_close(
            terms["raw/embedding"], embedding_loss(student, teacher, projection)
        )

    def test_a_loss_is_a_function_a_row_and_a_line_of_the_yaml(
        self, monkeypatch
    ):
        """The recipe of docs/architecture.md, with an option of its own."""

        def mean_squared(student, teacher, target, power):
            chosen = (student - teacher)[torch.arange(B), target]
            return chosen.abs().pow(power).mean()

        row = Term(mean_squared, True, ("logits", "target", "power"))
        monkeypatch.setitem(TERMS, "squared", row)
        methods = {"new": {"cross": {"squared": 0.5}}}
        objective = build(method="new", methods=methods, squared_power=2)
        student, teacher = logits(0), logits(1)
        terms = objective.branch_terms(
            "cross", Outputs(student, None, teacher), TARGET
        )
        picked = [(student - teacher)[i, y] for i, y in enumerate(TARGET)]
        expected = sum(value**2 for value in picked) / B
        torch.testing.assert_close(terms["cross/squared"], expected)
        assert objective.weights == {"cross/squared": 0.5}
        with pytest.raises(UserError, match="cross/squared of method new"):
            objective.check(batch_size=1, durations=[1.0])

    def test_scratch_adds_nothing(self):
        objective = build(method="scratch")
        assert objective.branch_terms("raw", None) == {}
        loss, weighted = objective.weighted({}, step=3)
        assert loss.item() == 0 and weighted == {}

    @pytest.mark.parametrize(
        "schedule, expected",
        [
            ("constant", [1, 2, 3, 4, 4, 4, 4]),
            ("linear", [1, 2, 3, 4, 3, 1, 0]),
            ("cosine", [1, 2, 3, 4, 2 + 2**0.5, 2 - 2**0.5, 0]),
        ],
    )
    def test_eta(self, schedule, expected):
        objective = build(
            eta_warmup_steps=3, eta_schedule=schedule, eta_total_steps=11
        )
        steps = [0, 1, 2, 3, 5, 9, 11]
        actual = [objective.eta_at(step) for step in steps]
        assert actual == pytest.approx(expected, abs=1e-12)
        # Beyond the end nothing turns around.
        assert objective.eta_at(12) == objective.eta_at(11)

    @pytest.mark.parametrize("method", ["vanilla_kd", "iml_kd"])
    @pytest.mark.parametrize("schedule", ["linear", "cosine"])
    def test_eta_falls_over_the_training_that_is_planned(
        self, method, schedule
    ):
        objective = build(
            method=method, eta_warmup_steps=3, eta_schedule=schedule
        )
        objective.plan(11)
        expected = build(
            eta_warmup_steps=3, eta_schedule=schedule, eta_total_steps=11
        )
        for step in range(13):
            assert objective.eta_at(step) == expected.eta_at(step)
        with pytest.raises(
            UserError, match="is 3, .*above eta_warmup_steps .3."
        ):
            objective.plan(3)
        build(method="scratch", eta_schedule=schedule).plan(0)

    def test_an_option_of_two_numbers_moves_over_the_training(self):
        objective = build(
            method="t",
            methods={"t": {"raw": {"triage": 1.0}}},
            triage_cutoff=[0.9, 0.5],
        )
        objective.plan(8)
        student, teacher = logits(0), logits(1)
        outputs = Outputs(student, None, teacher)
        for step, cutoff in ((0, 0.9), (2, 0.8), (8, 0.5), (9, 0.5)):
            terms = objective.branch_terms("raw", outputs, TARGET, step=step)
            torch.testing.assert_close(
                terms["raw/triage"],
                triage_loss(student, teacher, TARGET, cutoff, 2.0, 3.0, 1.5),
            )

    def test_embeddings_may_always_be_projected(self):
        methods = {
            "e": {"raw": {"embedding": 1}},
            "r": {"raw": {"relation": 1}},
        }
        always = {"methods": methods, "embedding_projection": "always"}
        assert build(method="e", **always).needs_projection(4, 4)
        # A relation of embeddings takes them as they are.
        assert not build(method="r", **always).needs_projection(4, 5)

    def test_attention_is_asked_for_where_a_student_has_it(self):
        methods = {"a": {"segment": {"attention": 1.0}}}
        objective = build(method="a", methods=methods)
        assert objective.cuts_segments and not objective.integrates
        assert objective.needs_attention
        ecapa = ECAPA_TDNN(20, channels=[8] * 4 + [24], lin_neurons=6)
        objective.check(2, [1.0], embedding_model=ecapa)
        with pytest.raises(UserError, match=r"\(Linear\) has none"):
            objective.check(2, [1.0], embedding_model=torch.nn.Linear(2, 2))
        methods = {"a": {"raw": {"attention": 1.0}}}
        objective = build(method="a", methods=methods)
        with pytest.raises(UserError, match="has attention on raw"):
            objective.check(2, [1.0], embedding_model=ecapa)

    @pytest.mark.parametrize(
        "changes, words",
        [
            ({"method": "kd"}, "scratch, vanilla_kd, everything, iml_kd"),
            (
                {"methods": None},
                "methods is null, but must be a mapping such as",
            ),
            (
                {"methods": {"everything": {"both": {}}}},
                "raw, integrated, cross, segment",
            ),
            (
                {"methods": {"everything": {"raw": {"kl": 1}}}},
                "instance, embedding, class",
            ),
            # Another method's mistake is found too.
            (
                {"methods": {**METHODS, "x": {"raw": {"kl": 1}}}},
                "a term of methods.x.raw is 'kl'",
            ),
            (
                {"methods": {"everything": {"raw": {"class": -1}}}},
                "methods.everything.raw.class is -1",
            ),
            ({"methods": {"everything": "raw"}}, "methods.everything is 'raw'"),
            (
                {"methods": {"everything": {"raw": ["class"]}}},
                "methods.everything.raw is ..class",
            ),
            ({"temperature": 0}, "temperature is 0"),
            ({"temperature": []}, r"temperature is \[\]"),
            ({"temperature": [4, 0]}, r"temperature\[1\] is 0"),
            ({"temperatures": []}, "temperatures"),
            ({"temperatures": [2, 0]}, "temperatures"),
            ({"decoupled_beta": "8"}, "decoupled_beta"),
            ({"decoupled_beta": None}, "decoupled_beta is null"),
            ({"decoupled_gamma": 1.0}, "'decoupled_gamma' belongs to no term"),
            ({"eta": float("nan")}, "eta is nan"),
            ({"eta_schedule": "step"}, "constant, linear, cosine"),
            ({"eta_total_steps": 0}, "eta_total_steps is 0"),
            (
                {"triage_cutoff": [0.9, 90]},
                r"triage_cutoff\[1\] is 90, .*at most 1",
            ),
            ({"triage_cutoff": [0.9, 0.5, 0.1]}, "triage_cutoff is"),
            ({"embedding_projection": "ever"}, "differing, always"),
        ],
    )
    def test_mistakes_are_named(self, changes, words):
        with pytest.raises(UserError, match=words):
            build(**changes)

    def test_what_is_said_before_training(self):
        build().check(batch_size=2, durations=[1.0])
        with pytest.raises(UserError, match="batch_size is 1"):
            build().check(batch_size=1, durations=[1.0])
        with pytest.raises(UserError, match="durations is empty"):
            build().check(batch_size=2, durations=[])
        build().check(batch_size=2, durations=[1.0, 2.0], chunk=2.0)
        with pytest.raises(UserError, match=r"2.5 s is longer.*: 2 s"):
            build().check(batch_size=2, durations=[1.0, 2.5], chunk=2.0)
        # None of it matters to a method that uses none of it.
        build(method="vanilla_kd").check(batch_size=1, durations=[])
        build(method="vanilla_kd").check(1, [5.0], chunk=2.0)
        with pytest.raises(UserError, match="no branch 'both'"):
            build().branch_terms("both", None)


def test_rows_are_taken_of_all_that_is_there():
    student, weights = torch.rand(4, 3), torch.rand(4, 7)
    outputs = Outputs(student, None, weights=weights).of_rows(
        torch.tensor([3, 1])
    )
    assert torch.equal(outputs.student, student[[3, 1]])
    assert torch.equal(outputs.weights, weights[[3, 1]])
    assert outputs.teacher is None and outputs.student_embeddings is None
