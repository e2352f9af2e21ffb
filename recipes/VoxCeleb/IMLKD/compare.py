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

import os
import platform
import sys
from datetime import date
from pathlib import Path

import torch
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain.comparison.plan import (
    check_keys,
    check_overrides,
    fold_list,
    link_teachers,
    plan,
    run_folder,
    test_list,
)
from imlkd_brain.comparison.report import dev_table, read_curves, write_report
from imlkd_brain.comparison.run import check_unseen, run_jobs, sole_use
from imlkd_brain.comparison.scores import collect_runs
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.models.folder import INFERENCE
from imlkd_brain.settings import load_hyperparameters
from imlkd_brain.trained_with import SAVE, TrainingRecord, read_record
from speechbrain.utils.distributed import infer_device


def drop_nulls(hparams):
    """Leaves out the methods and pairs that a YAML gives as null."""
    for key in ("methods", "pairs"):
        kept = {k: v for k, v in hparams[key].items() if v is not None}
        hparams[key] = kept


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


def main(argv):
    """Trains, scores and reports."""
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    hparams["device"] = run_opts.device
    hparams["train_script"] = Path(__file__).with_name("train_kd.py")
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
