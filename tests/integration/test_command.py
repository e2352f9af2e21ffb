"""`imlkd` as people get it: from a wheel, in another folder, as a process."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import verify
from PIL import Image
from synthetic import write_model

from imlkd_brain.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MINIVOX_YAML = str(ROOT / "hparams" / "minivox" / "eval.yaml")
NAME = "aaa-test"  # the first by name, so that it is the default
# What `pip wheel` asks the package for, without pip around it.
BUILD = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"


def run(words, folder, **environment):
    """Run a command as a process, without this repository on its path."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**kept, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def measured(tiny_minivox, tmp_path_factory):
    """A model with the threshold that verify.py stored, and its output."""
    folder = tmp_path_factory.mktemp("measured")
    write_model(folder / "run", speakers=["nobody", "noone"], dim=24)
    verify.main(
        [
            MINIVOX_YAML,
            f"--data_folder={tiny_minivox}",
            f"--output_folder={folder / 'out'}",
            f"--models={{student: {folder / 'run'}}}",
            "--durations=[full]",
            "--decision_list=trials/dev.txt",
            "--store_decision=True",
            "--plots=False",
            "--bootstrap_samples=0",
            "--group_separator=null",
        ]
    )
    return folder


@pytest.fixture(scope="module")
def installed(measured, tmp_path_factory):
    """The folder of a new environment that has the wheel, with a model in it."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(
        ROOT / "imlkd_brain", source / "imlkd_brain", ignore=unwanted
    )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        measured / "run" / "inference",
        source / "imlkd_brain" / "models" / "shipped" / NAME,
    )
    built = run([sys.executable, "-c", BUILD, folder], source)
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    made = run(
        [sys.executable, "-m", "venv", "--without-pip", environment], folder
    )
    assert made.returncode == 0, made.stderr
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    # PyTorch is large: the libraries are those of this environment. What makes
    # an editable install importable there is not read from here.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = run(
        [*pip, "--python", python, "install", "--quiet", "--no-deps"]
        + ["--no-index", "--no-compile", "--force-reinstall", wheel],
        folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The source is gone: what runs is what the wheel has.
    shutil.rmtree(source)
    return environment


def test_the_wheel_has_the_package_data(installed):
    (wheel,) = installed.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "imlkd_brain"
    data = {
        f"imlkd_brain/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name in ("hyperparams.yaml", "embedding_model.ckpt", "decision.json"):
        data.add(f"imlkd_brain/models/shipped/{NAME}/{name}")
    assert not data - names


def test_the_installed_command_decides_as_verify(
    installed, measured, tiny_minivox, tmp_path
):
    """Right after pip install, from another folder, with the shipped model."""
    imlkd = installed / "bin" / "imlkd"
    where = run(
        [installed / "bin" / "python", "-c"]
        + ["import imlkd_brain; print(imlkd_brain.__file__)"],
        tmp_path,
    )
    assert where.stdout.startswith(str(installed)), where
    decision = json.loads(
        (measured / "run" / "inference" / "decision.json").read_text()
    )
    scores = measured / "out" / "scores" / "test" / "student" / "full.txt"
    lines = [line.split() for line in scores.read_text().splitlines()]
    lowest, highest = (f(lines, key=lambda x: float(x[3])) for f in (min, max))
    for enrol, test, _, score in (lowest, highest):
        files = [tiny_minivox / "wav" / f"{name}.wav" for name in (enrol, test)]
        done = run([imlkd, "verify", *files, "--json"], tmp_path)
        content = json.loads(done.stdout)
        # The score file has six decimals.
        assert content["score"] == pytest.approx(float(score), abs=1e-5)
        same = float(score) > decision["threshold"]
        assert content["same_speaker"] is same
        assert done.returncode == (0 if same else 1), done.stderr
        assert NAME in content["model"] and "/venv/" in content["model"]
        assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_the_first_steps(measured, tiny_minivox, tmp_path, capsys):
    script = str(ROOT / "examples" / "first_steps.py")
    first_steps = runpy.run_path(script)["main"]
    words = ["--data_folder", tiny_minivox, "--model", measured / "run"]
    first_steps([str(word) for word in [*words, "--out", tmp_path / "out"]])
    said = capsys.readouterr().out
    assert "24 recordings, embeddings of 24 numbers" in said
    assert "from the model's dev trials" in said
    for name in ("similarities.png", "map.png"):
        picture = Image.open(tmp_path / "out" / name)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 8
    with pytest.raises(UserError, match="imlkd_brain.corpora.minivox"):
        first_steps(["--data_folder", str(tmp_path)])
