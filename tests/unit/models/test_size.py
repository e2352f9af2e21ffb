"""How large models are, and how quickly that is known."""

import subprocess
import sys

import torch
from helpers.verification import Model
from torch.utils.flop_counter import FlopCounterMode

from imlkd_brain.models.shipped import SHIPPED
from imlkd_brain.models.size import model_size


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


def test_a_whole_network_counts_as_much_as_in_torch():
    """Self-attention as well, which is made of several operations."""

    class Attentive(Model):
        def __init__(self):
            super().__init__()
            self.embedding_model = torch.nn.TransformerEncoderLayer(8, 2, 16)

        def features(self, wavs):
            return wavs.reshape(1, -1, 8)[:, :50]

        def embed_features(self, feats):
            return self.embedding_model(feats)

    model = Attentive()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.embed_features(model.features(torch.zeros(1, 48000)))
    assert model_size(model)[1] == counter.get_total_flops() // 2 > 50 * 8 * 8


def test_loading_folding_and_counting_import_no_compiler():
    """What torch imports for one takes longer than the rest of a start."""
    code = f"""
import sys
from imlkd_brain.models.folded import folded
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.size import model_size
model = load_speaker_model({str(SHIPPED / "ecapa80")!r})
assert model_size(model)[0] == 346_802
assert folded(model.embedding_model) is not model.embedding_model
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
