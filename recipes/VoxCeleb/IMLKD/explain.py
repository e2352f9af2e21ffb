#!/usr/bin/env python3
"""Recipe to see which parts of the speech a speaker model depends on.

It makes saliency maps of a teacher and its students. Deletion, insertion and
parameter randomisation measure whether the maps are true. The comparison of
the maps says whether a student looks where its teacher looks, at full length
and at 3, 2 and 1 s.

To run this recipe, train models with train_kd.py, then:
> python explain.py hparams/explain.yaml --data_folder /path/to/VoxCeleb1

On the corpus that installs itself (see the README), or on any folder of wav
files (<speaker>/*.wav, or *.wav):
> python explain.py hparams/minivox/explain.yaml --data_folder data/minivox
> python explain.py hparams/minivox/explain.yaml --wav_folder my_wavs

The output folder then holds results.json, a CSV for each table and the
figures. Its save folder keeps maps and curves, so the same command goes on
where it was stopped.

Authors: IML-KD contributors
"""

import datetime
import os
import platform
import sys
from pathlib import Path

import torch

import speechbrain as sb
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.explanation.clock import Clock
from imlkd_brain.explanation.curves import CurvePlan
from imlkd_brain.explanation.figures import (
    map_figures,
    save_figures,
    table_figures,
)
from imlkd_brain.explanation.keys import SCHEMA
from imlkd_brain.explanation.map_sets import MapPlan
from imlkd_brain.explanation.maps import check_methods
from imlkd_brain.explanation.results import describe, summary, write_results
from imlkd_brain.explanation.run import explain_task
from imlkd_brain.explanation.sanity import shuffled_control
from imlkd_brain.explanation.scores import SHUFFLED, load_models
from imlkd_brain.explanation.tables import TABLES, Speakers, tabulate
from imlkd_brain.explanation.tasks import (
    check_figure_utterance,
    check_learnt,
    common_speakers,
    find_trials,
    folder_task,
    identification_task,
    read_folder,
    shortest_seconds,
    training_utterances,
    trials_task,
)
from imlkd_brain.locks import hold
from imlkd_brain.precision import set_tf32
from imlkd_brain.settings import as_list, load_hyperparameters
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

LISTS = (  # options that may be a single value on the command line
    "durations",
    "curve_durations",
    "units",
    "deletion_baselines",
    "insertion_baselines",
    "figure_methods",
    "figure_formats",
)
OPTIONS = (  # copied to results.json
    *LISTS[:5],
    "n_levels",
    "blur_sigma",
    "posterior_scale",
    "top_share",
    "reference_student",
    "n_bootstrap",
    "confidence",
    "n_sanity",
    "batch_frames",
    "allow_tf32",
)


def prepare(hparams, models):
    "Chooses utterances of held-out speakers and of training speakers."
    shortest = shortest_seconds(hparams["durations"])
    seed = hparams["seed"]
    speakers = common_speakers(models)
    if hparams["wav_folder"] is not None:
        folder = read_folder(
            hparams["wav_folder"], hparams["speaker_map"], shortest
        )
        tasks = [folder_task(folder, hparams["n_verification"], seed)]
        pool = [u for u in folder.utterances if u.speaker in speakers]
    else:
        located = find_trials(
            hparams["verification_file"],
            hparams["data_folder"],
            hparams["save_folder"],
            hparams["speaker_map"],
        )
        check_learnt(located, models, hparams["allow_training_speakers"])
        tasks = [
            trials_task(located, hparams["n_verification"], shortest, seed)
        ]
        pool = training_utterances(
            hparams["data_folder"], speakers, hparams["identification_csv"]
        )
    if pool:
        tasks.append(
            identification_task(
                pool, hparams["n_identification"], shortest, seed
            )
        )
    logger.info("; ".join(map(str, tasks)))
    return tasks


def make_plan(hparams, run_opts):
    "Says how maps and curves are made."
    # A method that is set to null is left out
    methods = {
        method: options
        for method, options in hparams["methods"].items()
        if options is not None
    }
    maps = MapPlan(
        methods,
        hparams["durations"],
        batch_frames=hparams["batch_frames"],
        seed=hparams["seed"],
        allow_tf32=hparams["allow_tf32"],
        save_folder=hparams["save_folder"],
        progressbar=not run_opts.noprogressbar,
    )
    return CurvePlan(
        maps,
        hparams["curve_durations"],
        units=hparams["units"],
        n_levels=hparams["n_levels"],
        baselines={
            "deletion": hparams["deletion_baselines"],
            "insertion": hparams["insertion_baselines"],
        },
        blur_sigma=hparams["blur_sigma"],
        posterior_scale=hparams["posterior_scale"],
    )


def main(argv):
    "Checks everything, makes maps and curves, then measures and draws."
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(
        argv, SCHEMA
    )
    set_tf32(hparams["allow_tf32"])
    if hparams["threads"]:
        torch.set_num_threads(hparams["threads"])
    device = run_opts.device or infer_device()
    for key in LISTS:
        hparams[key] = as_list(hparams[key])

    # All mistakes in options, models and data show before the work starts
    plan = make_plan(hparams, run_opts)
    models = load_models(hparams["models"], device)
    check_methods(plan.maps.methods, models.values())

    if run_opts.debug:
        hparams.update(n_verification=2, n_identification=2, n_sanity=1)

    # Utterances
    tasks = prepare(hparams, models)
    check_figure_utterance(hparams["figure_utterance"], tasks)

    hold(hparams["output_folder"], "explanation")
    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    if hparams["shuffled_control"] and len(models) > 1:
        student = list(models.values())[-1]
        models[SHUFFLED] = shuffled_control(student, hparams["seed"])

    # Maps, curves and tables
    output_folder = Path(hparams["output_folder"])
    figures = output_folder / "figures"
    formats = hparams["figure_formats"]
    clock, zero_means = Clock(), set()
    tables = {table: [] for table in TABLES}
    for task in tasks:
        made = explain_task(task, models, plan, hparams["n_sanity"], clock)
        zero_means.update(made.zero_means)
        speakers = Speakers(
            task, hparams["n_bootstrap"], hparams["confidence"], hparams["seed"]
        )
        share, reference = hparams["top_share"], hparams["reference_student"]
        for table, rows in tabulate(made, speakers, share, reference).items():
            tables[table] += rows
        clock.lap("statistics")
        drawn = map_figures(
            made,
            hparams["figure_utterance"],
            hparams["figure_methods"],
            plan.first_duration,
        )
        save_figures(drawn, figures, formats)
        clock.lap("figures")

    # Figures and results
    drawn = table_figures(
        tables,
        list(plan.maps.methods),
        hparams["figure_methods"],
        hparams["top_share"],
    )
    save_figures(drawn, figures, formats)
    clock.lap("figures")
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "seed": hparams["seed"],
        "options": {
            **{key: hparams[key] for key in OPTIONS},
            "methods": plan.maps.methods,
        },
        **describe(tasks, models),
        "band_mean_is_zero_at": sorted(zero_means),
        "seconds": clock.seconds,
        "command": " ".join(["python", "explain.py", *argv]),
        **tables,
    }
    write_results(results, output_folder)
    print(f"{summary(results)}\n\n{clock.table()}")
    logger.info(f"Results and figures: {hparams['output_folder']}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
