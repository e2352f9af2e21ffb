"""Unit tests of ``imlkd_brain.distillation.attribution``."""

import math

import captum.attr
import pytest
import torch
from helpers.networks import random_tensor, small_network

from imlkd_brain.distillation.attribution import (
    RULES,
    attribution_target,
    integrated_gradients,
    quadrature,
)
from imlkd_brain.errors import UserError

# Float64 throughout: what differs from a closed form by more than this is
# wrong, not rounded (values are of order 1 to 1e3).
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def power_of_sum(degree, weight):
    """f(x) = (sum w x)^degree, whose Integrated Gradients are known."""

    def logits(x):
        return (x * weight).sum((1, 2))[:, None] ** degree

    return logits


def power_of_sum_attribution(degree, weight, feats, baseline):
    """w_i (x_i - x'_i) times the mean of df/dS between the two sums."""
    end = (feats * weight).sum((1, 2), keepdim=True)
    start = (baseline * weight).sum((1, 2), keepdim=True)
    mean = (end**degree - start**degree) / (end - start)
    return weight * (feats - baseline) * mean


class TestIntegratedGradients:
    @pytest.mark.parametrize(
        "rule, n_steps, degree",
        [("right", 1, 1), ("right", 3, 1), ("midpoint", 1, 2)]
        + [("midpoint", 4, 2)]
        + [("gauss_legendre", m, 2 * m) for m in (1, 2, 3, 5)],
    )
    def test_exact_up_to_the_degree_of_the_rule(self, rule, n_steps, degree):
        feats, baseline = random_tensor(3, 4, 2), random_tensor(3, 4, 2, seed=1)
        # Halved, so that the tenth power of the sum is still of order 1e3.
        weight = random_tensor(4, 2, seed=2) / 2
        for power in range(1, degree + 2):
            attribution, gap = integrated_gradients(
                power_of_sum(power, weight),
                feats,
                torch.zeros(3, dtype=torch.long),
                rule=rule,
                n_steps=n_steps,
                baseline=baseline,
            )
            expected = power_of_sum_attribution(power, weight, feats, baseline)
            if power <= degree:
                torch.testing.assert_close(attribution, expected, **EXACT)
                torch.testing.assert_close(gap, torch.zeros_like(gap), **EXACT)
            else:
                # One degree more and the rule must miss, by what gap says.
                assert gap.abs().max() > 1e-6
                torch.testing.assert_close(
                    gap, (attribution - expected).sum((1, 2)), **EXACT
                )

    @pytest.mark.parametrize("n_steps", [1, 2, 10])
    def test_right_is_the_sum_of_the_paper(self, n_steps):
        # (1/m) sum_k 2 (k/m) = 1 + 1/m for the square of the sum.
        feats, weight = random_tensor(2, 4, 2), random_tensor(4, 2, seed=2)
        attribution, gap = integrated_gradients(
            power_of_sum(2, weight),
            feats,
            torch.zeros(2, dtype=torch.long),
            rule="right",
            n_steps=n_steps,
        )
        exact = power_of_sum_attribution(
            2, weight, feats, torch.zeros_like(feats)
        )
        torch.testing.assert_close(
            attribution, exact * (1 + 1 / n_steps), **EXACT
        )
        score = (feats * weight).sum((1, 2)) ** 2
        torch.testing.assert_close(gap, score / n_steps, **EXACT)

    def test_weights_sum_to_one(self):
        for rule in RULES[:3]:
            for n_steps in (1, 2, 7, 50):
                nodes, weights = quadrature(rule, n_steps)
                assert weights.sum() == pytest.approx(1, abs=1e-12)
                assert nodes.min() > 0 and nodes.max() <= 1

    @pytest.mark.parametrize(
        "rule, method",
        [
            ("right", "riemann_right"),
            ("midpoint", "riemann_middle"),
            ("gauss_legendre", "gausslegendre"),
        ],
    )
    @pytest.mark.parametrize("n_steps", [2, 5])
    def test_equals_captum(self, rule, method, n_steps):
        network = small_network()
        feats, baseline = random_tensor(3, 6, 4), random_tensor(3, 6, 4, seed=1)
        target = torch.tensor([0, 4, 2])
        attribution, gap = integrated_gradients(
            network,
            feats,
            target,
            rule=rule,
            n_steps=n_steps,
            baseline=baseline,
        )
        expected, delta = captum.attr.IntegratedGradients(network).attribute(
            feats,
            baseline,
            target=target,
            n_steps=n_steps,
            method=method,
            return_convergence_delta=True,
        )
        # Captum keeps its step sizes in float32.
        torch.testing.assert_close(attribution, expected, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(gap, delta, rtol=1e-6, atol=1e-6)

    def test_completeness_linearity_and_sensitivity(self):
        network, target = small_network(), torch.tensor([1, 3])
        feats = random_tensor(2, 6, 4)
        options = {"rule": "gauss_legendre", "n_steps": 32}

        def blind(x):
            # Does not read the last frame.
            return network(torch.cat([x[:, :5], torch.zeros_like(x[:, 5:])], 1))

        def mixture(x):
            return 2 * network(x) - 3 * blind(x)

        whole, gap = integrated_gradients(network, feats, target, **options)
        part, _ = integrated_gradients(blind, feats, target, **options)
        both, _ = integrated_gradients(mixture, feats, target, **options)
        torch.testing.assert_close(gap, torch.zeros_like(gap), **EXACT)
        torch.testing.assert_close(both, 2 * whole - 3 * part, **EXACT)
        assert (part[:, 5] == 0).all()
        assert (part[:, :5].abs().amax(2) > 0).all()

    def test_stochastic_rule_is_unbiased(self):
        weight = random_tensor(4, 2, seed=2)
        feats = random_tensor(1, 4, 2).expand(4000, 4, 2)
        attribution, _ = integrated_gradients(
            power_of_sum(3, weight),
            feats,
            torch.zeros(4000, dtype=torch.long),
            rule="stochastic",
            generator=torch.Generator().manual_seed(0),
        )
        exact = power_of_sum_attribution(
            3, weight, feats[:1], torch.zeros_like(feats[:1])
        )[0]
        # One alpha an item: IG is exact * 3 alpha^2, of mean 1 and deviation
        # sqrt(9/5 - 1). Four standard errors of 4,000 items.
        ratio = attribution / exact
        assert ratio.std((1, 2)).max() < 1e-9
        assert abs(ratio[:, 0, 0].mean() - 1) < 4 * math.sqrt(0.8 / 4000)
        assert ratio[:, 0, 0].std() == pytest.approx(math.sqrt(0.8), rel=0.1)

    def test_stochastic_steps_are_averaged(self):
        weight, feats = random_tensor(4, 2, seed=2), random_tensor(2, 4, 2)
        target = torch.zeros(2, dtype=torch.long)

        def draw(n_steps):
            return integrated_gradients(
                power_of_sum(2, weight),
                feats,
                target,
                rule="stochastic",
                n_steps=n_steps,
                generator=torch.Generator().manual_seed(3),
            )[0]

        exact = power_of_sum_attribution(
            2, weight, feats, torch.zeros_like(feats)
        )
        drawn = torch.rand(
            (5, 2),
            generator=torch.Generator().manual_seed(3),
            dtype=torch.float64,
        )
        torch.testing.assert_close(
            draw(5), exact * 2 * drawn.mean(0)[:, None, None], **EXACT
        )

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 12, 100])
    def test_memory_limit_changes_nothing_but_memory(self, rule, limit):
        network, feats = small_network(), random_tensor(3, 6, 4)
        rows = []

        def watched(x):
            rows.append(len(x))
            return network(x)

        def attribute(**options):
            return integrated_gradients(
                watched,
                feats,
                torch.tensor([0, 4, 2]),
                rule=rule,
                n_steps=4,
                generator=torch.Generator().manual_seed(0),
                **options,
            )

        whole = attribute()
        assert max(rows) == 12
        rows.clear()
        limited = attribute(internal_batch_size=limit)
        assert max(rows) <= limit
        # 12 rows for the gradients, 6 for the gap: nothing twice.
        assert sum(rows) == 18
        for a, b in zip(whole, limited, strict=True):
            torch.testing.assert_close(a, b, **EXACT)

    def test_gap_is_skipped_on_request(self):
        rows = []
        network = small_network()

        def watched(x):
            rows.append(len(x))
            return network(x)

        feats, target = random_tensor(3, 6, 4), torch.tensor([0, 4, 2])
        attribution, gap = integrated_gradients(
            watched, feats, target, with_gap=False
        )
        assert gap is None and rows == [3]
        torch.testing.assert_close(
            attribution, integrated_gradients(network, feats, target)[0]
        )

    @pytest.mark.parametrize(
        "context",
        [
            torch.no_grad,
            torch.inference_mode,
            lambda: torch.autocast("cpu", torch.bfloat16),
            lambda: torch.autocast("cpu", torch.float16),
        ],
    )
    def test_the_context_of_the_caller_changes_nothing(self, context):
        network = small_network().float()
        feats, target = random_tensor(3, 6, 4).float(), torch.tensor([0, 4, 2])
        expected = integrated_gradients(network, feats, target, n_steps=3)
        with context():
            actual = integrated_gradients(
                network, feats.clone(), target.clone(), n_steps=3
            )
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_half_precision_features_are_widened(self):
        network, feats = small_network().float(), random_tensor(2, 6, 4).half()
        attribution, gap = integrated_gradients(
            network, feats, torch.tensor([0, 1])
        )
        assert attribution.dtype == gap.dtype == torch.float32

    def test_no_graph_and_no_parameter_gradient(self):
        network = small_network()
        feats = random_tensor(3, 6, 4).requires_grad_()
        network[1].weight.grad = torch.full_like(network[1].weight, 7)
        attribution, gap = integrated_gradients(
            network, feats, torch.tensor([0, 4, 2]), n_steps=3
        )
        assert not attribution.requires_grad and not gap.requires_grad
        assert feats.grad is None and feats.requires_grad
        assert (network[1].weight.grad == 7).all()
        assert network[3].weight.grad is None

    def test_frozen_network(self):
        network = small_network().requires_grad_(False)
        feats, target = random_tensor(3, 6, 4), torch.tensor([0, 4, 2])
        frozen, _ = integrated_gradients(network, feats, target)
        free, _ = integrated_gradients(
            network.requires_grad_(True), feats, target
        )
        torch.testing.assert_close(frozen, free, rtol=0, atol=0)

    def test_targets(self):
        network, feats = small_network(), random_tensor(3, 6, 4)
        target = torch.tensor([0, 4, 2])
        same = attribution_target(network, feats, target, "true_class")
        assert same == (network, target)
        _, found = attribution_target(network, feats, target, "predicted")
        assert found.tolist() == network(feats).argmax(1).tolist()
        posterior, kept = attribution_target(
            network, feats, target, "log_posterior", scale=2.0
        )
        expected = (2 * network(feats)).softmax(1).log()
        torch.testing.assert_close(posterior(feats), expected, **EXACT)
        assert kept is target

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"rule": "trapezoid"}, "rule is 'trapezoid'"),
            ({"n_steps": 0}, "n_steps is 0"),
            ({"internal_batch_size": 0}, "internal_batch_size is 0"),
            ({"feats": torch.zeros(6, 4)}, r"features \(B, T, F\)"),
            ({"target": torch.zeros(2).long()}, r"targets \(B,\)"),
            ({"baseline": torch.zeros(3)}, "does not broadcast"),
            ({"logits": lambda x: x}, "one row of logits per input"),
            (
                {"logits": torch.no_grad()(lambda x: x[:, 0])},
                "carry no gradient",
            ),
        ],
    )
    def test_mistakes_are_named(self, change, words):
        arguments = {
            "logits": lambda x: x[:, 0],
            "feats": torch.zeros(3, 6, 4),
            "target": torch.zeros(3).long(),
            **change,
        }
        with pytest.raises(UserError, match=words):
            integrated_gradients(**arguments)
