#!/usr/bin/env python3
"""Recipe for speaker verification with trained models on trial lists.

Every utterance is embedded once and kept on disk, trials are scored by the
cosine of their two sides, and every model is measured on every list at every
duration of test speech.

To run this recipe, train models with train_kd.py, then:
> python verify.py hparams/eval.yaml --data_folder /path/to/VoxCeleb1

On the corpus that installs itself (see the README):
> python verify.py hparams/minivox/eval.yaml --data_folder DIR

The output folder then holds results.json (every figure, with its convention),
table.txt (what is printed), scores.txt (one line a trial) and, for each list,
a DET plot and a score histogram.

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
from imlkd_brain.errors import one_sentence_errors
from imlkd_brain.figures import require_matplotlib
from imlkd_brain.files import replacing, write_json
from imlkd_brain.models.speaker_model import model_size
from imlkd_brain.precision import set_tf32
from imlkd_brain.settings import as_list, load_hyperparameters
from imlkd_brain.verification.calibration import score_model
from imlkd_brain.verification.figures import draw_plots
from imlkd_brain.verification.inputs import (
    check_inputs,
    open_cohort,
    open_lists,
    open_models,
)
from imlkd_brain.verification.report import (
    CONVENTIONS,
    MACS_SECONDS,
    format_tables,
    measure,
    write_scores,
)
from imlkd_brain.verification.scorer import Scorer, make_embedder
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def main(argv):
    "Checks everything, embeds and scores, then measures and reports."
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    set_tf32(hparams["allow_tf32"])
    device = run_opts.device or infer_device()
    durations = read_durations(hparams["durations"])
    if hparams["plots"]:
        require_matplotlib()

    # All mistakes in models, lists and audio show before the work starts
    models = open_models(hparams["models"], device)
    lists = open_lists(as_list(hparams["trial_lists"]), hparams)
    calibration = None
    if hparams["calibration_list"]:
        calibration = open_lists([hparams["calibration_list"]], hparams)[0]
    cohort = open_cohort(hparams)
    check_inputs(lists, models, calibration, cohort, hparams)

    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    output_folder = Path(hparams["output_folder"])

    # Embeddings and scores
    embed = make_embedder(hparams)
    scores, ratios = {}, {}
    for name, model in models.items():
        logger.info(f"Embedding and scoring with {name} on {device}")
        scorer = Scorer(
            model,
            embed,
            crop_enrolment=hparams["crop_enrolment"],
            cohort=cohort,
            subtract_mean=hparams["mean_subtraction"],
            score_norm=hparams["score_norm"],
            cohort_top=hparams["cohort_top"],
        )
        for parts, whole in zip(
            score_model(scorer, lists, calibration, durations),
            (scores, ratios),
            strict=True,
        ):
            for (of_list, duration), values in parts.items():
                whole[of_list, name, duration] = values
    write_scores(output_folder, lists, scores, ratios)

    # Figures
    sizes = {
        name: model_size(model, MACS_SECONDS) for name, model in models.items()
    }
    rows = []
    conditions = [(located, name) for located in lists for name in models]
    for located, name in tqdm(conditions, desc="measuring", unit="model"):
        of_condition = [
            {d: values[located.trials.name, name, d] for d in durations}
            if values
            else None
            for values in (scores, ratios)
        ]
        rows += measure(
            located,
            name,
            *of_condition,
            p_targets=as_list(hparams["p_targets"]),
            group_separator=hparams["group_separator"],
            bootstrap_samples=hparams["bootstrap_samples"],
            seed=hparams["seed"],
        )
    if hparams["plots"]:
        draw_plots(output_folder, lists, scores, rows)
    write_json(
        output_folder / "results.json",
        {
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
            f"{device}, torch {torch.__version__}",
            "seed": hparams["seed"],
            "conventions": CONVENTIONS,
            "options": {
                key: hparams[key]
                for key in (
                    "crop_enrolment",
                    "score_norm",
                    "mean_subtraction",
                    "max_padding_seconds",
                    "allow_tf32",
                )
            },
            "models": {
                name: {
                    "source": model.source,
                    "key": model.key,
                    "parameters": sizes[name][0],
                    "macs": sizes[name][1],
                }
                for name, model in models.items()
            },
            "lists": {
                located.trials.name: {
                    "path": located.trials.path,
                    "trials": len(located.pairs),
                    "utterances": len(located.trials.utterances),
                    "speakers": len(located.speakers),
                    "speakers_not_known": located.doubt or None,
                }
                for located in lists
            },
            "results": rows,
        },
    )
    table = format_tables(
        rows,
        sizes,
        as_list(hparams["p_targets"])[0],
        {located.trials.name: located.warning for located in lists},
    )
    with replacing(output_folder / "table.txt") as stream:
        stream.write(table)
    print(f"\n{table}")
    logger.info(f"Results, scores and plots are in {output_folder}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
