"""Opens what ``verify.py`` reads and checks it before the work starts.

These are the models, the trial lists and the cohort.

Authors: IML-KD contributors
"""

from imlkd_brain.data.annotations import read_cohort
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.trial_audio import (
    OFFICIAL_LISTS,
    find_trial_list,
    locate_trials,
    read_enrolments,
)
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.settings import as_list
from imlkd_brain.verification.scoring import NORMALISATIONS
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


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
        enrolments = read_enrolments(hparams["enrolment_file"])
    for name in map(str, names):
        path = find_trial_list(name, hparams["data_folder"])
        official = name in OFFICIAL_LISTS
        title = name if official else path.stem
        if title in lists:
            title = str(path.with_suffix(""))
        trials = read_trials(
            path,
            name=title,
            # What is published is taken as it was published.
            allow_repeated_trials=official or hparams["allow_repeated_trials"],
        )
        if official:
            _, expected = OFFICIAL_LISTS[name]
            if len(trials.labels) != expected:
                logger.warning(
                    f"{path}: {len(trials.labels)} trials, but the cleaned "
                    f"{name} has {expected}; figures are not comparable."
                )
        lists[title] = locate_trials(
            trials,
            hparams["data_folder"],
            enrolments,
            hparams["speaker_map"],
        )
        if lists[title].doubt:
            logger.warning(lists[title].warning)
    return list(lists.values())


def open_cohort(hparams):
    "Speakers of the cohort's files; empty where no cohort is used."
    method = hparams["score_norm"]
    if method is not None and method not in NORMALISATIONS:
        raise UserError(
            f"score_norm: {method!r} is not known; expected one of "
            f"{', '.join(NORMALISATIONS)}, or null."
        )
    if method is None and not hparams["mean_subtraction"]:
        return {}
    if not hparams["cohort_csv"]:
        raise UserError(
            "cohort_csv: score_norm and mean_subtraction need a cohort; give "
            "the train.csv in the save folder of a training run."
        )
    cohort = read_cohort(
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
    sources = training_speakers(models)
    for source, speakers in sources.items():
        if not speakers:
            logger.warning(
                f"{source} is not known, its folder names no speakers: "
                "nothing says that test speakers were held out."
            )
    sources["the cohort"] = cohort.values()
    reasons = []
    if calibration is not None:
        reasons += check_held_out(
            calibration,
            sources,
            allow,
            "what is calibrated on it would be too sure of itself",
        )
        sources["the calibration list"] = calibration.speakers
    for located in lists:
        reasons += check_held_out(located, sources, allow)
    for reason in reasons:
        logger.warning(f"{reason}; going on, as told.")
