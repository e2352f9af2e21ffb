"""Imports SpeechBrain without ``scipy.stats``, a quarter of the start-up.

SpeechBrain's samplers import one distribution of it, for batches of random
size. The command draws no batches.

Authors: IML-KD contributors
"""

import importlib
import sys
from types import ModuleType

SLOW = "scipy.stats"


def import_speechbrain():
    """Import SpeechBrain with a stand-in for ``scipy.stats``.

    The stand-in is there during the import alone: who imports ``scipy.stats``
    later gets the real one. Nothing is done where either was imported before.
    A SpeechBrain that needs more of it is imported as usual.
    """
    if "speechbrain" in sys.modules or SLOW in sys.modules:
        return
    stand_in = ModuleType(SLOW)
    stand_in.lognorm = None
    sys.modules[SLOW] = stand_in
    try:
        importlib.import_module("speechbrain")
    except ImportError:
        # Another name of it is asked for: from the beginning, as usual.
        for name in list(sys.modules):
            if name.partition(".")[0] == "speechbrain":
                del sys.modules[name]
    finally:
        if sys.modules.get(SLOW) is stand_in:
            del sys.modules[SLOW]
