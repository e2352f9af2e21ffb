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
from imlkd_brain import metrics, plots, reports, verification
from imlkd_brain.dataio import load_hyperparameters
from imlkd_brain.errors import UserError, one_sentence_errors
from imlkd_brain.precision import set_tf32
from imlkd_brain.teacher import load_speaker_model
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def as_list(value):
    "Makes a list of a single value, which is easier to type in a terminal."
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def open_models(models, device):
    "Loads the models of the YAML: folders by name, or folders alone."
    if not isinstance(models, dict):
        models = {str(folder).rstrip("/"): folder for folder in as_list(models)}
    opened = {
        name: load_speaker_model(folder, device)
        for name, folder in models.items()
        if folder
    }
    if not opened:
        raise UserError(
            "models: there is no model to verify; give folders, as in "
            "--models '[results/iml_kd/1986]'."
        )
    return opened


def open_lists(names, hparams):
    "Reads trial lists and finds their audio, before anything is embedded."
    lists, enrolments = {}, {}
    if hparams["enrolment_file"]:
        enrolments = verification.read_enrolments(hparams["enrolment_file"])
    for name in map(str, names):
        path = verification.find_trial_list(name, hparams["data_folder"])
        official = name in verification.OFFICIAL_LISTS
        title = name if official else path.stem
        if title in lists:
            title = str(path.with_suffix(""))
        trials = verification.read_trials(
            path,
            name=title,
            # What is published is taken as it was published.
            allow_repeated_trials=official or hparams["allow_repeated_trials"],
        )
        if official:
            _, expected = verification.OFFICIAL_LISTS[name]
            if len(trials.labels) != expected:
                logger.warning(
                    f"{path}: {len(trials.labels)} trials, but the cleaned "
                    f"{name} has {expected}; figures are not comparable."
                )
        lists[title] = verification.locate_trials(
            trials,
            hparams["data_folder"],
            enrolments,
            hparams["speaker_map"],
        )
        if lists[title].doubt:
            logger.warning(lists[title].warning)
    return list(lists.values())


def read_durations(durations):
    "Seconds of test speech by the name of the duration; None is all of it."
    seconds = {}
    for duration in as_list(durations):
        if duration == "full":
            seconds["full"] = None
        elif isinstance(duration, int | float) and duration > 0:
            seconds[f"{duration:g}s"] = duration
        else:
            raise UserError(
                f"durations: {duration!r} is neither `full` nor a positive "
                "number of seconds; expected, for example, [full, 3, 2, 1]."
            )
    if not seconds:
        raise UserError(
            "durations: the list is empty; expected, for example, [full, 2]."
        )
    return seconds


def open_cohort(hparams):
    "Speakers of the cohort's files; empty where no cohort is used."
    method = hparams["score_norm"]
    if method is not None and method not in verification.NORMALISATIONS:
        raise UserError(
            f"score_norm: {method!r} is not known; expected one of "
            f"{', '.join(verification.NORMALISATIONS)}, or null."
        )
    if method is None and not hparams["mean_subtraction"]:
        return {}
    if not hparams["cohort_csv"]:
        raise UserError(
            "cohort_csv: score_norm and mean_subtraction need a cohort; give "
            "the train.csv in the save folder of a training run."
        )
    cohort = verification.read_cohort(
        hparams["cohort_csv"],
        hparams["data_folder"],
        hparams["cohort_size"],
        hparams["seed"],
    )
    least = hparams["cohort_top"] if method == "as-norm" else 2
    if len(cohort) < least:
        raise UserError(
            f"{hparams['cohort_csv']}: {len(cohort)} cohort utterances, but "
            f"at least {least} are needed; lower cohort_top or give a larger "
            "cohort."
        )
    return cohort


def check_inputs(lists, models, calibration, cohort, hparams):
    "Refuses lists whose speakers a model or a back end has learnt from."
    allow = hparams["allow_training_speakers"]
    sources = verification.training_speakers(models)
    for source, speakers in sources.items():
        if not speakers:
            logger.warning(
                f"{source} is not known, its folder names no speakers: "
                "nothing says that test speakers were held out."
            )
    sources["the cohort"] = cohort.values()
    reasons = []
    if calibration is not None:
        reasons += verification.check_held_out(
            calibration,
            sources,
            allow,
            "what is calibrated on it would be too sure of itself",
        )
        sources["the calibration list"] = calibration.speakers
    for located in lists:
        reasons += verification.check_held_out(located, sources, allow)
    for reason in reasons:
        logger.warning(f"{reason}; going on, as told.")


def make_embedder(hparams):
    "Embeds files at a duration, with a store for each model and duration."
    stores = {}

    def embed(model, paths, seconds):
        crop = verification.crop_name(seconds, hparams["seed"])
        if hparams["allow_tf32"]:
            # Kept apart: the store may be shared with runs in full float32.
            crop += "-tf32"
        if (model.key, crop) not in stores:
            stores[model.key, crop] = verification.EmbeddingStore(
                hparams["embedding_store"], model.key, crop
            )
        return verification.embed_utterances(
            model,
            paths,
            stores[model.key, crop],
            seconds=seconds,
            seed=hparams["seed"],
            max_batch_seconds=hparams["max_batch_seconds"],
            max_padding_seconds=hparams["max_padding_seconds"],
            readers=hparams["readers"],
        )

    return embed


def score_model(scorer, lists, calibration, durations):
    """Scores of all lists at all durations.

    Returns
    -------
    scores : dict
        Scores (P,) for each list and duration.
    ratios : dict
        Log-likelihood ratios for the same; empty without calibration list.
    """
    scores, speech, ratios = {}, {}, {}
    for located in lists:
        for name, seconds in durations.items():
            key = (located.trials.name, name)
            scores[key], speech[key] = scorer.score(located, seconds)
            _, test_speech = speech[key]
            short = int((test_speech < (seconds or 0)).sum())
            if short:
                logger.info(
                    f"{key[0]}: in {short} of {len(test_speech)} trials the "
                    f"test utterance is shorter than {name} and taken whole"
                )
    if calibration is not None:
        features = []
        for seconds in durations.values():
            dev_scores, dev_speech = scorer.score(calibration, seconds)
            features.append(
                verification.calibration_features(dev_scores, *dev_speech)
            )
        weights, offset = verification.train_calibration(
            torch.cat(features),
            calibration.trials.labels.repeat(len(durations)),
        )
        for key in scores:
            features = verification.calibration_features(
                scores[key], *speech[key]
            )
            ratios[key] = features @ weights + offset
    return scores, ratios


def draw_plots(output_folder, lists, scores, rows):
    "A DET plot and a score histogram for each list."
    thresholds = {
        (row["list"], row["model"], row["duration"]): row["eer_threshold"]
        for row in rows
        if row["group"] == reports.ALL
    }
    for located in lists:
        name, labels = located.trials.name, located.trials.labels
        curves, panels = {}, {}
        for (of_list, *condition), values in scores.items():
            if of_list == name:
                targets, nontargets = values[labels], values[~labels]
                condition = tuple(condition)
                curves[condition] = metrics.det_points(targets, nontargets)
                panels[condition] = (
                    targets,
                    nontargets,
                    thresholds[(name, *condition)],
                )
        word = name.replace("/", "_")
        plots.det_plot(output_folder / f"det_{word}.png", curves, name)
        plots.score_histogram(
            output_folder / f"histogram_{word}.png", panels, name
        )


def main(argv):
    "Checks everything, embeds and scores, then measures and reports."
    hparams_file, hparams, run_opts, overrides = load_hyperparameters(argv)
    set_tf32(hparams["allow_tf32"])
    device = run_opts.device or infer_device()
    durations = read_durations(hparams["durations"])
    if hparams["plots"]:
        plots.require_matplotlib()

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
        scorer = verification.Scorer(
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
    reports.write_scores(output_folder, lists, scores, ratios)

    # Figures
    sizes = {
        name: verification.model_size(model, reports.MACS_SECONDS)
        for name, model in models.items()
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
        rows += reports.measure(
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
    reports.write_json(
        output_folder / "results.json",
        {
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
            f"{device}, torch {torch.__version__}",
            "seed": hparams["seed"],
            "conventions": reports.CONVENTIONS,
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
    table = reports.format_tables(
        rows,
        sizes,
        as_list(hparams["p_targets"])[0],
        {located.trials.name: located.warning for located in lists},
    )
    with reports.replacing(output_folder / "table.txt") as stream:
        stream.write(table)
    print(f"\n{table}")
    logger.info(f"Results, scores and plots are in {output_folder}")


if __name__ == "__main__":
    with one_sentence_errors():
        main(sys.argv[1:])
