"""A model that embeds without a network, and short text files."""

import torch

RATE = 16000


class Model(torch.nn.Module):
    """An embedding that can be computed by hand: moments of the samples."""

    key = "0123456789abcdef" * 4
    source = "model"
    sample_rate = RATE
    speakers = ("a", "z")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.batches = []

    def embed(self, wavs, lens):
        self.batches.append([round(float(n)) for n in lens * wavs.shape[1]])
        powers = torch.stack([wavs.abs() ** k for k in (1, 2, 3)], dim=1)
        return powers.sum(dim=2) / (lens * wavs.shape[1]).unsqueeze(1)


def write(path, text):
    """Write a text file and return its path."""
    path.write_text(text)
    return path
