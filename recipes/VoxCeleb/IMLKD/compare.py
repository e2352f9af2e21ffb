#!/usr/bin/env python3
"""Compares methods over speaker folds and seeds, and reports them like a paper.

To run it on MiniVox:
> python compare.py hparams/minivox/compare.yaml

Each (pair, fold, seed) trains one teacher and then every method on the same
data order, chunks, augmentation and initialisation. Runs go in parallel; what
is done is skipped, so that an interrupted comparison goes on where it was.
Results: <report_folder>/{results.json, table.md, runs.csv, curves.png, ...}.

The same models on another corpus, four times the updates, the search for
hyperparameters and the ablation; with the same output_folder, trainings of the
same name are shared:
> python compare.py hparams/minivox/unseen.yaml
> python compare.py hparams/minivox/long.yaml
> python compare.py hparams/minivox/tuning.yaml
> python compare.py hparams/minivox/ablation.yaml

Authors
    * IML-KD contributors
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain.comparison import (
    TEACHER,
    collect_runs,
    dev_table,
    locate_known,
    read_curves,
    run_folder,
    write_report,
)
from imlkd_brain.dataio import load_hyperparameters
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.plots import require_matplotlib
from imlkd_brain.processes import child_environment
from imlkd_brain.teacher import INFERENCE
from imlkd_brain.trained_with import SAVE, TrainingRecord, read_record
from speechbrain.utils.distributed import infer_device

CACHE = "teacher_cache"
OVERRIDES = "overrides.json"
KEYS = """
output_folder report_folder data_folder runs train_teacher train_student
teacher_overrides student_overrides pairs methods baselines evaluate durations
crop_seed bootstrap_samples plots jobs threads teacher_cache test_folder
test_trials
""".split()


def check_keys(hparams, hparams_file):
    """Refuses a YAML without all that a comparison reads."""
    missing = [key for key in KEYS if key not in hparams]
    if missing:
        raise UserError(
            f"{hparams_file}: {', '.join(missing)} left out; see "
            "hparams/minivox/compare.yaml for what each key does."
        )


def drop_nulls(hparams):
    """Leaves out the methods and pairs that a YAML gives as null."""
    for key in ("methods", "pairs"):
        kept = {k: v for k, v in hparams[key].items() if v is not None}
        hparams[key] = kept


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
    script = Path(__file__).with_name("train_kd.py")
    command = [sys.executable, str(script), hparams[recipe]]
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


@contextmanager
def sole_use(jobs):
    """Keeps other comparisons out of this one's runs.

    They share names, and would train the same folder at once or remove the
    teacher's answers that a training here is reading.
    """
    with ExitStack() as stack:
        for place in sorted({current["folder"].parent for current in jobs}):
            place.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(place / ".lock", "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{place}: another comparison is at work on this run; "
                    "start again when it has ended."
                ) from error
        yield


def fold_list(hparams, run, part):
    """The trial list of a fold, dev or test."""
    folder = Path(hparams["data_folder"], "trials")
    path = folder / f"fold{run['fold']}_{part}.txt"
    if not path.is_file():
        raise UserError(
            f"{path}: missing; build the corpus with `python -m "
            f"imlkd_brain.minivox --data_folder {hparams['data_folder']}`, or "
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


def check_unseen(hparams):
    """Refuses trials with a speaker that a model of the run was trained on."""
    for pair in hparams["pairs"]:
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            trained = pd.read_csv(place / "csv" / "train.csv")["spk_id"]
            listed = locate_known(
                test_list(hparams, run), hparams["test_folder"]
            )
            known = set(trained) & set(listed.speakers)
            if known:
                raise UserError(
                    f"{test_list(hparams, run)}: {min(known)} is a training "
                    f"speaker of {place.name}; test on others."
                )


def drop_caches(hparams, unfinished):
    """Removes the teacher's answers where no training needs them any more."""
    needed = {current["folder"].parent for current in unfinished}
    for pair in hparams["pairs"]:
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            if place not in needed:
                shutil.rmtree(place / CACHE, ignore_errors=True)


def is_done(folder):
    """Whether a training has exported its model."""
    return (folder / INFERENCE / "hyperparams.yaml").is_file()


def check_trained(jobs):
    """Refuses what was trained with other options under the same name.

    The training YAML counts as well as the overrides, and so do the
    annotations and the teacher. Before trainings kept that themselves there
    was a record of the overrides here. A folder without either was put there
    by hand, and is trusted.
    """
    for current in jobs:
        folder = current["folder"]
        save = folder / SAVE
        if read_record(folder / INFERENCE) or read_record(save):
            if "record" not in current:
                current["record"] = TrainingRecord.of_command(
                    current["command"][2:]
                )
            current["record"].add_data(**current["data"])
            current["record"].check(folder, save, same_limits=True)
        else:
            check_overrides(current)


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


def prepare_folds(hparams):
    """Prepares the annotations of every fold once."""
    for pair, models in hparams["pairs"].items():
        # The models of a pair have one sampling rate, or their training stops.
        overrides = {
            **hparams["teacher_overrides"],
            **(models.get("teacher") or {}),
            **hparams["student_overrides"],
            **(models.get("student") or {}),
        }
        rate = {k: v for k, v in overrides.items() if k == "sample_rate"}
        for run in hparams["runs"]:
            place = run_folder(hparams["output_folder"], pair, run)
            prepare_voxceleb(
                data_folder=str(hparams["data_folder"]),
                save_folder=str(place / "csv"),
                verification_pairs_file=str(fold_list(hparams, run, "test")),
                splits=["train", "dev"],
                random_segment=True,
                dev_pairs_file=str(fold_list(hparams, run, "dev")),
                begun=any(place.glob("*/save/CKPT*")),
                **rate,
            )


def run_jobs(hparams, jobs):
    """Runs the trainings in parallel, each after its teacher.

    A failed training does not stop the others; what failed is said at the
    end.
    """
    waiting = [j for j in jobs if not is_done(j["folder"])]
    running, failed = [], []
    bar = tqdm(
        total=len(jobs),
        initial=len(jobs) - len(waiting),
        desc="trainings",
        dynamic_ncols=True,
    )
    try:
        while waiting or running:
            for process, current in list(running):
                if process.poll() is None:
                    continue
                running.remove((process, current))
                bar.update()
                drop_caches(hparams, [*waiting, *(j for _, j in running)])
                if process.returncode or not is_done(current["folder"]):
                    failed.append(current["folder"])
            blocked = [j for j in waiting if j["depends"] in failed]
            failed += [j["folder"] for j in blocked]
            waiting = [j for j in waiting if j not in blocked]
            ready = [
                j
                for j in waiting
                if j["depends"] is None or is_done(j["depends"])
            ]
            for current in ready[: hparams["jobs"] - len(running)]:
                waiting.remove(current)
                running.append((start(hparams, current), current))
                bar.set_postfix_str("/".join(current["folder"].parts[-2:]))
            time.sleep(0.2)
    except BaseException:
        for process, _ in running:
            # Not SIGINT, which is ignored by whatever `nohup ... &` started.
            process.terminate()
        for process, _ in running:
            process.wait()
        raise
    finally:
        bar.close()
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} trainings failed (first: "
            f"{failed[0]}, see its output.txt); the others are kept, run the "
            "same command again when the cause is removed."
        )


def start(hparams, current):
    """Starts one training with its share of the cores."""
    current["folder"].mkdir(parents=True, exist_ok=True)
    with open(current["folder"] / "output.txt", "a") as output:
        return subprocess.Popen(
            current["command"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(hparams["threads"]),
        )


def main(argv):
    """Trains, scores and reports."""
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    hparams["device"] = run_opts.device
    check_keys(hparams, hparams_file)
    drop_nulls(hparams)
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    if hparams["plots"]:
        require_matplotlib()
    jobs = plan(hparams)
    with sole_use(jobs):
        train_and_report(hparams, jobs, run_opts, argv)


def train_and_report(hparams, jobs, run_opts, argv):
    """Everything that needs the runs for itself."""
    check_trained(jobs)
    prepare_folds(hparams)
    check_trained(jobs)
    check_unseen(hparams)
    link_teachers(hparams)
    run_jobs(hparams, jobs)
    # A teacher that was trained just now may be another than its students'.
    check_trained(jobs)
    curves = read_curves(
        hparams["output_folder"],
        hparams["pairs"],
        hparams["runs"],
        hparams["methods"],
    )
    if hparams["evaluate"] == "dev":
        # Tuning: nothing of the test speakers is looked at.
        table = dev_table(curves)
        folder = Path(hparams["report_folder"])
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "dev.csv", index=False, float_format="%.6g")
        print(table.round(2).to_string(index=False))
        return
    rows, replicates, speakers = collect_runs(
        hparams,
        lambda run: test_list(hparams, run),
        run_opts.device or infer_device(),
    )
    about = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{run_opts.device or infer_device()}, torch {torch.__version__}",
        "command": f"python compare.py {' '.join(argv)}",
    }
    print(write_report(hparams, rows, replicates, speakers, curves, about))


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
