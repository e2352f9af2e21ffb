"""Fixtures that several test files of this folder share."""

import pytest
import torch

from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

N_FRAMES, N_BANDS = 60, 16


@pytest.fixture
def ecapa():
    torch.manual_seed(0)
    network = ECAPA_TDNN(
        N_BANDS,
        channels=[16] * 4 + [32],
        attention_channels=8,
        se_channels=8,
        lin_neurons=12,
    )
    return network.eval().requires_grad_(False)
