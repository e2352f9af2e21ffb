"""Unit tests of ``imlkd_brain.models.speaker_model``."""

import torch
from helpers.verification import Model

from imlkd_brain.models.speaker_model import model_size


def test_model_size_by_hand():
    """A convolution and a linear layer, counted on paper."""

    class Sized(Model):
        def __init__(self):
            super().__init__()
            self.embedding_model = torch.nn.ModuleDict(
                {
                    "conv": torch.nn.Conv1d(4, 8, 3),
                    "linear": torch.nn.Linear(8, 5),
                }
            )

        def features(self, wavs):
            return wavs.reshape(1, 4, -1)[..., :100]

        def embed_features(self, feats):
            hidden = self.embedding_model["conv"](feats).mean(dim=2)
            return self.embedding_model["linear"](hidden)

    parameters, macs = model_size(Sized())
    assert parameters == (4 * 3 + 1) * 8 + (8 + 1) * 5
    assert macs == 98 * 8 * 4 * 3 + 8 * 5
