"""Copies of a module's parameters and buffers, and their comparison."""

import torch


def copy_of(module):
    """A copy of parameters and buffers."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(one, other):
    """Whether two states are bit for bit the same."""
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) for key, value in one.items()
    )
