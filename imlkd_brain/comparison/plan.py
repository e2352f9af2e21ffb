"""Lists the trainings of a comparison: folders, commands, dependencies.

A *run* is one fold and seed: one teacher, and each method's student on the
same data order, chunks, augmentation and initialisation.

Authors: IML-KD contributors
"""

import json
import os
import sys
from pathlib import Path

from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import INFERENCE

TEACHER = "teacher"

CACHE = "teacher_cache"
OVERRIDES = "overrides.json"
KEYS = """
output_folder report_folder data_folder runs train_teacher train_student
teacher_overrides student_overrides pairs methods baselines evaluate durations
crop_seed bootstrap_samples plots jobs threads teacher_cache test_folder
test_trials
""".split()


def run_folder(output_folder, pair, run):
    """Return the folder of one fold and seed of a pair.

    Example
    -------
    >>> run_folder("out", "small", {"fold": 0, "seed": 1}).as_posix()
    'out/runs/small/fold0_seed1'
    """
    name = f"fold{run['fold']}_seed{run['seed']}"
    return Path(output_folder, "runs", pair, name)


def check_keys(hparams, hparams_file):
    """Refuses a YAML without all that a comparison reads."""
    missing = [key for key in KEYS if key not in hparams]
    if missing:
        raise UserError(
            f"{hparams_file}: {', '.join(missing)} left out; see "
            "hparams/minivox/compare.yaml for what each key does."
        )


def plan(hparams):
    """Lists every training as a dict: name, folder, command and dependency."""
    jobs = []
    for pair, models in hparams["pairs"].items():
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            cache = place / CACHE if hparams["teacher_cache"] else None
            shared = {
                "seed": run["seed"],
                "data_folder": hparams["data_folder"],
                "train_annotation": place / "csv" / "train.csv",
                "valid_annotation": place / "csv" / "dev.csv",
                "valid_trials": fold_list(hparams, run, "dev"),
                "skip_prep": True,
            }
            teacher = {
                **hparams["teacher_overrides"],
                **(models.get("teacher") or {}),
            }
            taught_by = teacher_folder(hparams, pair, run)
            if taught_by not in [other["folder"] for other in jobs]:
                places = {**shared, "output_folder": taught_by}
                jobs.append(
                    job(
                        hparams,
                        "train_teacher",
                        taught_by,
                        places,
                        teacher,
                        None,
                    )
                )
            for name, overrides in hparams["methods"].items():
                student = {
                    **hparams["student_overrides"],
                    **(models.get("student") or {}),
                    **overrides,
                }
                places = {
                    **shared,
                    "teacher_folder": place / TEACHER,
                    "teacher_cache": cache,
                    "output_folder": place / name,
                }
                jobs.append(
                    job(
                        hparams,
                        "train_student",
                        place / name,
                        places,
                        student,
                        taught_by,
                    )
                )
    return jobs


def teacher_folder(hparams, pair, run):
    """Where a pair's teacher is trained: `teacher_of` names another pair."""
    owner = hparams["pairs"][pair].get("teacher_of", pair)
    return run_folder(hparams["output_folder"], owner, run) / TEACHER


def link_teachers(hparams):
    """Links the teachers of other pairs to where a pair's own would be."""
    for pair, models in hparams["pairs"].items():
        if models.get("teacher_of", pair) == pair:
            continue
        for run in hparams["runs"]:
            link = run_folder(hparams["output_folder"], pair, run) / TEACHER
            target = teacher_folder(hparams, pair, run)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(link):
                link.symlink_to(os.path.relpath(target, link.parent))
            elif link.resolve() != target.resolve():
                raise UserError(
                    f"{link}: this pair has another teacher already; remove "
                    f"it, or correct `teacher_of` of {pair} in the YAML."
                )


def job(hparams, recipe, folder, places, overrides, depends):
    """Describes one training."""
    script = str(hparams["train_script"])
    command = [sys.executable, script, hparams[recipe]]
    for key, value in {**places, **overrides}.items():
        command += [f"--{key}", option(value)]
    command.append("--noprogressbar")
    if hparams["device"]:
        command += ["--device", hparams["device"]]
    return {
        "folder": folder,
        "command": command,
        "depends": depends,
        "overrides": overrides,
        "data": training_files(places, overrides),
    }


def training_files(places, overrides):
    """What a training's result depends on, by the name in its record."""
    given = {**places, **overrides}
    names = {
        "train_annotation": "train_annotation",
        "valid_annotation": "valid_annotation",
        "valid_trials": "valid_trials",
        "teacher": "teacher_folder",
        "initial_weights": "initial_weights",
    }
    return {name: given[key] for name, key in names.items() if key in given}


def option(value):
    """Writes an override's value so that the command line leaves it whole."""
    text = str(value) if isinstance(value, Path) else value
    # JSON is YAML, and what is quoted has no `: ` or `#` to trip over; the
    # command line is split at `=`.
    return json.dumps(text, ensure_ascii=False).replace("=", "\\u003d")


def fold_list(hparams, run, part):
    """The trial list of a fold, dev or test."""
    folder = Path(hparams["data_folder"], "trials")
    path = folder / f"fold{run['fold']}_{part}.txt"
    if not path.is_file():
        raise UserError(
            f"{path}: missing; build the corpus with `python -m "
            f"imlkd_brain.corpora.minivox --data_folder {hparams['data_folder']}`, or "
            "correct `runs` in the YAML."
        )
    return path


def test_list(hparams, run):
    """The trial list that a run's models are scored on."""
    if hparams["test_trials"] is None:
        return fold_list(hparams, run, "test")
    path = Path(hparams["test_trials"])
    if not path.is_file():
        raise UserError(
            f"{path}: no such trial list; see `test_trials` in the YAML, whose "
            "head says how to build the corpus."
        )
    return path


def is_done(folder):
    """Whether a training has exported its model."""
    return (folder / INFERENCE / "hyperparams.yaml").is_file()


def check_overrides(current):
    """Compares the overrides that an earlier version kept, where it did."""
    record = current["folder"] / OVERRIDES
    if not record.is_file():
        return
    before, now = json.loads(record.read_text()), current["overrides"]
    different = [
        f"{key} {before.get(key, 'left out')} before, "
        f"{now.get(key, 'left out')} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if different:
        raise UserError(
            f"{current['folder']}: trained with other options "
            f"({'; '.join(different)}); give the method another name or "
            "the comparison another output_folder, or remove this folder."
        )
