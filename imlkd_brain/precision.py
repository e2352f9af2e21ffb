"""Chooses between full float32 and TensorFloat-32 on a GPU.

Importing SpeechBrain switches TensorFloat-32 (TF32) on. Products of float32
numbers then keep 10 of the 23 bits of their mantissa. Importing this module
switches it off again; a YAML switches it on with ``allow_tf32: True``.

Authors: IML-KD contributors
"""

from contextlib import contextmanager

import torch

# Its import changes the setting, so it has to come first.
import speechbrain  # noqa: F401


def set_tf32(allow):
    """Switch TF32 on or off.

    Arguments
    ---------
    allow : bool
        If True, matrix products and convolutions on a GPU use TF32; if
        False, they keep the precision of float32.

    Example
    -------
    >>> set_tf32(False)
    >>> torch.backends.cuda.matmul.allow_tf32
    False
    """
    torch.backends.cuda.matmul.allow_tf32 = bool(allow)
    torch.backends.cudnn.allow_tf32 = bool(allow)


@contextmanager
def full_float32():
    """Switch TF32 off inside a block or a function.

    A context manager and a decorator. It restores the setting at the end.

    Example
    -------
    >>> set_tf32(True)
    >>> with full_float32():
    ...     torch.backends.cudnn.allow_tf32
    False
    >>> torch.backends.cudnn.allow_tf32
    True
    >>> set_tf32(False)
    """
    matmul = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32
    set_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn


set_tf32(False)
