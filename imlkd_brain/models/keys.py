"""Keys of a YAML that say how a model is built, and whether it can be.

Authors: IML-KD contributors
"""

from imlkd_brain.errors import UserError, expected_sentence
from imlkd_brain.schema import Option, built, list_of, mapping, whole
from imlkd_brain.values import short

ECAPA = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"
FBANK = "speechbrain.lobes.features.Fbank"
CLASSIFIER = "speechbrain.lobes.models.ECAPA_TDNN.Classifier"
_RES2NET_SCALE = 8  # SpeechBrain's own

_UNITS = whole("Units.", low=1, high=16384)
_LAYERS = {"low": 3, "high": 64}
_ECAPA_ARGUMENTS = {
    "input_size": _UNITS,
    "channels": list_of(_UNITS, "Of each layer.", **_LAYERS),
    "kernel_sizes": list_of(
        whole("Frames.", low=1, high=1001), "Of each layer.", **_LAYERS
    ),
    "dilations": list_of(
        whole("Frames.", low=1, high=1000), "Of each layer.", **_LAYERS
    ),
    "groups": list_of(_UNITS, "Of each layer.", **_LAYERS),
    "attention_channels": _UNITS,
    "se_channels": _UNITS,
    "res2net_scale": whole("Parts of a layer.", low=2, high=16384),
    "lin_neurons": _UNITS,
}

OPTIONS = {
    "initial_weights": Option(
        "path",
        "A trained model to start from.",
        null="weights are drawn",
        optional=True,
    ),
    "start_from": built("Loads the initial weights.", optional=True),
    "n_mels": whole("Mel bands of the features.", low=1, high=4096),
    "lin_neurons": whole("Dimension of an embedding.", low=1, high=16384),
    "compute_features": built(
        "Waveforms to features.",
        classes={
            FBANK: {"n_mels": whole("Mel bands.", low=1, high=4096)},
        },
    ),
    "mean_var_norm": built("Normalises features."),
    "embedding_model": built(
        "Features to embeddings.", classes={ECAPA: _ECAPA_ARGUMENTS}
    ),
    "classifier": built(
        "Embeddings to cosines with speakers.",
        classes={CLASSIFIER: {"input_size": _UNITS}},
    ),
    "modules": mapping(
        "What is trained, and what it computes with.", built("A module.")
    ),
}


def check_layout(values):
    """Refuse a network that cannot be built, or does not fit its features.

    Arguments
    ---------
    values : dict
        Of the YAML, objects as :class:`imlkd_brain.schema.Made`.

    Raises
    ------
    UserError
        Naming the argument.
    """
    model = values["embedding_model"]
    if model.name != ECAPA:
        return
    layout = {key: model.kwargs.get(key) for key in _ECAPA_ARGUMENTS}
    _check_channels(model.kwargs, layout["channels"])
    bands = values["compute_features"]
    if bands.name == FBANK:
        expected = _n_features(bands.kwargs)
        if expected and layout["input_size"] not in (None, expected):
            raise UserError(
                expected_sentence(
                    "embedding_model.input_size",
                    layout["input_size"],
                    f"the number of features, {expected} (n_mels)",
                )
            )
    classifier = values["classifier"]
    size = classifier.kwargs.get("input_size")
    embedding = model.kwargs.get("lin_neurons", size)
    if classifier.name == CLASSIFIER and size not in (None, embedding):
        raise UserError(
            expected_sentence(
                "classifier.input_size",
                size,
                f"the dimension of an embedding, {embedding} (lin_neurons)",
            )
        )


def _n_features(arguments):
    """Features of a frame; None where other arguments change their number."""
    plain = {"n_mels", "sample_rate", "f_min", "f_max", "n_fft", "win_length"}
    plain |= {"hop_length"}
    return arguments.get("n_mels") if set(arguments) <= plain else None


def _check_channels(arguments, channels):
    """Refuse lists of unequal length, and channels that cannot be divided."""
    if channels is None:
        return
    for key in ("kernel_sizes", "dilations", "groups"):
        given = arguments.get(key)
        if given is not None and len(given) != len(channels):
            raise UserError(
                expected_sentence(
                    f"embedding_model.{key}",
                    short(given),
                    f"a list of {len(channels)} entries like channels, "
                    f"{short(channels)}",
                )
            )
    scale = arguments.get("res2net_scale", _RES2NET_SCALE)
    for number in channels[1:-1]:
        if number % scale:
            raise UserError(
                f"embedding_model.channels is {short(channels)}, but {number} "
                f"is no multiple of {scale}, the parts of a Res2Net layer; "
                "give multiples of it for all layers but the first and the "
                "last."
            )
    groups = arguments.get("groups") or [1] * len(channels)
    inputs = [arguments.get("input_size", groups[0]), *channels]
    for index, (size, number) in enumerate(zip(channels, groups, strict=False)):
        before = inputs[index]
        if index == len(channels) - 1:
            before = channels[-2] * (len(channels) - 2)
        if size % number or before % number:
            raise UserError(
                f"embedding_model.groups is {short(groups)}, but layer {index} "
                f"has {before} channels in and {size} out, which {number} "
                "groups do not divide; give 1."
            )


def fewest_frames(values):
    """The fewest frames that the network takes; 1 where that is not known.

    Its convolutions reflect the input at both ends, which has to be longer
    than what is reflected.

    Arguments
    ---------
    values : dict
        As for :func:`check_layout`.

    Returns
    -------
    int
    """
    model = values["embedding_model"]
    kernels = model.kwargs.get("kernel_sizes")
    dilations = model.kwargs.get("dilations")
    if model.name != ECAPA or not kernels or not dilations:
        return 1
    return (
        max((k - 1) * d // 2 for k, d in zip(kernels, dilations, strict=False))
        + 1
    )
