"""Keys of a training's YAML: those of its own, and those of the rooms.

``train_kd.py`` reads them. Keys that all scripts have are here as well.

Authors: IML-KD contributors
"""

from imlkd_brain.data import keys as data
from imlkd_brain.distillation import batchnorm, integrated_inputs
from imlkd_brain.distillation import keys as distillation
from imlkd_brain.errors import UserError
from imlkd_brain.machine import RUN_OPTIONS
from imlkd_brain.models import keys as models
from imlkd_brain.schema import Option, built, choice, flag, number, whole
from imlkd_brain.values import Schema, short

EXPORTS = ("best", "last")

COMMON = {
    "seed": whole("Seed of everything that is drawn.", low=0, high=2**32 - 1),
    "output_folder": Option("folder", "Where the results go."),
    "save_folder": Option("folder", "Where work is kept to go on with."),
    "allow_tf32": flag(
        "Whether the model runs in TF32 on GPUs that have it.", optional=True
    ),
}
# Of scripts that use trained models.
THREADS = whole(
    "CPU threads of a model.", low=1, high=1024, null="PyTorch's own number"
)
# Of the training itself.
OWN = {
    "train_log": Option("file", "The log of the epochs."),
    "number_of_epochs": whole("Epochs.", low=1, high=10**6),
    "lr": number("The highest learning rate.", low=0, high=1000),
    "base_lr": number("The lowest learning rate.", low=0, high=1000),
    "lr_step_epochs": number(
        "Epochs of half a cycle of the learning rate.", above=0, high=10**6
    ),
    "weight_decay": number("Weight decay.", low=0, high=1000),
    "ckpt_interval_minutes": Option(
        **{**vars(RUN_OPTIONS["ckpt_interval_minutes"]), "optional": True}
    ),
    "export": choice("The checkpoint that becomes the model.", EXPORTS),
    "scale": integrated_inputs.OPTIONS["scale"],
    "margin": number("Margin of the AAM-softmax.", low=0, high=3.14),
    "compute_cost": built("The speaker loss."),
    "trained_with": built(
        "Refuses to go on with other options.", optional=True
    ),
    "opt_class": built("The optimiser."),
    "lr_annealing": built("The schedule of the learning rate."),
    "epoch_counter": built("Counts epochs."),
    "train_logger": built("Writes the log."),
    "use_tensorboard": flag(
        "Whether TensorBoard is written.",
        package=("tensorboard", "tensorboard"),
    ),
    "tensorboard_logger": built("Writes TensorBoard."),
    "checkpointer": built("Writes and finds checkpoints."),
}
WITHOUT_TEACHER = {**COMMON, **data.OPTIONS, **models.OPTIONS, **OWN}
_INTEGRATED = {
    key: option
    for key, option in integrated_inputs.OPTIONS.items()
    if key != "frame_rate"
}
DISTILLATION = {
    **distillation.TEACHER,
    **distillation.ANSWERS,
    **distillation.WEIGHTS,
    **distillation.OBJECTIVE,
    **_INTEGRATED,
    **batchnorm.OPTIONS,
    **distillation.OBJECTS,
    "measure_interval": whole(
        "Updates between gradient shares, 0 for never.",
        low=0,
        high=10**9,
    ),
}
TRAINING = {**WITHOUT_TEACHER, **DISTILLATION}


def options_of(values):
    """What is declared of a training's YAML, with or without a teacher.

    Arguments
    ---------
    values : dict
        Of the YAML.

    Returns
    -------
    dict of str to Option
    """
    return TRAINING if "objective" in values else WITHOUT_TEACHER


def check_training(values):
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
    data.check_ranges(values)
    models.check_layout(values)
    features = values["compute_features"].kwargs
    window, hop = features.get("win_length", 25), features.get("hop_length", 10)
    frames = models.fewest_frames(values)
    shortest = max(window, hop * (frames - 1)) / 1000
    said = (
        f"a window of the features lasts {window / 1000:g} s and the network "
        f"takes {frames} frames of {hop / 1000:g} s"
    )
    for key in ("sentence_len", "durations", "valid_durations"):
        value = values.get(key)
        for seconds in value if isinstance(value, list) else [value]:
            if isinstance(seconds, int | float) and seconds < shortest:
                raise UserError(
                    f"{key}: {short(seconds)} s is too short, {said}; give at "
                    f"least {shortest:g} s."
                )


SCHEMA = Schema(TRAINING, check_training, options_of)
