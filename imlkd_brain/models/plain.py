"""Builds a model from its YAML without running what the YAML names.

HyperPyYAML calls any function that a YAML names. What a speaker model needs are
features, a normalisation, a network and a classifier, of few classes. Where a
YAML describes these four by classes of :data:`CLASSES` with plain arguments, as
our exports and SpeechBrain's published ECAPA-TDNN do, only they are built; its other
keys are not looked at. That is safe, and spares half a second of imports.

Authors: IML-KD contributors
"""

import pydoc

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

KEYS = (
    "sample_rate",
    "compute_features",
    "mean_var_norm",
    "embedding_model",
    "classifier",
)
CLASSES = (
    "speechbrain.lobes.features.Fbank",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
    "speechbrain.lobes.models.Xvector.Xvector",
    "speechbrain.lobes.models.Xvector.Classifier",
    "speechbrain.lobes.models.ResNet.ResNet",
    "speechbrain.lobes.models.ResNet.Classifier",
    "imlkd_brain.models.kaldi_fbank.KaldiFbank",
    "imlkd_brain.models.campplus.CAMPlusPlus",
)
SCALARS = ("int", "float", "bool", "null", "str")
DEPTH = 4  # of lists in lists


class _NotPlain(Exception):
    """The YAML has something else than known classes and plain values."""


def build_plain(path):
    """Build the modules of a model from a YAML of known classes.

    Arguments
    ---------
    path : str or Path
        The YAML.

    Returns
    -------
    dict or None
        Objects by key, the keys of :data:`KEYS` that are there. None where
        something else is needed or wrong, and HyperPyYAML has to read it.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            root = YAML(pure=True).compose(stream)
        if not isinstance(root, MappingNode):
            return None
        nodes = {key.value: value for key, value in root.value}
        if len(nodes) < len(root.value):
            return None
        return {
            key: _value(nodes[key], nodes, DEPTH)
            for key in KEYS
            if key in nodes
        }
    except (OSError, UnicodeDecodeError, YAMLError, _NotPlain, RecursionError):
        return None
    except (TypeError, ValueError, AttributeError, RuntimeError):
        # Arguments that do not fit a class: HyperPyYAML's message names it.
        return None


def _value(node, nodes, depth):
    """The value of a node."""
    if depth < 0:
        raise _NotPlain
    tag = str(node.tag or "")
    if tag.startswith("!new:"):
        return _object(tag.removeprefix("!new:"), node, nodes, depth)
    if isinstance(node, ScalarNode) and tag == "!ref":
        name = node.value.removeprefix("<").removesuffix(">")
        if node.value != f"<{name}>" or name not in nodes:
            raise _NotPlain
        return _value(nodes[name], nodes, depth - 1)
    if isinstance(node, SequenceNode) and _kind(tag) == "seq":
        return [_value(item, nodes, depth - 1) for item in node.value]
    if isinstance(node, ScalarNode) and _kind(tag) in SCALARS:
        return _scalar(node)
    raise _NotPlain


def _kind(tag):
    """The last part of one of YAML's own tags."""
    prefix = "tag:yaml.org,2002:"
    return tag.removeprefix(prefix) if tag.startswith(prefix) else None


def _scalar(node):
    """A plain number, truth value, null or text."""
    return YAML(typ="safe", pure=True).constructor.construct_object(node)


def _object(name, node, nodes, depth):
    """An object of a known class."""
    if name not in CLASSES:
        raise _NotPlain
    arguments = {}
    if isinstance(node, MappingNode):
        arguments = {
            key.value: _value(value, nodes, depth - 1)
            for key, value in node.value
        }
    elif node.value:
        raise _NotPlain
    return pydoc.locate(name)(**arguments)
