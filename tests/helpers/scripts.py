"""Runs a script in the process of the tests, which has imported torch already."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes/VoxCeleb/IMLKD"


def run_script(name, *arguments):
    """Run a script of the recipe as ``python NAME ...`` does in its folder.

    Arguments
    ---------
    name : str
        As ``"train_kd.py"``.
    *arguments : str
        Its command line.

    Returns
    -------
    SimpleNamespace
        ``returncode``, ``stdout`` and ``stderr``, as of a process.
    """
    said, complained = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
    ):
        patch.chdir(RECIPE)
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            runpy.run_path(str(RECIPE / name), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
    return SimpleNamespace(
        returncode=code, stdout=said.getvalue(), stderr=complained.getvalue()
    )
