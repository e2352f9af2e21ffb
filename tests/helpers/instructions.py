"""Lets torch see the instructions of another CPU."""

import torch


def cpu_of(capability, monkeypatch):
    """Let torch find other instructions than this machine's."""
    monkeypatch.setattr(
        torch.backends.cpu, "get_cpu_capability", lambda: capability
    )
