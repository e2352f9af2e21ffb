"""How weights and options of losses change over a training.

Authors: IML-KD contributors
"""

import math

SCHEDULES = ("constant", "linear", "cosine")


def remaining(schedule, done):
    """How much of a value that falls to zero is left.

    Arguments
    ---------
    schedule : str
        ``constant``, ``linear`` or ``cosine``.
    done : float
        Share of the fall that lies behind; above 1 nothing changes any more.

    Returns
    -------
    float
        From 1 at the start to 0 at the end; always 1 for ``constant``.

    Example
    -------
    >>> remaining("linear", 0.25), remaining("cosine", 0.5)
    (0.75, 0.5)
    """
    if schedule == "constant":
        return 1.0
    done = min(1.0, done)
    if schedule == "linear":
        return 1 - done
    return (1 + math.cos(math.pi * done)) / 2
