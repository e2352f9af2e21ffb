#!/usr/bin/env python3
"""Compares methods over speaker folds and seeds, and reports them like a paper.

To run it on MiniVox:
> python compare.py hparams/minivox/compare.yaml

Each run (pair, fold, seed) trains one teacher and then every method on the same
data order, chunks, augmentation and initial weights. Trainings run side by
side. What is done is skipped, so that an interrupted comparison goes on.
Results: <report_folder>/{results.json, table.md, runs.csv, curves.png, ...}.

Other comparisons with the same output_folder share trainings of the same name:
the same models on another corpus, the search for hyperparameters, and variants.
> python compare.py hparams/minivox/unseen.yaml
> python compare.py hparams/minivox/tuning.yaml
> python compare.py hparams/minivox/variants.yaml

On speechocean762 with a public teacher, see docs/protocol.md:
> python compare.py hparams/speechocean762/few_labels.yaml

Authors
    * IML-KD contributors
"""

import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import torch
from voxceleb_prepare import prepare_voxceleb

import speechbrain as sb
from imlkd_brain.comparison.checks import (
    check_baselines,
    check_options,
    check_scored,
    check_trained,
    check_unseen,
)
from imlkd_brain.comparison.keys import SCHEMA
from imlkd_brain.comparison.plan import (
    link_teachers,
    list_runs,
    plan,
    preparation,
    read_pairs,
)
from imlkd_brain.comparison.report import (
    About,
    model_sizes,
    read_curves,
    write_report,
)
from imlkd_brain.comparison.run import run_trainings, sole_use
from imlkd_brain.comparison.scores import Scoring, collect_runs
from imlkd_brain.comparison.steps import Step, run_groups
from imlkd_brain.comparison.tables import dev_table
from imlkd_brain.comparison.trainings import TEACHER, Recipe
from imlkd_brain.data.crops import read_durations
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.locks import hold
from imlkd_brain.settings import load_hyperparameters
from speechbrain.utils.distributed import infer_device


def main(argv):
    """Trains, scores and reports."""
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(
        argv, SCHEMA
    )
    device = run_opts.device or infer_device()
    scoring = Scoring(
        data_folder=hparams["test_folder"],
        durations=read_durations(hparams["durations"]),
        seed=hparams["crop_seed"],
        bootstrap_samples=hparams["bootstrap_samples"],
        device=device,
    )
    # Runs and their trainings
    pairs = read_pairs(
        hparams["pairs"],
        hparams["teacher_overrides"],
        hparams["student_overrides"],
    )
    runs = list_runs(
        hparams["output_folder"],
        hparams["data_folder"],
        pairs,
        hparams["runs"],
        hparams["test_trials"],
        hparams["teacher"],
    )
    recipe = Recipe(
        script=Path(__file__).with_name("train_kd.py"),
        teacher_yaml=hparams["train_teacher"],
        student_yaml=hparams["train_student"],
        data_folder=hparams["data_folder"],
        device=run_opts.device,
        teacher_cache=hparams["teacher_cache"],
        answers=hparams["answers"],
        answers_yaml=hparams["store_answers"],
        answers_folder=Path(hparams["output_folder"], "answers"),
    )
    # A method that a YAML gives as null is left out.
    methods = {k: v for k, v in hparams["methods"].items() if v is not None}
    models = [*methods]
    if hparams.get("test_teacher", True):
        models.insert(0, TEACHER)
    check_baselines(hparams["baselines"], models)
    trainings = plan(runs, pairs, methods, recipe)
    check_options(trainings)
    # Hours later, when the models are trained, would be late.
    check_scored(runs, hparams["test_folder"])

    hold(hparams["report_folder"], "comparison", "report_folder")
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    with sole_use(runs):
        if recipe.answers:
            store_answers(recipe, hparams["teacher"])
        train(hparams, runs, pairs, trainings)
        curves = read_curves(runs, methods)
        report_folder = Path(hparams["report_folder"])
        report_folder.mkdir(parents=True, exist_ok=True)
        if hparams["evaluate"] == "dev":
            # Tuning does not look at the test speakers.
            table = dev_table(curves)
            path = report_folder / "dev.csv"
            table.to_csv(path, index=False, float_format="%.6g")
            print(table.round(2).to_string(index=False))
            return
        rows, draws = collect_runs(runs, models, scoring)
        about = About(
            date=date.today().isoformat(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores, {device}, "
            f"torch {torch.__version__}",
            command=f"python compare.py {' '.join(argv)}",
            runs=hparams["runs"],
            baselines=list(hparams["baselines"]),
            sizes=model_sizes(runs, models),
            corpus=Path(hparams["test_folder"]).name,
        )
        plots = hparams["plots"]
        print(write_report(report_folder, about, rows, draws, curves, plots))


def store_answers(recipe, teacher):
    """Asks the teacher once for all runs; what is stored is not asked again."""
    command = recipe.answers_command(teacher)
    script = shlex.quote(str(recipe.script.with_name("teach.py")))
    step = Step("the teacher's answers", f"{script} {shlex.join(command)}")
    run_groups([[step]], recipe.answers_folder)


def train(hparams, runs, pairs, trainings):
    """Prepares the folds, and runs the trainings that are not done."""
    check_trained(trainings)
    for run in runs:
        prepare_voxceleb(
            **preparation(run, pairs[run.pair], hparams["data_folder"])
        )
    # Now the annotations are there and can be compared.
    check_trained(trainings)
    check_unseen(runs, hparams["test_folder"])
    link_teachers(runs)
    run_trainings(trainings, hparams["jobs"], hparams["threads"])
    # The students of a teacher that was trained just now may have had another.
    check_trained(trainings)


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
