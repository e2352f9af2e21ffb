"""Keys of the YAML of ``export.py``.

Authors: IML-KD contributors
"""

from imlkd_brain.data import keys as data
from imlkd_brain.errors import UserError
from imlkd_brain.keys import COMMON
from imlkd_brain.models.onnx_export import GRAPHS, WAVEFORM
from imlkd_brain.schema import Option, choice, flag, list_of, mapping
from imlkd_brain.values import Schema

_UNSAID = {"null": "not said"}

OPTIONS = {
    "seed": COMMON["seed"],
    "model": Option("path", "A training run, or a model's folder or name."),
    "output_folder": COMMON["output_folder"],
    "model_folder": Option("folder", "Where the model to deploy goes."),
    "graphs": list_of(
        choice("What a graph reads.", GRAPHS),
        "ONNX graphs, by what they read.",
        low=0,
        package=("onnxruntime", "onnx"),
    ),
    "int8": flag("Whether graphs are written with weights of 8 bits as well."),
    "data_folder": data.data_folder(null="no error rates"),
    "trial_lists": list_of(
        Option("file", "A list."),
        "Trial lists on which int8 is compared with float.",
        single=True,
        null="no error rates",
    ),
    "durations": data.durations(
        "Durations of test speech; seconds are random crops.", single=True
    ),
    "allow_training_speakers": data.ALLOW_TRAINING_SPEAKERS,
    "card": mapping(
        "What the model card says.",
        entries={
            "license": Option("text", "The model's licence.", **_UNSAID),
            "language": list_of(
                Option("text", "A language's code."),
                "Languages of the training data.",
                low=0,
            ),
            "training_data": Option("text", "Training data.", **_UNSAID),
            "teacher": Option("text", "The teacher.", **_UNSAID),
            "method": Option("text", "The method.", **_UNSAID),
            "limits": Option("text", "What it is not good for.", **_UNSAID),
            "results": Option(
                "file", "results.json of verify.py.", null="no error rates"
            ),
        },
    ),
}


def check_export(values):
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
    if not values["trial_lists"]:
        return
    if not values["data_folder"]:
        raise UserError(
            "data_folder is null, but trial_lists need the corpus; give it "
            "with `--data_folder DIR`."
        )
    if WAVEFORM not in (values["graphs"] or ()):
        raise UserError(
            "graphs has no waveform, but trial_lists are scored with that "
            "graph; give `--graphs '[waveform]'`."
        )


SCHEMA = Schema(OPTIONS, check_export)
