"""Keys of the YAML of ``explain.py``.

Authors: IML-KD contributors
"""

from imlkd_brain.data import keys as data
from imlkd_brain.distillation import integrated_inputs
from imlkd_brain.errors import UserError, expected_sentence, nearest
from imlkd_brain.explanation.maps import METHODS, check_options
from imlkd_brain.explanation.perturbation import BASELINES, UNITS
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
from imlkd_brain.values import Schema, check_value, require, short

FORMATS = ("png", "pdf", "svg", "eps", "ps", "jpg", "jpeg", "tif", "tiff")
_LIST = {"single": True, "low": 0}
_PAIR = list_of(
    whole("A size.", low=1, high=10**6), "Frames and bands.", low=2, high=2
)
# Options of the maps; a map may have others.
OF_MAPS = {
    "n_steps": integrated_inputs.OPTIONS["n_steps"],
    "rule": integrated_inputs.OPTIONS["rule"],
    "layer": Option("text", "A layer of the model."),
    "window": _PAIR,
    "stride": _PAIR,
}
# Those that come from Captum.
FROM_CAPTUM = ("gradient", "gradient_x_input", "grad_cam", "occlusion")

OPTIONS = {
    **COMMON,
    "threads": THREADS,
    "models": mapping(
        "Trained models by name; teacher is compared with the others, null "
        "leaves one out.",
        Option("path", "A trained model.", null="left out"),
        replaces=True,
        example="{teacher: results/teacher, mine: results/mine}",
    ),
    "reference_student": Option(
        "text",
        "The model that differences are reported to.",
        null="no differences",
    ),
    "data_folder": data.data_folder(),
    "wav_folder": Option(
        "folder",
        "Wav files that are explained instead of the corpus.",
        null="the corpus",
    ),
    "speaker_map": data.SPEAKER_MAP,
    "allow_training_speakers": data.ALLOW_TRAINING_SPEAKERS,
    "verification_file": Option(
        "file", "Trials of held-out speakers: a path or a URL."
    ),
    "identification_csv": Option(
        "file",
        "Utterances of training speakers.",
        null="their folders in data_folder",
    ),
    "n_verification": whole(
        "Utterances of held-out speakers.", low=1, high=10**6
    ),
    "n_identification": whole(
        "Utterances of training speakers.", low=1, high=10**6
    ),
    "durations": data.durations(
        "Nested crops from the middle, in seconds.", single=True
    ),
    "methods": mapping(
        "Saliency maps and their options; null leaves one out.",
        mapping("Its options.", null="left out", example="{n_steps: 16}"),
        example="{gradient: {}}",
    ),
    "batch_frames": whole("Frames in one forward pass.", low=1, high=10**9),
    "curve_durations": data.durations(
        "Durations of deletion and insertion curves, of those above.", **_LIST
    ),
    "units": list_of(
        choice("A unit.", UNITS), "What is deleted and inserted.", single=True
    ),
    "n_levels": whole("Levels from 0 to 100 %.", low=2, high=10**5),
    "deletion_baselines": list_of(
        choice("A baseline.", BASELINES),
        "What is left after deletion.",
        **_LIST,
    ),
    "insertion_baselines": list_of(
        choice("A baseline.", BASELINES), "What insertion begins with.", **_LIST
    ),
    "blur_sigma": number("Frames and bands of the blur.", above=0, high=1e4),
    "posterior_scale": number(
        "Scale of the AAM-softmax that trained the classifiers.",
        above=0,
        high=1e6,
    ),
    "top_share": number(
        "Share of bins in the overlap of two maps.", above=0, high=1
    ),
    "shuffled_control": flag("Whether a student that learnt nothing is added."),
    "n_sanity": whole(
        "Utterances of the parameter cascade, 0 for none.", low=0, high=10**6
    ),
    "n_bootstrap": whole("Draws of speakers for intervals.", low=1, high=10**7),
    "confidence": number(
        "Probability of the intervals.", above=0, high=1 - 1e-12
    ),
    "figure_utterance": Option(
        "text", "The utterance that is drawn.", null="the median score"
    ),
    "figure_methods": list_of(
        Option("text", "A map."), "Maps drawn over all durations.", **_LIST
    ),
    "figure_formats": list_of(
        choice("A format.", FORMATS),
        "Files of a figure; none without.",
        package=("matplotlib", "plots"),
        **_LIST,
    ),
}


def check_explanation(values):
    """Refuse values that do not go together, and unknown maps.

    Arguments
    ---------
    values : dict
        Of the YAML, each of them as it is declared.

    Raises
    ------
    UserError
        Naming the keys.
    """
    methods = {k: v for k, v in values["methods"].items() if v is not None}
    if not methods:
        raise UserError(f"methods: give at least one of {', '.join(METHODS)}.")
    for name, options in methods.items():
        check_options(name, options)
        for key, value in options.items():
            if key in OF_MAPS:
                check_value(f"methods.{name}.{key}", value, OF_MAPS[key])
    for name in _entries(values["figure_methods"]):
        if name not in methods:
            expected = f"one of {', '.join(methods)}{nearest(name, methods)}"
            raise UserError(
                expected_sentence("figure_methods", short(name), expected)
            )
    durations = _entries(values["durations"])
    for duration in _entries(values["curve_durations"]):
        if duration not in durations:
            raise UserError(
                f"curve_durations: {short(duration)} is not one of the "
                f"durations {short(durations)}; add it to them."
            )
    if any(name in FROM_CAPTUM for name in methods):
        require(f"methods ({', '.join(FROM_CAPTUM)})", "captum", "explain")


def _entries(value):
    """A list, also where it was written as one value."""
    return list(value) if isinstance(value, list | tuple) else [value]


SCHEMA = Schema(OPTIONS, check_explanation)
