"""Unit tests of ``imlkd_brain.distillation.integrated_inputs``."""

import numpy as np
import pytest
import torch
from helpers.networks import random_tensor, small_network

from imlkd_brain.distillation.attribution import integrated_gradients
from imlkd_brain.distillation.integrated_inputs import (
    MODES,
    IntegratedInputs,
    integrated_inputs,
)
from imlkd_brain.errors import UserError

# Float64 throughout: what differs from a closed form by more than this is
# wrong, not rounded (values are of order 1 to 1e3).
EXACT = {"rtol": 1e-10, "atol": 1e-10}

OPTIONS = {
    "mode": "time_gate",
    "rule": "midpoint",
    "n_steps": 1,
    "target": "true_class",
    "baseline": "zero",
    "durations": [0.1, 0.2],
    "gate": 1.0,
    "max_weight": 3.0,
    "keep": 0.5,
    "internal_batch_size": None,
}


def weights_by_hand(saliency, max_weight):
    """w of one utterance in numpy."""
    mean = saliency.mean()
    if mean == 0:
        return np.ones_like(saliency)
    return np.minimum(saliency / mean, max_weight)


def integrated_by_hand(x, a, mode, fill, gate, max_weight, keep):
    """I(x) of one utterance in numpy, straight from the table."""
    if mode == "identity":
        return x
    if mode == "gate":
        return x * (1 - gate + gate * weights_by_hand(abs(a), max_weight))
    if mode in ("time_gate", "reversed_gate"):
        w = weights_by_hand(abs(a).sum(1), max_weight)[:, None]
        w = w[::-1] if mode == "reversed_gate" else w
        return x * (1 - gate + gate * w)
    if mode == "overlay":
        return (x + a * x.std() / a.std()) / 2
    if mode == "attribution":
        return a * x.std() / a.std()
    saliency = abs(a) if mode == "mask" else abs(a).sum(1)
    kept = np.argsort(-saliency.ravel())[: round(keep * saliency.size)]
    is_kept = np.zeros(saliency.size, dtype=bool)
    is_kept[kept] = True
    is_kept = is_kept.reshape(saliency.shape)
    if mode == "time_mask":
        is_kept = is_kept[:, None]
    return np.where(is_kept, x, fill)


class TestIntegratedInputs:
    @pytest.mark.parametrize("mode", MODES)
    def test_table_of_modes(self, mode):
        feats, attribution = random_tensor(3, 10, 4), random_tensor(3, 10, 4)
        attribution = attribution.roll(1, 0) ** 3
        fill = random_tensor(4, seed=5)
        options = {"gate": 0.7, "max_weight": 2.0, "keep": 0.3}
        actual = integrated_inputs(
            feats, attribution, mode, baseline=fill, **options
        )
        for i in range(3):
            expected = integrated_by_hand(
                feats[i].numpy(),
                attribution[i].numpy(),
                mode,
                fill.numpy(),
                **options,
            )
            np.testing.assert_allclose(actual[i], expected, rtol=1e-12)

    @pytest.mark.parametrize("mode", MODES)
    def test_scale_of_the_map_is_irrelevant(self, mode):
        # Down to where the squares and the mean underflow in float32.
        feats, attribution = random_tensor(2, 50, 8), random_tensor(2, 50, 8)
        feats, attribution = feats.float(), attribution.flip(0).float()
        expected = integrated_inputs(feats, attribution, mode)
        for scale in (2.0**-110, 2.0**110, -1.0):
            actual = integrated_inputs(feats, attribution * scale, mode)
            if scale < 0 and mode in ("overlay", "attribution"):
                actual = feats - actual if mode == "overlay" else -actual
            # A few roundings of float32 on values of order 1 to 10.
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("mode", MODES)
    def test_empty_and_constant_maps(self, mode):
        feats = random_tensor(3, 10, 4).float()
        feats[2] = 0.1
        attribution = torch.zeros_like(feats)
        attribution[1:] = 0.1
        actual = integrated_inputs(feats, attribution, mode)
        share = {"overlay": 0.5, "attribution": 0.0}.get(mode, 1.0)
        # A constant map prefers no bin, up to the rounding of its mean.
        torch.testing.assert_close(actual, share * feats)

    def test_rounding_of_a_constant_map_is_not_amplified(self):
        feats = random_tensor(1, 10, 4).float()
        rounding = torch.where(random_tensor(1, 10, 4, seed=1) > 0, 6e-8, 0.0)
        actual = integrated_inputs(feats, 0.1 * (1 + rounding), "attribution")
        assert (actual == 0).all()

    def test_limits_of_the_options(self):
        feats = random_tensor(2, 10, 4)
        attribution = random_tensor(2, 10, 4, seed=1)
        for mode in ("gate", "time_gate", "reversed_gate"):
            actual = integrated_inputs(feats, attribution, mode, gate=0.0)
            assert torch.equal(actual, feats)
            ratio = integrated_inputs(feats, attribution, mode, max_weight=1.2)
            assert (ratio / feats).max() == pytest.approx(1.2)
        for mode in ("mask", "time_mask"):
            actual = integrated_inputs(feats, attribution, mode, keep=1)
            assert torch.equal(actual, feats)
            least = integrated_inputs(feats, attribution, mode, keep=1e-6)
            kept = (least != 0).flatten(1).sum(1)
            assert kept.tolist() == [1 if mode == "mask" else 4] * 2

    def test_gates_have_mean_weight_one(self):
        attribution = random_tensor(2, 10, 4)
        ones = torch.ones_like(attribution)
        for mode in ("gate", "time_gate", "reversed_gate"):
            weight = integrated_inputs(
                ones, attribution, mode, max_weight=1000.0
            )
            torch.testing.assert_close(
                weight.mean((1, 2)), torch.ones(2).double()
            )

    @pytest.mark.parametrize("mode", MODES)
    def test_constant_for_autograd(self, mode):
        feats = random_tensor(2, 10, 4).requires_grad_()
        attribution = random_tensor(2, 10, 4, seed=1).requires_grad_()
        assert not integrated_inputs(feats, attribution, mode).requires_grad

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"mode": "blur"}, "mode is 'blur'"),
            ({"gate": 1.5}, "gate is 1.5"),
            ({"max_weight": 0.5}, "max_weight is 0.5"),
            ({"keep": 0}, "keep is 0"),
        ],
    )
    def test_mistakes_are_named(self, change, words):
        feats = torch.zeros(1, 2, 3)
        with pytest.raises(UserError, match=words):
            integrated_inputs(feats, feats, **change)


class TestTheObjectOfTheYaml:
    def test_is_its_parts_in_order(self):
        network, feats = small_network(), random_tensor(3, 6, 4)
        target = torch.tensor([0, 4, 2])
        spectrum = [0.1, 0.2, 0.3, 0.4]
        options = {"gate": 0.5, "max_weight": 2.0, "keep": 0.3}
        for mode in MODES[:-1]:
            integrated = IntegratedInputs(
                **{
                    **OPTIONS,
                    "mode": mode,
                    "rule": "gauss_legendre",
                    "n_steps": 3,
                    "target": "log_posterior",
                    "baseline": spectrum,
                    "internal_batch_size": 2,
                    **options,
                }
            )
            actual, gap = integrated(network, feats, target)
            attribution, expected_gap = integrated_gradients(
                lambda x: (30 * network(x)).log_softmax(1),
                feats,
                target,
                rule="gauss_legendre",
                n_steps=3,
                baseline=torch.tensor(spectrum),
            )
            expected = integrated_inputs(
                feats,
                attribution,
                mode,
                baseline=torch.tensor(spectrum),
                **options,
            )
            torch.testing.assert_close(actual, expected, **EXACT)
            torch.testing.assert_close(gap, expected_gap, **EXACT)

    def test_the_scale_of_the_yaml_is_that_of_the_posterior(self):
        network, feats = small_network(), random_tensor(3, 6, 4)
        target = torch.tensor([0, 4, 2])
        options = {**OPTIONS, "target": "log_posterior", "mode": "attribution"}
        _, gap = IntegratedInputs(**{**options, "scale": 7.0})(
            network, feats, target
        )
        _, expected = integrated_gradients(
            lambda x: (7 * network(x)).log_softmax(1),
            feats,
            target,
            rule=OPTIONS["rule"],
            n_steps=OPTIONS["n_steps"],
        )
        torch.testing.assert_close(gap, expected, **EXACT)
        with pytest.raises(UserError, match="scale is 0"):
            IntegratedInputs(**{**OPTIONS, "scale": 0})

    def test_identity_asks_the_teacher_nothing(self):
        integrated = IntegratedInputs(**{**OPTIONS, "mode": "identity"})
        feats = random_tensor(2, 6, 4)
        actual, gap = integrated(None, feats, torch.tensor([0, 1]))
        assert torch.equal(actual, feats) and gap is None

    def test_segments_have_the_lengths_of_the_durations(self):
        integrated = IntegratedInputs(**OPTIONS)
        generator = torch.Generator().manual_seed(0)
        feats = random_tensor(2, 300, 4)
        drawn = [integrated.segments(feats, generator) for _ in range(30)]
        assert {s.features.shape[1] for s in drawn} == {10, 20}
        # At 100 frames a second.
        assert {s.seconds for s in drawn} == {0.1, 0.2}

    def test_a_seed_repeats_segments_and_inputs(self):
        options = {"rule": "stochastic", "baseline": "noise", "mode": "mask"}
        integrated = IntegratedInputs(**{**OPTIONS, **options})
        torch.manual_seed(7)
        network = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d((6, 4)), small_network()
        )
        feats, target = random_tensor(3, 40, 4), torch.tensor([0, 4, 2])

        def step(seed):
            generator = torch.Generator().manual_seed(seed)
            segments = integrated.segments(feats, generator).features
            return integrated(network, segments, target, generator)

        for a, b in zip(step(1), step(1), strict=True):
            assert torch.equal(a, b)
        assert not torch.equal(step(1)[1], step(2)[1])

    def test_noise_baseline_has_the_deviation_of_each_band(self):
        integrated = IntegratedInputs(
            **{**OPTIONS, "mode": "mask", "baseline": "noise", "keep": 1e-9}
        )
        deviations = torch.tensor([0.5, 1.0, 2.0, 0.0])
        feats = random_tensor(1, 4000, 4).float()
        feats = deviations * (feats - feats.mean(1)) / feats.std(1) + 9

        def logits(x):
            return x.square().sum((1, 2))[:, None]

        # Keeping one bin of 16,000 leaves the baseline itself.
        actual, _ = integrated(
            logits,
            feats,
            torch.tensor([0]),
            torch.Generator().manual_seed(0),
        )
        # Deviation of a deviation from 4,000 samples: 1.1 %; the bin that is
        # kept is 9 to 17 among them, hence the medians.
        spread = actual[0].abs().median(0).values / 0.6745
        torch.testing.assert_close(spread, deviations, rtol=0.06, atol=1e-5)

    @pytest.mark.parametrize(
        "key, value",
        [
            ("mode", "blur"),
            ("rule", "trapezoid"),
            ("n_steps", 0),
            ("n_steps", 1.5),
            ("target", "loss"),
            ("baseline", "black"),
            ("baseline", []),
            ("baseline", [float("nan")]),
            ("baseline", None),
            ("durations", []),
            ("durations", [1.0, 0.0]),
            ("gate", -0.1),
            ("max_weight", 0.9),
            ("keep", 0.0),
            ("keep", True),
            ("internal_batch_size", 0),
            ("frame_rate", 0),
            ("share", 0.0),
            ("share", 1.01),
        ],
    )
    def test_mistakes_are_named_at_construction(self, key, value):
        with pytest.raises(UserError, match=key):
            IntegratedInputs(**{**OPTIONS, key: value})
