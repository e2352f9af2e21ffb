"""Unit tests of ``imlkd_brain.machine``."""

import pytest
import torch
from helpers.instructions import cpu_of

from imlkd_brain import machine
from imlkd_brain.errors import UserError
from imlkd_brain.machine import (
    check_device,
    check_precision,
    is_slow_in_bfloat16,
)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", "cuda:3"):
        with pytest.raises(UserError, match=f"{device} is.*no GPU.*cpu`;?"):
            check_device(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")
    with pytest.raises(UserError, match="cuda:2 is not there.*2 GPUs"):
        check_device("cuda:2")


@pytest.mark.parametrize("device", ["toaster", "cuda:x", "", "meta", "hpu"])
def test_what_is_no_device_here(device):
    with pytest.raises(UserError, match="device: "):
        check_device(device)


def test_a_gpu_without_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="^precision: .*fp16"):
        check_precision("precision", "bf16", "cuda:0")
    check_precision("precision", "bf16", "cpu")
    check_precision("precision", "fp16", None)


@pytest.mark.parametrize(
    "capability, slow", [("AVX512", False), ("AVX2", True), ("DEFAULT", True)]
)
def test_a_cpu_without_bfloat16_is_said(capability, slow, monkeypatch):
    cpu_of(capability, monkeypatch)
    said = []
    monkeypatch.setattr(
        machine.logger, "warning_once", lambda text, *of: said.append(text % of)
    )
    assert is_slow_in_bfloat16("cpu") == slow
    assert not is_slow_in_bfloat16("cuda:0")
    check_precision("precision", "bf16", "cpu")
    assert len(said) == slow
    assert all("`--precision fp32`" in text for text in said)
    check_precision("precision", "fp32", "cpu")
    assert len(said) == slow
