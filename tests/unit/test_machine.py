"""Unit tests of ``imlkd_brain.machine``."""

import pytest
import torch

from imlkd_brain.errors import UserError
from imlkd_brain.machine import check_device, check_precision


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
