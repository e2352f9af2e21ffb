"""Which model descriptions of other people may run code.

HyperPyYAML calls what a ``hyperparams.yaml`` names. One that names other things
than the classes of :mod:`imlkd_brain.models.plain` is run only if a user of this
machine has said once that it is to be trusted, or has exported it. What is
trusted is the text: a description that is changed is another one.

Authors: IML-KD contributors
"""

import contextlib
import hashlib

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, ScalarNode

from imlkd_brain.errors import UserError
from imlkd_brain.files import read_json, write_json
from imlkd_brain.models.plain import CLASSES
from imlkd_brain.models.sources import public_folder

TRUSTED = "trusted.json"
# HyperPyYAML's tags that call, import or read what they name
RUNNING = ("!new:", "!name:", "!module:", "!apply:", "!include:")
# What is beside the networks in a folder for SpeechBrain's classes
HARMLESS = (
    *CLASSES,
    "speechbrain.utils.parameter_transfer.Pretrainer",
    "speechbrain.dataio.encoder.CategoricalEncoder",
    "speechbrain.dataio.preprocess.AudioNormalizer",
)


def code_of(text):
    """Return what a YAML runs beyond the classes of speaker models.

    Arguments
    ---------
    text : str
        The YAML.

    Returns
    -------
    list of str
        Names of classes, functions, modules and files, sorted.

    Example
    -------
    >>> code_of("a: !apply:os.system [ls]\\nb: !ref <a>")
    ['os.system']
    """
    found, seen = set(), set()
    nodes = [YAML(pure=True).compose(text)]
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        tag = str(node.tag or "")
        for prefix in RUNNING:
            if tag.startswith(prefix):
                found.add(tag.removeprefix(prefix))
        if isinstance(node, MappingNode):
            nodes += [part for pair in node.value for part in pair]
        elif not isinstance(node, ScalarNode):
            nodes += node.value
    return sorted(found - {*HARMLESS})


def trust(text):
    """Let a description run what it names, from now on.

    Arguments
    ---------
    text : str
        The YAML. A folder for the record that cannot be written is passed
        over: then the question comes again.
    """
    if not code_of(text):
        return
    path = public_folder(TRUSTED)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**read_json(path), _digest(text): code_of(text)})


def check_trusted(text, path):
    """Refuse a description that runs code which nobody has trusted.

    Arguments
    ---------
    text : str
        The YAML.
    path : Path
        Where it is.

    Raises
    ------
    UserError
        Naming what it runs, and how to trust it.
    """
    code = code_of(text)
    if code and _digest(text) not in read_json(public_folder(TRUSTED)):
        more = f" and {len(code) - 3} more" if len(code) > 3 else ""
        raise UserError(
            f"{path}: loading this model runs {', '.join(code[:3])}{more}, "
            "which its maker chose; if you trust whoever made it, say so once "
            f"with `imlkd info {path.parent} --trust`."
        )


def _digest(text):
    """What a description is known by."""
    return hashlib.sha256(text.encode()).hexdigest()
