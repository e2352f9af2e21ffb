"""Applies the patches to a copy of SpeechBrain and runs its own checks."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from upstream import checkout, library, recipe

LOG_LINES = 30  # of a check that fails
SAMPLES = "tests/samples/ASR"

# What SpeechBrain's scripts in tests/ call, for the recipe's rows alone.
OUR_ROWS = (
    f'filters_fields=["Readme_file"], filters=["{recipe.RECIPE}/README.md"]'
)
LOAD_YAMLS = (
    "import sys; from tests.utils.recipe_tests import load_yaml_test; "
    f"sys.exit(not load_yaml_test({OUR_ROWS}))"
)
RUN_RECIPES = (
    "import sys; from tests.utils.recipe_tests import run_recipe_tests; "
    f'sys.exit(not run_recipe_tests(run_opts="--device=cpu", {OUR_ROWS}))'
)
DOCSTRINGS = (
    "import sys; from tests.utils.check_docstrings import check_docstrings; "
    f'sys.exit(not check_docstrings(".", ["{recipe.RECIPE}"]))'
)


def run(source, revision, patches):
    """Try the patches; return the exit code.

    Arguments
    ---------
    source : str
        A SpeechBrain checkout.
    revision : str
        Of the checkout.
    patches : list of Path
        What to apply, in this order.

    Returns
    -------
    int
        0 if every check passes.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = checkout.copy_of(source, Path(folder, "speechbrain"), revision)
        base = checkout.git(copy, "rev-parse", "HEAD").strip()
        print(f"SpeechBrain {base[:9]}")
        try:
            for patch in patches:
                checkout.apply_patch(copy, patch)
        except subprocess.CalledProcessError as error:
            print(f"FAILS   {patch.name} does not apply: {error.stderr}")
            return 1
        print(f"passes  git am of {len(patches)} patches")
        touched = checkout.git(
            copy, "diff", "--name-only", "--diff-filter=d", base
        ).split()
        environment = _environment(copy, Path(folder, "bin"))
        verdicts = [
            _check(name, command, copy, environment)
            for name, command in _commands(copy, Path(folder), touched, base)
        ]
        verdicts.append(_same_weights(copy, Path(folder, "ours")))
    failed = verdicts.count(False)
    print(f"{len(verdicts) - failed} of {len(verdicts)} checks pass")
    return int(bool(failed))


def _commands(copy, folder, touched, base):
    """(name, command) of each check."""
    python = sys.executable
    sources = [path for path in touched if path.endswith(".py")]
    # A link into another recipe is not ours.
    sources = [path for path in sources if not (copy / path).is_symlink()]
    hparams = [path for path in touched if path.endswith(".yaml")]
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return [
        ("ruff check", [python, "-m", "ruff", "check", *sources]),
        ("ruff format", [python, "-m", "ruff", "format", "--check", *sources]),
        ("yamllint", [python, "-m", "yamllint", *hparams]),
        ("codespell", _codespell(python, touched)),
        ("white space", ["git", "diff", "--check", base]),
        ("docstrings of the recipe", [python, "-c", DOCSTRINGS]),
        ("tests/consistency", [*pytest, "tests/consistency"]),
        ("YAMLs load", [python, "-c", LOAD_YAMLS]),
        ("recipe tests", [python, "-c", RUN_RECIPES]),
        ("training with the preparation", _preparation(copy, folder)),
        (
            "unit tests of error rates and checkpoints",
            [
                *pytest,
                "tests/unittests/test_metrics.py",
                "tests/unittests/test_checkpoints.py",
            ],
        ),
        (
            "doctests of error rates and checkpoints",
            [
                *pytest,
                "--doctest-modules",
                library.METRICS,
                library.CHECKPOINTS,
            ],
        ),
    ]


# Runs a script whose teachers keep their BatchNorm. The slim recipe does not
# fold it into convolutions, and folding rounds otherwise.
UNFOLDED = """
import os, runpy, sys
from imlkd_brain.distillation import teacher
teacher.folded = lambda model: model
sys.argv.pop(0)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _same_weights(copy, folder):
    """Train here as the recipe tests did; compare the weights to the bit."""
    first = checkout.first_row(copy, recipe.ROWS, recipe.RECIPE)
    differing = []
    for number, row in enumerate(recipe.rows(first)[:2], first):
        theirs = f"tests/tmp/VoxCeleb_row_{number:02d}"
        flags = row["test_debug_flags"].replace("tests/tmp", str(folder))
        output = folder / Path(theirs).name
        done = subprocess.run(
            [
                *(sys.executable, "-c", UNFOLDED),
                str(recipe.ROOT / recipe.SCRIPT),
                str(recipe.ROOT / row["Hparam_file"]),
                *shlex.split(flags),
                f"--output_folder={output}",
                *("--device=cpu", "--debug", "--debug_persistently"),
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(recipe.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A try has a folder of its own here, the next one looks for it above.
        if (output / "debug").is_dir():
            shutil.copytree(output / "debug", output, dirs_exist_ok=True)
        weights = [
            place / "inference" / "embedding_model.ckpt"
            for place in (output, copy / theirs)
        ]
        if done.returncode:
            differing.append(f"{row['Hparam_file']} does not run here:")
            differing += done.stdout.splitlines()[-LOG_LINES:]
        elif not all(map(os.path.isfile, weights)):
            differing.append(f"{weights[1]} is missing")
        elif not _equal(*(torch.load(path) for path in weights)):
            differing.append(f"{row['Hparam_file']}: other weights")
    passes = not differing
    print(f"{'passes ' if passes else 'FAILS  '} weights as here")
    for line in differing:
        print(f"        {line}")
    return passes


def _equal(left, right):
    """Whether two state dicts are the same to the bit."""
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) for name, value in left.items()
    )


def _codespell(python, touched):
    """Codespell as SpeechBrain's pre-commit configuration calls it."""
    return [
        *(python, "-m", "codespell_lib"),
        "--ignore-words=.dict-speechbrain.txt",
        "--ignore-regex='base64,.*?=='",
        *[path for path in touched if not path.endswith(".csv")],
    ]


def _preparation(copy, folder):
    """A training that prepares a small tree, laid out as VoxCeleb."""
    corpus = folder / "corpus"
    for number, path in enumerate(sorted((copy / SAMPLES).glob("*.wav"))):
        speaker, name = path.stem.split("_")
        place = corpus / "wav" / speaker / f"session{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{name}.wav")
    trials = corpus / "veri_test2.txt"
    trials.write_text(
        "1 spk3/session0/snt1.wav spk3/session1/snt2.wav\n", encoding="utf-8"
    )
    command = [
        *("python", recipe.SCRIPT),
        f"{recipe.RECIPE}/hparams/{recipe.YAMLS[0]}",
        f"--data_folder={corpus}",
        f"--verification_file={trials}",
        f"--output_folder={folder / 'trained'}",
        "--number_of_epochs=1",
        "--batch_size=4",
        "--num_workers=0",
        "--sentence_len=0.5",
        "--augmentation=False",
        "--split_ratio=[80, 20]",
        *("--device=cpu", "--debug"),
    ]
    made = folder / "trained" / "inference" / "embedding_model.ckpt"
    return ["sh", "-c", f"{shlex.join(command)} && test -f {made}"]


def _environment(copy, shims):
    """Offline, with the copy's speechbrain, whatever is installed."""
    shims.mkdir()
    python = shims / "python"
    # SpeechBrain's recipe tests set PYTHONPATH for each script.
    python.write_text(
        "#!/bin/sh\n"
        f'PYTHONPATH="$PYTHONPATH:{copy}" exec {shlex.quote(sys.executable)} '
        '"$@"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "HF_HUB_OFFLINE": "1",
    }


def _check(name, command, copy, environment):
    """Run one check in the copy; print and return its verdict."""
    for _ in range(2):
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # On a busy machine, gloo's threads now and then abort a process of
        # SpeechBrain's test of parallel checkpoints when it exits.
        if "terminated with signal SIGABRT" not in done.stdout:
            break
    passes = done.returncode == 0
    print(f"{'passes ' if passes else 'FAILS  '} {name}", flush=True)
    if not passes:
        lines = done.stdout.splitlines()
        # A list of all that was looked at hides the one that is wrong.
        errors = [line for line in lines if "ERROR" in line or "FAILED" in line]
        for line in errors or lines[-LOG_LINES:]:
            print(f"        {line}")
        for path in sorted(copy.glob("tests/tmp/*/stderr.txt")):
            text = path.read_text(encoding="utf-8").strip()
            if "Error" in text or "error" in text:
                print(f"        {path.parent.name}:")
                for line in text.splitlines()[-LOG_LINES:]:
                    print(f"        {line}")
    return passes
