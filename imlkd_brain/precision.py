"""What float32 means on a GPU: all of its bits, or TensorFloat-32.

SpeechBrain switches TensorFloat-32 (TF32) on when it is imported: products of
float32 numbers then keep 10 bits of the 23 of their mantissa. Importing this
module switches it off again, so that float32 is float32 unless the key
``allow_tf32`` of a YAML says otherwise.

Authors: IML-KD contributors
"""

from contextlib import contextmanager

import torch

# Its import changes the setting, so it has to come first.
import speechbrain  # noqa: F401


def set_tf32(allow):
    """Say whether products of float32 numbers may run in TF32.

    Arguments
    ---------
    allow : bool
        True: matrix products and convolutions on a GPU that has TF32 use it.
        False: they keep the precision of float32.

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
    """Keep the precision of float32 inside, whatever is set outside.

    A context manager, and a decorator of functions.

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
