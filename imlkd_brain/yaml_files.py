"""Reads the text of a YAML, and says in a sentence what is wrong with it.

Authors: IML-KD contributors
"""

import os
import re
from contextlib import contextmanager

import ruamel.yaml
import yaml as pyyaml
from ruamel.yaml.error import YAMLError

from imlkd_brain.aliases import check_aliases
from imlkd_brain.errors import UserError, nearest
from imlkd_brain.files import check_regular
from imlkd_brain.schema import Made


class _Describing(ruamel.yaml.Loader):
    """Reads a YAML as HyperPyYAML does, but describes objects."""


def _describe_node(loader, name, node):
    """An object with its arguments."""
    args, kwargs = [], {}
    if isinstance(node, ruamel.yaml.MappingNode):
        kwargs = loader.construct_mapping(node, deep=True)
    elif isinstance(node, ruamel.yaml.SequenceNode):
        args = loader.construct_sequence(node, deep=True)
    return Made(name, args, kwargs)


def _unknown_node(loader, name, node):
    """What is known when it is built or resolved alone."""
    return Made(name, [], {}, unknown=True)


def _tuple_node(loader, node):
    """HyperPyYAML's (1, 2)."""
    return tuple(load_values(f"[{loader.construct_scalar(node)[1:-1]}]"))


for _tag in ("!new:", "!name:", "!module:"):
    _Describing.add_multi_constructor(_tag, _describe_node)
_Describing.add_multi_constructor("!", _unknown_node)
_Describing.add_constructor("!tuple", _tuple_node)
_Describing.add_implicit_resolver("!tuple", re.compile(r"^\(.*\)$"), first="(")


def load_values(text):
    """Return the values of a YAML text, objects described.

    Arguments
    ---------
    text : str
        YAML, with HyperPyYAML's tags.

    Returns
    -------
    object
        Objects as :class:`imlkd_brain.schema.Made`.

    Example
    -------
    >>> load_values("a: (1, 2)")
    {'a': (1, 2)}
    """
    return pyyaml.load(text, Loader=_Describing)


def read_text(path):
    """Return the text of a YAML.

    Arguments
    ---------
    path : str
        The file.

    Returns
    -------
    str

    Raises
    ------
    UserError
        If it is missing, no regular file, no text, or cannot be read.
    """
    try:
        check_regular(path)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such hyperparameter file; run in the recipe's folder "
            "(recipes/VoxCeleb/IMLKD), whose hparams/ holds them."
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: this is a folder; give one of its YAML files."
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: this is no text in UTF-8; save the YAML in UTF-8."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); correct the path or "
            "its permissions."
        ) from None
    if "\0" in text:
        raise UserError(f"{path}: this is no text file; give a YAML.")
    check_aliases(text, path)
    return text


@contextmanager
def explained(hparams_file, overrides):
    """Turn what YAML and HyperPyYAML complain about into sentences.

    Arguments
    ---------
    hparams_file : str
        The YAML that is read inside.
    overrides : str
        What is put over it.

    Raises
    ------
    UserError
        In place of the complaint.
    """
    try:
        yield
    except UserError:
        raise
    except YAMLError as error:
        raise UserError(_unreadable(hparams_file, overrides, error)) from error
    except RecursionError as error:
        raise UserError(
            f"{hparams_file}: it is nested too deeply; correct the YAML or "
            "the option."
        ) from error
    except Exception as error:  # what a class of the YAML raises is unknown
        message = _yaml_mistake(hparams_file, error) or _not_built(
            hparams_file, error
        )
        if message is None:
            raise
        raise UserError(message) from error


def _not_built(hparams_file, error):
    """The sentence for an object that cannot be built; None for a bug."""
    name, frame = None, error.__traceback__
    while frame:
        # HyperPyYAML's own functions know what they build.
        name = frame.tb_frame.f_locals.get("callable_string", name)
        frame = frame.tb_next
    if not isinstance(name, str):
        return None
    text = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{hparams_file}: {name} cannot be built ({text}); correct its "
        "arguments."
    )


def _unreadable(hparams_file, overrides, error):
    """Say whether the file or an option is no YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", error)).split())
    # The command line's overrides are parsed as a string, files by name.
    if mark is None or not mark.name.startswith("<"):
        line = "" if mark is None else f", line {mark.line + 1}"
        file = hparams_file if mark is None else mark.name
        return f"{file}{line}: cannot be read as YAML ({problem})."
    lines = overrides.splitlines() or [""]
    option = lines[min(mark.line, len(lines) - 1)]
    return (
        f"the option `--{option.replace(':', '', 1)}` cannot be read as YAML "
        f"({problem}); quote it for the shell, as in `--durations '[1.0, "
        "2.0]'`, and a text again for YAML, as in `--data_folder '\"/a: b\"'`."
    )


def _yaml_mistake(hparams_file, error):
    """The sentence for what HyperPyYAML complains about; None for a bug."""
    text = " ".join(" ".join(map(str, error.args)).split())
    if "PLACEHOLDER" in text:
        return _placeholder_message(hparams_file, error)
    if isinstance(error, KeyError) and text.startswith("Override"):
        key = text.split("'")[1]
        known = re.findall(r"'([^']+)'", text.partition("found in")[2])
        return (
            f"{hparams_file}: the option `--{key}` names no key of this YAML"
            f"{nearest(key, known)}; check its spelling against the file."
        )
    if text.startswith("The structure of the overrides"):
        key = _no_mapping(load_values(read_text(hparams_file)), error.args[1])
        return (
            f"{hparams_file}: {key} is no mapping there, and the option or the "
            "YAML with this base gives it one; correct the key, or give a "
            "value that is no mapping."
        )
    if text.startswith(
        ("There is no such", "The reference", "Invalid argument to")
    ):
        return f"{hparams_file}: {text}; correct the YAML or the option."
    return None


def _no_mapping(values, overrides, place=""):
    """The first key that only the overrides have a mapping for."""
    for key, value in overrides.items():
        there = values.get(key, {}) if isinstance(values, dict) else None
        if isinstance(value, dict) and isinstance(there, dict):
            found = _no_mapping(there, value, f"{place}{key}.")
            if found:
                return found
        elif isinstance(value, dict):
            return f"{place}{key}"
    return None


def _placeholder_message(hparams_file, error):
    """Say which option is missing and what can be run without VoxCeleb."""
    name = os.path.basename(hparams_file)
    key = str(error).split("'")[1] if "'" in str(error) else "data_folder"
    message = f"{hparams_file}: give `--{key} "
    if key != "data_folder":
        return message + "...`, it has no default."
    message += "/path/to/VoxCeleb1` (a folder with wav/<speaker>/<session>/)"
    trial = os.path.join(os.path.dirname(hparams_file), "minivox", name)
    if os.path.isfile(trial):
        message += (
            "; without VoxCeleb, `python -m imlkd_brain.corpora.minivox "
            "--data_folder DIR` installs a small real corpus for "
            f"`{trial} --data_folder DIR`, and `make demo` does both"
        )
    return message + "."
