"""Opens what ``verify.py`` reads and checks it before the work starts.

These are the models, the trial lists and the cohort.

Authors: IML-KD contributors
"""

from pathlib import Path

from imlkd_brain.data.cohort import read_cohort
from imlkd_brain.data.held_out import check_held_out, training_speakers
from imlkd_brain.data.trial_audio import locate_trials, read_enrolments
from imlkd_brain.data.trial_lists import OFFICIAL_LISTS, find_list
from imlkd_brain.data.trials import read_trials
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.settings import as_list
from imlkd_brain.values import check_given
from imlkd_brain.verification.keys import OPTIONS, check_cohort
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


def open_models(models, device):
    """Load the models of the YAML.

    Arguments
    ---------
    models : dict or list
        Folders by the model's name, or folders alone. A name whose folder is
        null is left out.
    device : str
        Where the models go.

    Returns
    -------
    dict
        :class:`imlkd_brain.models.speaker_model.SpeakerModel` by name.

    Raises
    ------
    UserError
        If there is no model, or a folder holds none.
    """
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


def open_lists(
    names,
    data_folder,
    enrolment_file=None,
    speaker_map=None,
    allow_repeated_trials=False,
):
    """Read trial lists and find their audio.

    Arguments
    ---------
    names : list of str
        Official lists by name, or paths, see
        :func:`imlkd_brain.data.trial_lists.find_list`.
    data_folder : str
        The corpus; several folders with commas.
    enrolment_file : str, optional
        Lines ``model utterance utterance ...``.
    speaker_map : str, optional
        Names the speaker of each utterance, see
        :func:`imlkd_brain.data.trial_audio.locate_trials`.
    allow_repeated_trials : bool
        Accept trials that are listed more than once. Official lists are
        accepted as they were published.

    Returns
    -------
    list of LocatedTrials
        In the order of the names, with a title of its own each.

    Raises
    ------
    UserError
        If a list or its audio is not there, or a list is malformed.
    """
    lists, enrolments = {}, {}
    if enrolment_file:
        enrolments = read_enrolments(enrolment_file)
    for name in map(str, names):
        path = Path(find_list(name, data_folder))
        official = name in OFFICIAL_LISTS
        title = name if official else path.stem
        if title in lists:
            title = str(path.with_suffix(""))
        trials = read_trials(
            path,
            name=title,
            allow_repeated_trials=official or allow_repeated_trials,
        )
        if official:
            _, expected = OFFICIAL_LISTS[name]
            if len(trials.labels) != expected:
                logger.warning(
                    f"{path}: {len(trials.labels)} trials, but the cleaned "
                    f"{name} has {expected}; figures are not comparable."
                )
        lists[title] = locate_trials(
            trials, data_folder, enrolments, speaker_map
        )
        if lists[title].doubt:
            logger.warning(lists[title].warning)
    return list(lists.values())


def open_dev_list(key, name, data_folder, **options):
    """Read the dev trials of a key, if it gives any.

    Arguments
    ---------
    key : str
        Of the YAML, for messages.
    name : str or None
        The list, see :func:`open_lists`.
    data_folder : str
        The corpus.
    **options
        The others of :func:`open_lists`.

    Returns
    -------
    LocatedTrials or None

    Raises
    ------
    UserError
        As :func:`open_lists`, with the key.
    """
    if not name:
        return None
    try:
        (located,) = open_lists([name], data_folder, **options)
    except UserError as error:
        raise UserError(
            f"{key}: {error} Without dev trials give `--{key} null "
            "--store_decision False`."
        ) from error
    return located


def open_cohort(back_end, cohort_csv, data_folder, size, seed):
    """Read the cohort, if the back end uses one.

    Arguments
    ---------
    back_end : BackEnd
        How scores are made.
    cohort_csv : str or None
        The annotation of a training set.
    data_folder : str
        The corpus.
    size : int
        Most utterances of the cohort.
    seed : int
        Seed of their choice.

    Returns
    -------
    dict
        Speaker of each file; empty where no cohort is used.

    Raises
    ------
    UserError
        If the normalisation is not known, or the cohort is missing or too
        small for it.
    """
    method = back_end.score_norm
    check_given(OPTIONS, score_norm=method)
    if method is None and not back_end.mean_subtraction:
        return {}
    check_cohort(cohort_csv, method, back_end.mean_subtraction)
    cohort = read_cohort(cohort_csv, data_folder, size, seed)
    least = back_end.cohort_top if method == "as-norm" else 2
    if len(cohort) < least:
        raise UserError(
            f"{cohort_csv}: {len(cohort)} cohort utterances, but at least "
            f"{least} are needed; lower cohort_top or give a larger cohort."
        )
    return cohort


def check_inputs(lists, models, cohort, dev_lists=None, allow=False):
    """Refuse lists whose speakers a model or the back end was trained on.

    Arguments
    ---------
    lists : list of LocatedTrials
        The lists to score.
    models : dict
        Models by name.
    cohort : dict
        Speaker of each file of the cohort.
    dev_lists : dict, optional
        Dev trials, or None, by what they are for: ``calibration``,
        ``decision``.
    allow : bool
        Warn instead of refusing.

    Raises
    ------
    UserError
        If a list has such a speaker and ``allow`` is false.
    """
    sources = training_speakers(models)
    for source, speakers in sources.items():
        if not speakers:
            logger.warning(
                f"{source} is not known: the model's folder names no "
                "speakers. Whether test speakers were held out was not "
                "checked."
            )
    sources["the cohort"] = cohort.values()
    reasons = []
    used = {
        name: located
        for name, located in (dev_lists or {}).items()
        if located is not None
    }
    for name, located in used.items():
        reasons += check_held_out(
            located, sources, allow, f"the {name} would be too sure of itself"
        )
    for name, located in used.items():
        sources[f"the {name} list"] = located.speakers
    for located in lists:
        reasons += check_held_out(located, sources, allow)
    for reason in reasons:
        logger.warning(
            f"{reason}; the run goes on because of --allow_training_speakers."
        )
