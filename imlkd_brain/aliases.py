"""Refuses a YAML whose aliases stand for more than a machine can hold.

Authors: IML-KD contributors
"""

import re

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from imlkd_brain.errors import UserError

MOST_VALUES = 100_000
# What an alias refers to begins like this; so may a text, which costs time only.
ANCHOR = re.compile(r"(?:^|[\s\[{,:])&")


def check_aliases(text, name):
    """Refuse a YAML whose aliases stand for too much.

    A few lines of aliases of aliases are billions of values when they are
    written out, as HyperPyYAML does.

    Arguments
    ---------
    text : str
        The YAML. What cannot be read is left to whoever reads it.
    name : str or Path
        The file, for the message.

    Raises
    ------
    UserError
        If it is more than a hundred thousand values.

    Example
    -------
    >>> check_aliases("a: &a [1, 2]\\nb: [*a, *a]", "some.yaml")
    """
    if not ANCHOR.search(text):
        # Parsing takes longer than all other checks.
        return
    try:
        root = YAML(pure=True).compose(text)
    except (YAMLError, RecursionError):
        return
    if root is not None and _written_out(root, {}) > MOST_VALUES:
        raise UserError(
            f"{name}: its aliases (`*name`) stand for more than {MOST_VALUES:,} "
            "values; write out what is meant."
        )


def _written_out(node, known):
    """How many values a node is, its aliases written out."""
    if id(node) not in known:
        # An alias of what it is in is endless.
        known[id(node)] = MOST_VALUES + 1
        parts = node.value if isinstance(node.value, list) else ()
        if isinstance(node, MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]
