"""Unit tests of ``imlkd_brain.distillation.batchnorm``."""

import pytest
import torch
from helpers.states import copy_of, same

from imlkd_brain.distillation.batchnorm import batchnorm_of, batchnorm_policy
from imlkd_brain.errors import UserError


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batchnorm_policies_by_definition(momentum):
    def norm():
        layer = torch.nn.BatchNorm1d(3, momentum=momentum)
        layer(first)
        return layer

    torch.manual_seed(0)
    first, second = torch.randn(6, 3), 5 + 2 * torch.randn(6, 3)
    own = (second - second.mean(0)) / (
        second.var(0, correction=0) + 1e-5
    ).sqrt()

    raw_only = norm()
    before = copy_of(raw_only)
    with batchnorm_policy(raw_only, "raw_only"):
        # Rounding of float32 in another order of operations.
        torch.testing.assert_close(raw_only(second), own, atol=1e-5, rtol=1e-5)
    assert same(before, copy_of(raw_only))

    running = norm()
    with batchnorm_policy(running, "running"):
        value = running(second)
    expected = (second - before["running_mean"]) / (
        before["running_var"] + 1e-5
    ).sqrt()
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)
    assert same(before, copy_of(running))

    shared, plain = norm(), norm()
    with batchnorm_policy(shared, "shared"):
        shared(second)
    plain(second)
    assert same(copy_of(shared), copy_of(plain))

    # Afterwards each is an ordinary training BatchNorm again.
    for layer in (raw_only, running):
        assert layer.training and layer.momentum == momentum
        layer(second)
        assert same(copy_of(layer), copy_of(plain))


def test_broken_integrated_inputs_leave_batchnorm_alone():
    layer = torch.nn.BatchNorm1d(3)
    with batchnorm_policy(layer, "raw_only"):
        layer(torch.full((4, 3), torch.nan))
    assert layer.running_mean.isfinite().all()
    with pytest.raises(RuntimeError):
        with batchnorm_policy(layer, "running"):
            raise RuntimeError
    assert layer.training
    assert batchnorm_of("shared", "iml_kd_plus") == "shared"
    each = {"iml_kd": "running"}
    assert batchnorm_of(each, "iml_kd") == "running"
    assert batchnorm_of(each, "iml_kd_plus") == "raw_only"
    with pytest.raises(UserError, match="batchnorm is 'own'.*raw_only"):
        batchnorm_of({"iml_kd": "own"}, "iml_kd")
    with pytest.raises(UserError, match="batchnorm is 'own'.*raw_only"):
        with batchnorm_policy(layer, "own"):
            pass
