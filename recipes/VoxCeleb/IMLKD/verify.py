#!/usr/bin/env python3
"""Recipe for speaker verification with trained models on trial lists.

Each utterance is embedded once and its embedding is stored. The score of a
trial is the cosine of its two embeddings. Every model is measured on every list
at every duration of test speech.

To run this recipe, train models with train_kd.py, then:
> python verify.py hparams/eval.yaml --data_folder /path/to/VoxCeleb1

On the corpus that installs itself (see the README):
> python verify.py hparams/minivox/eval.yaml --data_folder DIR

With `torchrun --standalone --nproc_per_node=8 verify.py ...` the processes share
the embedding, and the main one scores.

The output folder then holds results.json (every figure, with its convention),
table.txt (the printed tables), scores.txt (one line a trial) and, for each
list, a DET plot and a score histogram. With --decision_list (dev trials) it has
each model's threshold and calibration too, and with --store_decision True the
models' folders have them.

Authors
    * IML-KD contributors
"""

import datetime
import os
import platform
import sys
from pathlib import Path

import torch
from tqdm import tqdm

import speechbrain as sb
from imlkd_brain.data.crops import read_durations
from imlkd_brain.distributed import meet_to_share
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.files import write_whole
from imlkd_brain.locks import hold
from imlkd_brain.models.size import model_size
from imlkd_brain.precision import set_tf32
from imlkd_brain.settings import as_list, load_hyperparameters
from imlkd_brain.verification.decisions import (
    measure_decisions,
    write_decisions,
)
from imlkd_brain.verification.embeddings import Embedder
from imlkd_brain.verification.figures import draw_plots
from imlkd_brain.verification.inputs import (
    check_inputs,
    open_cohort,
    open_dev_list,
    open_lists,
    open_models,
)
from imlkd_brain.verification.keys import SCHEMA
from imlkd_brain.verification.measures import MACS_SECONDS, Measures, measure
from imlkd_brain.verification.report import (
    format_tables,
    write_results,
    write_scores,
)
from imlkd_brain.verification.scorer import BackEnd, Scorer, score_lists
from speechbrain.utils.distributed import if_main_process, infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def main(argv):
    "Checks everything, embeds and scores, then measures and reports."
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(
        argv, SCHEMA
    )
    meet_to_share()
    set_tf32(hparams["allow_tf32"])
    if hparams["threads"]:
        torch.set_num_threads(hparams["threads"])
    device = run_opts.device or infer_device()
    durations = read_durations(hparams["durations"])

    # Models, lists and cohort; mistakes in them show before the work starts
    models = open_models(hparams["models"], device)
    corpus = {
        "data_folder": hparams["data_folder"],
        "enrolment_file": hparams["enrolment_file"],
        "speaker_map": hparams["speaker_map"],
        "allow_repeated_trials": hparams["allow_repeated_trials"],
    }
    lists = open_lists(as_list(hparams["trial_lists"]), **corpus)
    calibration, dev_trials = (
        open_dev_list(key, hparams[key], **corpus)
        for key in ("calibration_list", "decision_list")
    )
    back_end = BackEnd(
        crop_enrolment=hparams["crop_enrolment"],
        mean_subtraction=hparams["mean_subtraction"],
        score_norm=hparams["score_norm"],
        cohort_top=hparams["cohort_top"],
    )
    cohort = open_cohort(
        back_end,
        hparams["cohort_csv"],
        hparams["data_folder"],
        hparams["cohort_size"],
        hparams["seed"],
    )
    check_inputs(
        lists,
        models,
        cohort,
        {"calibration": calibration, "decision": dev_trials},
        hparams["allow_training_speakers"],
    )

    if if_main_process():
        hold(hparams["output_folder"], "verification")
    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    output_folder = Path(hparams["output_folder"])

    # Embeddings and scores
    embed = Embedder(
        hparams["embedding_store"],
        seed=hparams["seed"],
        data_folder=hparams["data_folder"],
        allow_tf32=hparams["allow_tf32"],
        max_batch_seconds=hparams["max_batch_seconds"],
        max_padding_seconds=hparams["max_padding_seconds"],
        readers=hparams["readers"],
    )
    scored = []
    for name, model in models.items():
        logger.info(f"Embedding and scoring with {name} on {device}")
        scorer = Scorer(model, embed, back_end, cohort)
        scored += score_lists(name, scorer, lists, durations, calibration)
    # The tables go list by list
    titles = [located.trials.name for located in lists]
    scored.sort(key=lambda one: titles.index(one.list_name))
    if if_main_process():
        report(hparams, output_folder, models, lists, scored, device)

    # The threshold that the models are used with
    if dev_trials is not None:
        decisions = measure_decisions(models, embed, dev_trials, durations)
        written = output_folder, decisions, models, hparams["store_decision"]
        if if_main_process():
            print(write_decisions(*written))
    logger.info(f"Results, scores and plots are in {output_folder}")


def report(hparams, output_folder, models, lists, scored, device):
    "Measures scored lists; writes scores, figures, results and tables."
    write_scores(output_folder, scored)

    # Figures
    measures = Measures(
        p_targets=as_list(hparams["p_targets"]),
        group_separator=hparams["group_separator"],
        bootstrap_samples=hparams["bootstrap_samples"],
        seed=hparams["seed"],
    )
    rows = []
    for one in tqdm(scored, desc="measuring", unit="model"):
        rows += measure(one, measures)
    if hparams["plots"]:
        draw_plots(output_folder, scored, rows)
    sizes = {
        name: model_size(model, MACS_SECONDS) for name, model in models.items()
    }
    write_results(
        output_folder / "results.json",
        lists,
        models,
        sizes,
        rows,
        date=datetime.datetime.now().isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {device}, "
        f"torch {torch.__version__}",
        seed=hparams["seed"],
        options={
            "crop_enrolment": hparams["crop_enrolment"],
            "score_norm": hparams["score_norm"],
            "mean_subtraction": hparams["mean_subtraction"],
            "max_padding_seconds": hparams["max_padding_seconds"],
            "allow_tf32": hparams["allow_tf32"],
        },
    )
    table = format_tables(
        rows,
        sizes,
        measures.p_targets[0],
        {located.trials.name: located.warning for located in lists},
    )
    write_whole(output_folder / "table.txt", table)
    print(f"\n{table}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
