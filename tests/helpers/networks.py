"""A small network and seeded tensors, in float64."""

import torch


def random_tensor(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def small_network():
    torch.manual_seed(7)
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(6 * 4, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 5),
    ).double()
