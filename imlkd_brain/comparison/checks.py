"""Refuses what would make a comparison wrong: other options, known speakers.

Authors: IML-KD contributors
"""

from imlkd_brain.comparison.tables import read_json_of_report, read_table
from imlkd_brain.data.trial_audio import locate_known
from imlkd_brain.errors import UserError
from imlkd_brain.keys import SCHEMA
from imlkd_brain.models.folder import INFERENCE
from imlkd_brain.settings import read_command
from imlkd_brain.trained_with import read_record
from imlkd_brain.training import SAVE

OVERRIDES = "overrides.json"


def check_baselines(baselines, models):
    """Refuse a baseline that no model is called.

    Arguments
    ---------
    baselines : list of str
        Names that the YAML gives.
    models : list of str
        Names of the models of each run.

    Raises
    ------
    UserError
        Naming the baseline and the models.
    """
    for name in baselines:
        if name not in models:
            raise UserError(
                f"baselines: {name!r} is no model of this comparison; choose "
                f"from {', '.join(models)}."
            )


def check_options(trainings):
    """Refuse overrides that a training would refuse, before the first begins.

    Arguments
    ---------
    trainings : list of Training
        Those with the same YAML and overrides are checked once.

    Raises
    ------
    UserError
        Naming the training and the key.
    """
    checked = []
    for training in trainings:
        wanted = training.command[2], training.overrides
        if wanted in checked:
            continue
        checked.append(wanted)
        try:
            read_command(training.command[2:], SCHEMA)
        except UserError as error:
            raise UserError(f"{training.name}: {error}") from error


def check_trained(trainings):
    """Refuse models that were trained with other options under the same name.

    The options are those of the training's YAML and of the overrides; the
    annotations and the teacher count as well. Earlier versions kept the
    overrides only. A folder without any record was put there by hand, and is
    trusted.

    Arguments
    ---------
    trainings : list of Training
        Those that are not begun pass.

    Raises
    ------
    UserError
        Naming the folder and the keys with both values.
    """
    for training in trainings:
        folder = training.folder
        save = folder / SAVE
        if read_record(folder / INFERENCE) or read_record(save):
            training.record.add_data(**training.data)
            training.record.check(folder, save, same_limits=True)
        else:
            _check_overrides(training)


def _check_overrides(training):
    """Compare the overrides that an earlier version kept, if it did."""
    record = training.folder / OVERRIDES
    if not record.is_file():
        return
    before, now = read_json_of_report(record), training.overrides
    different = [
        f"{key} {before.get(key, 'left out')} before, "
        f"{now.get(key, 'left out')} now"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if different:
        raise UserError(
            f"{training.folder}: trained with other options "
            f"({'; '.join(different)}); give the method another name or "
            "the comparison another output_folder, or remove this folder."
        )


def check_scored(runs, data_folder):
    """Refuse trials that cannot be scored, before anything is trained.

    Arguments
    ---------
    runs : list of Run
        With the lists that they are scored on.
    data_folder : str
        The corpus of these trials.

    Raises
    ------
    UserError
        If the folder, a list, its audio or its speakers are missing.
    """
    for trials in dict.fromkeys(run.scored_trials for run in runs):
        locate_known(trials, data_folder)


def check_unseen(runs, data_folder):
    """Refuse trials with a speaker that a model of their run was trained on.

    Arguments
    ---------
    runs : list of Run
        Their annotations are prepared.
    data_folder : str
        The corpus of the scored trials.

    Raises
    ------
    UserError
        Naming the list and the speaker.
    """
    for run in runs:
        annotation = run.annotations / "train.csv"
        trained = read_table(annotation, ["spk_id"])["spk_id"]
        located = locate_known(run.scored_trials, data_folder)
        known = set(trained) & set(located.speakers)
        if known:
            raise UserError(
                f"{run.scored_trials}: {min(known)} is a training speaker of "
                f"{run.folder.name}; test on others."
            )
