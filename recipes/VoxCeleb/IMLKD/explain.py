#!/usr/bin/env python3
"""Recipe to see where speaker models look, and to measure whether it is true.

Saliency maps of a teacher and its students, judged by deletion and insertion
and by parameter randomisation, and compared: does a student look where its
teacher looks, at full length and at 3, 2 and 1 s?

To run this recipe, do the following:
> python explain.py hparams/minivox/explain.yaml --data_folder data/minivox
or, on any folder of wav files (<speaker>/*.wav, or *.wav):
> python explain.py hparams/minivox/explain.yaml --wav_folder my_wavs

The results folder then holds results.json, the CSVs and the figures. What was
computed is kept in its save folder: the same command again goes on from there.

Authors: IML-KD contributors
"""

import datetime
import os
import platform
import sys
import time
from pathlib import Path

import torch

import speechbrain as sb
from imlkd_brain.data.crops import duration_name, read_durations
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.explanation.figures import (
    draw_curves,
    draw_fidelity,
    draw_maps,
    draw_sanity,
)
from imlkd_brain.explanation.maps import METHODS, find_layer
from imlkd_brain.explanation.sanity import add_shuffled_control
from imlkd_brain.explanation.stages import (
    all_curves,
    all_maps,
    all_sanity,
    baselines_differ,
)
from imlkd_brain.explanation.tables import (
    TABLES,
    Speakers,
    completeness_table,
    context_table,
    curve_tables,
    fidelity_table,
    sanity_table,
    summary,
    write_results,
)
from imlkd_brain.explanation.tasks import (
    TEACHER,
    corpus_tasks,
    enrol,
    folder_tasks,
    load_models,
)
from imlkd_brain.precision import set_tf32
from imlkd_brain.settings import load_hyperparameters
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

SHORTEST = 0.2  # seconds; below, an ECAPA-TDNN has too few frames to pad


# ------------------------------------------------------------------- main


def check_options(hparams):
    """Refuse what cannot be computed, before anything is."""
    durations = hparams["durations"]
    read_durations(durations)
    if not hparams["methods"]:
        raise UserError("methods: give at least one.")
    for method in hparams["figure_methods"]:
        if method not in hparams["methods"]:
            raise UserError(
                f"figure_methods: `{method}` is not one of the methods."
            )
    for duration in hparams["curve_durations"]:
        if duration not in durations:
            raise UserError(
                f"curve_durations: {duration} is not one of the durations "
                f"{durations}."
            )
    for method in hparams["methods"]:
        if method not in METHODS:
            raise UserError(
                f"methods: `{method}` is none of the maps; known are "
                f"{', '.join(METHODS)}."
            )
    if hparams["n_levels"] < 2:
        raise UserError("n_levels: curves need at least 2 levels, 0 and 100 %.")
    for key, least in (("n_verification", 1), ("n_identification", 1)):
        if hparams[key] < least:
            raise UserError(f"{key}: give at least {least}.")


def main(argv):
    """Maps, curves, sanity checks, comparison, figures."""
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    set_tf32(hparams["allow_tf32"])
    # A method set to null is left out, as a model is.
    hparams["methods"] = {
        method: options
        for method, options in hparams["methods"].items()
        if options is not None
    }
    check_options(hparams)
    device = run_opts.device or infer_device()

    # Create experiment directory
    sb.core.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    if run_opts.debug:
        hparams.update(n_verification=2, n_identification=2, n_sanity=1)

    models = load_models(hparams["models"], device)
    for method, options in hparams["methods"].items():
        if method == "grad_cam":
            for model in models.values():
                find_layer(model, options.get("layer"))
    seconds = [d for d in hparams["durations"] if d != "full"]
    shortest = max([SHORTEST, *seconds])
    if hparams["wav_folder"] is not None:
        tasks = folder_tasks(hparams, models, shortest)
    else:
        tasks = corpus_tasks(hparams, models, shortest)
    for task in tasks:
        logger.info(
            f"{task.name}: {len(task.utterances)} utterances of "
            f"{len({u.speaker for u in task.utterances})} speakers, "
            f"{len(task.trials)} trials"
        )
    chosen = hparams["figure_utterance"]
    keys = [u.key for task in tasks for u in task.utterances]
    if chosen is not None and chosen not in keys:
        raise UserError(
            f"figure_utterance: `{chosen}` is none of the utterances chosen "
            f"(such as {keys[0]}); take one of them, more of them "
            "(n_verification), or null."
        )
    if hparams["shuffled_control"] and len(models) > 1:
        add_shuffled_control(models, hparams["seed"])
    results = explain(tasks, models, hparams, run_opts, device)
    results["command"] = " ".join(["python", "explain.py", *argv])
    write_results(results, Path(hparams["output_folder"]))
    print(summary(results, hparams))
    print(f"\n{'stage':28s}{'seconds':>9s}{'processor':>11s}")
    for stage, (elapsed, processor) in results["seconds"].items():
        print(f"{stage:28s}{elapsed:9.1f}{processor:11.1f}")
    logger.info(f"Results and figures: {hparams['output_folder']}")


def explain(tasks, models, hparams, run_opts, device):
    """All stages; the dict that becomes results.json and the CSVs."""
    figures = Path(hparams["output_folder"]) / "figures"
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "seed": hparams["seed"],
        "models": {
            name: {
                "source": model.source,
                "key": model.key,
                "parameters": sum(
                    p.numel() for p in model.embedding_model.parameters()
                ),
            }
            for name, model in models.items()
        },
        "options": {
            "durations": hparams["durations"],
            "curve_durations": hparams["curve_durations"],
            "methods": hparams["methods"],
            "units": hparams["units"],
            "n_levels": hparams["n_levels"],
            "deletion_baselines": hparams["deletion_baselines"],
            "insertion_baselines": hparams["insertion_baselines"],
            "blur_sigma": hparams["blur_sigma"],
            "posterior_scale": hparams["posterior_scale"],
            "top_share": hparams["top_share"],
            "reference_student": hparams["reference_student"],
            "n_bootstrap": hparams["n_bootstrap"],
            "confidence": hparams["confidence"],
            "n_sanity": hparams["n_sanity"],
            "batch_frames": hparams["batch_frames"],
            "allow_tf32": hparams["allow_tf32"],
        },
        "utterances": {
            task.name: [utterance.key for utterance in task.utterances]
            for task in tasks
        },
        "trials": {task.name: len(task.trials) for task in tasks},
        "speakers_not_known": {
            task.name: task.doubt for task in tasks if task.doubt
        },
        "seconds": {},
    }
    results.update({table: [] for table in TABLES})
    clock = Clock(results["seconds"])
    panels_of, coincide = {}, set()
    for task in tasks:
        speakers = Speakers(task, hparams)
        enrolled = {
            name: enrol(task, model, model.embed_features, device)
            for name, model in models.items()
        }
        clock.lap("enrolment")
        maps = all_maps(task, models, enrolled, hparams, run_opts, device)
        clock.lap(f"maps ({task.name})")
        for duration in hparams["curve_durations"]:
            curves = all_curves(
                task,
                duration,
                models,
                enrolled,
                maps,
                hparams,
                run_opts,
                device,
            )
            clock.lap(f"curves ({task.name})")
            feats = maps[TEACHER][duration]["feats"]
            if not baselines_differ(feats, "band_mean"):
                coincide.add(duration_name(duration))
            for name, curves_of in curves.items():
                areas, points, panels = curve_tables(
                    task, duration, name, curves_of, hparams, speakers
                )
                results["areas"] += areas
                results["curves"] += points
                panels_of.setdefault((duration, name), []).append(panels)
        results["fidelity"] += fidelity_table(task, maps, hparams, speakers)
        results["context"] += context_table(task, maps, hparams, speakers)
        results["completeness"] += completeness_table(task, maps, speakers)
        clock.lap("statistics")
        if task.name == "verification" and hparams["n_sanity"] > 0:
            similarities = all_sanity(
                task, models, maps, hparams, run_opts, device
            )
            for name, similarity in similarities.items():
                results["sanity"] += sanity_table(
                    task, name, similarity, speakers
                )
            clock.lap("sanity")
        if hparams["figure_formats"]:
            draw_maps(task, maps, models, hparams, figures)
        clock.lap("figures")
    results["band_mean_is_zero_at"] = sorted(coincide)
    if coincide:
        logger.info(
            "baseline band_mean coincides with zero (features are "
            f"mean-normalised over these frames) at: {', '.join(coincide)}"
        )
    if hparams["figure_formats"]:
        draw_curves(panels_of, hparams, figures)
        draw_fidelity(results["fidelity"], hparams, figures)
        draw_sanity(results["sanity"], hparams, figures)
    clock.lap("figures")
    return results


class Clock:
    """Adds what has passed since the last lap to a stage.

    ``[elapsed, processor]`` seconds: they part where other programs run on
    the same cores.
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.last = self.now()

    def now(self):
        """Seconds on the clock and of this process on its processors."""
        return time.perf_counter(), time.process_time()

    def lap(self, stage):
        """End a stage."""
        now = self.now()
        spent = self.seconds.setdefault(stage, [0.0, 0.0])
        for i in range(2):
            spent[i] = round(spent[i] + now[i] - self.last[i], 2)
        self.last = now


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
