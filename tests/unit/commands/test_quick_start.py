"""SpeechBrain without ``scipy.stats``, which is itself again afterwards."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["scipy.stats", "scipy.none"])
def test_the_stand_in_does_not_stay(name):
    """Also where SpeechBrain asks for something that is not in it."""
    code = f"""
import sys
from imlkd_brain.commands import quick_start
quick_start.SLOW = {name!r}
real = quick_start.ModuleType
def without(name):
    module = real(name)
    if {name != "scipy.stats"}:
        sys.modules["scipy.stats"] = real("scipy.stats")
    return module
quick_start.ModuleType = without
quick_start.import_speechbrain()
if {name != "scipy.stats"}:
    assert "speechbrain" not in sys.modules
    del sys.modules["scipy.stats"]
assert quick_start.SLOW not in sys.modules
from speechbrain.lobes.features import Fbank
from scipy.stats import lognorm
assert lognorm.mean(1) > 1
quick_start.import_speechbrain()
assert sys.modules["scipy.stats"].lognorm is lognorm
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
