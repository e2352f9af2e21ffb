"""Keys of the YAML of ``verify.py``.

Authors: IML-KD contributors
"""

from imlkd_brain.data import keys as data
from imlkd_brain.errors import UserError
from imlkd_brain.keys import COMMON, THREADS
from imlkd_brain.schema import (
    Option,
    choice,
    flag,
    list_of,
    mapping,
    number,
    whole,
)
from imlkd_brain.values import Schema
from imlkd_brain.verification.scoring import NORMALISATIONS

_FOLDER = Option("path", "A trained model.")
MODELS = mapping(
    "Trained models by name; null leaves one out.",
    Option("path", "A trained model.", null="left out"),
    replaces=True,
    example="{mine: results/mine}",
)

OPTIONS = {
    **COMMON,
    "threads": THREADS,
    "embedding_store": Option(
        "folder", "Where embeddings are kept for later runs."
    ),
    "models": Option(
        **{
            **vars(MODELS),
            "other": list_of(_FOLDER, "Folders alone.", single=True),
        }
    ),
    "allow_training_speakers": data.ALLOW_TRAINING_SPEAKERS,
    "data_folder": data.data_folder(),
    "trial_lists": list_of(
        Option("file", "A list."),
        "Official lists by name, or paths of trial lists.",
        single=True,
    ),
    "allow_repeated_trials": flag(
        "Whether a trial counts as often as it is listed."
    ),
    "enrolment_file": Option(
        "file",
        "Utterances of each enrolment model, a line each.",
        null="an utterance enrols",
    ),
    "speaker_map": data.SPEAKER_MAP,
    "durations": data.durations(
        "Durations of test speech; seconds are random crops.", single=True
    ),
    "crop_enrolment": flag("Whether enrolment speech is cropped as well."),
    "mean_subtraction": flag("Whether the cohort's mean is subtracted."),
    "score_norm": choice(
        "How scores are normalised.", NORMALISATIONS, null="not at all"
    ),
    "cohort_csv": Option(
        "file", "The cohort: train.csv of a training.", null="no cohort"
    ),
    "cohort_size": whole("Most utterances of the cohort.", low=1, high=10**9),
    "cohort_top": whole(
        "Closest utterances that as-norm uses.", low=2, high=10**9
    ),
    "calibration_list": Option(
        "file",
        "Dev trials that calibrate scores.",
        null="no calibration",
        package=("sklearn", "calibration"),
    ),
    "decision_list": Option(
        "file",
        "Dev trials for the threshold that models are used with.",
        null="no threshold",
    ),
    "store_decision": flag(
        "Whether the folders of models given by path get that threshold."
    ),
    "max_batch_seconds": number(
        "Seconds of audio in a batch.", above=0, high=1e9
    ),
    "max_padding_seconds": number(
        "Seconds that an utterance may be padded by.", low=0, high=1e9
    ),
    "readers": whole("Threads that read audio.", low=1, high=1024),
    "p_targets": list_of(
        number("Prior.", above=0, high=1 - 1e-12),
        "Priors of the minDCF; the first is in the table.",
        single=True,
    ),
    "bootstrap_samples": whole(
        "Draws of speakers for intervals, 0 for none.", low=0, high=10**7
    ),
    "group_separator": Option(
        "text",
        "Figures also by the speakers' prefix up to this.",
        null="no groups",
    ),
    "plots": flag(
        "Whether figures are drawn.", package=("matplotlib", "plots")
    ),
}


def check_verification(values):
    """Refuse values that do not go together.

    Arguments
    ---------
    values : dict
        Of the YAML, each of them as it is declared.

    Raises
    ------
    UserError
        Naming the keys.
    """
    check_cohort(
        values["cohort_csv"], values["score_norm"], values["mean_subtraction"]
    )
    check_decision(
        values["decision_list"],
        values["store_decision"],
        values["score_norm"],
        values["mean_subtraction"],
    )


def check_cohort(cohort_csv, score_norm, mean_subtraction):
    """Refuse scores that need a cohort and have none.

    Arguments
    ---------
    cohort_csv : str or None
        The cohort.
    score_norm : str or None
        How scores are normalised.
    mean_subtraction : bool
        Whether its mean is subtracted.

    Raises
    ------
    UserError
        Naming ``cohort_csv``.

    Example
    -------
    >>> check_cohort(None, None, False)
    """
    if not cohort_csv and (score_norm or mean_subtraction):
        raise UserError(
            "cohort_csv: score_norm and mean_subtraction need a cohort; give "
            "the train.csv in the save folder of a training run."
        )


def check_decision(decision_list, store_decision, score_norm, mean_subtraction):
    """Refuse options of the decision that do not go together.

    Arguments
    ---------
    decision_list : str or None
        The dev trials.
    store_decision : bool
        Whether the models' folders get the decision.
    score_norm : str or None
        Of the back end.
    mean_subtraction : bool
        Of the back end.

    Raises
    ------
    UserError
        If there are no dev trials, or scores are normalised by a cohort that
        the model's folder does not have.
    """
    if store_decision and not decision_list:
        raise UserError(
            "store_decision: it needs dev trials, since a threshold from the "
            "test trials would be judged by what it was fitted to; give "
            "--decision_list, trials/dev.txt for example, or "
            "`--store_decision False`."
        )
    if decision_list and (score_norm or mean_subtraction):
        raise UserError(
            "decision_list: the threshold in a model's folder is of plain "
            "cosines, so it cannot be measured with score_norm or "
            "mean_subtraction; leave these out, or give `--decision_list null "
            "--store_decision False`."
        )


SCHEMA = Schema(OPTIONS, check_verification)
