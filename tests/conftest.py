"""What the tests share: folders of scripts on the path, and real speech."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Side by side (`pytest -n 2`), a test is given one core, and so is what it
# starts; torch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers.parsing import parse_once

from imlkd_brain.corpora.splits import SPLITS_FILE
from imlkd_brain.locks import locked
from speechbrain.utils.importutils import LazyModule

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "VoxCeleb" / "IMLKD"
sys.path.insert(0, str(RECIPE))
sys.path.insert(0, str(ROOT / "benchmarks"))

# Hypothesis asks every imported module for its file, and SpeechBrain's lazy
# modules answer that by importing what need not be installed.
LazyModule.__file__ = None


@pytest.fixture(scope="session", autouse=True)
def yaml_parsed_once():
    """Spare the tests a third of their processor time."""
    with pytest.MonkeyPatch.context() as patch:
        parse_once(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def models_of_tests(tmp_path_factory):
    """A folder for models and for trust, in place of the user's own.

    An export records that it is trusted. Processes of tests inherit it.
    """
    folder = tmp_path_factory.mktemp("imlkd_models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMLKD_MODELS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_minivox():
    """The tiny MiniVox (klettres), built once per machine.

    It stays in the folder of the environment variable MINIVOX_TINY, or in
    ``data/minivox-tiny-<hash of the lists of speakers>``; a finished build is
    used as it is.
    """
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here, so MiniVox cannot be fetched")
    lists = hashlib.sha256(SPLITS_FILE.read_bytes()).hexdigest()[:8]
    folder = Path(
        os.environ.get("MINIVOX_TINY")
        or ROOT / "data" / f"minivox-tiny-{lists}"
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of tests side by side, the first builds it and the others wait.
    with locked(folder.with_suffix(".lock"), f"{folder}: being built"):
        build = subprocess.run(
            [sys.executable, "-m", "imlkd_brain.corpora.minivox"]
            + ["--data_folder", str(folder), "--tiny"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert build.returncode == 0, build.stderr[-2000:]
    return folder
