"""Reads a YAML and its command line, and explains mistakes in them.

A missing file, a YAML error or an unset placeholder is reported in one
sentence that names the file and the key.

Authors: IML-KD contributors
"""

import io
import os
import sys

from hyperpyyaml import load_hyperpyyaml
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import speechbrain as sb
from imlkd_brain.errors import UserError


def load_hyperparameters(argv):
    """Parse a recipe's command line and load its YAML.

    Arguments
    ---------
    argv : list of str
        Arguments after the script's name.

    Returns
    -------
    hparams_file : str
        The YAML's path; of its base where it names one.
    hparams : dict
        The YAML's objects.
    run_opts : speechbrain.utils.run_opts.RunOptions
        Device and other run options.
    overrides : str
        In YAML form: what the YAML changes of its base, then the command
        line's overrides.

    Raises
    ------
    UserError
        If the YAML is missing, a placeholder was not filled, or an override
        names no key of the YAML.
    """
    if not argv or argv[0].startswith("-"):
        raise UserError(
            "the first argument must be a hyperparameter file, as in "
            f"`python {os.path.basename(sys.argv[0])} hparams/iml_kd.yaml`."
        )
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    try:
        hparams_file, overrides = resolve_base(hparams_file, overrides)
        with open(hparams_file, encoding="utf-8") as stream:
            hparams = load_hyperpyyaml(stream, overrides)
    except FileNotFoundError as error:
        if error.filename != hparams_file:
            raise
        raise UserError(
            f"{hparams_file}: no such hyperparameter file; run in the "
            "recipe's folder (recipes/VoxCeleb/IMLKD), whose hparams/ holds "
            "them."
        ) from None
    except YAMLError as error:
        raise UserError(_unreadable(hparams_file, overrides, error)) from error
    except UserError:
        raise
    except (ImportError, KeyError, TypeError, ValueError) as error:
        message = _yaml_mistake(hparams_file, error)
        if message is None:
            raise
        raise UserError(message) from error
    return hparams_file, hparams, run_opts, overrides


def resolve_base(hparams_file, overrides=""):
    """Turn a YAML with a ``base`` into that base and overrides of it.

    A YAML whose top level has the key ``base`` is read as the base with its
    other keys changed. Mappings are merged, other values are replaced. The
    base is a path relative to the YAML and may have a base of its own.

    Arguments
    ---------
    hparams_file : str
        The YAML's path.
    overrides : str
        The command line's overrides in YAML form. They win over the YAML.

    Returns
    -------
    base : str
        The path of the YAML at the end of the chain.
    overrides : str
        All overrides of it in YAML form.

    Raises
    ------
    UserError
        If a base is missing or names itself, or a key is not in the base.
    """
    yaml = YAML()
    chain = [hparams_file]
    while True:
        with open(chain[-1], encoding="utf-8") as stream:
            content = yaml.load(stream)
        if not isinstance(content, dict) or "base" not in content:
            return chain[-1], overrides
        base = os.path.normpath(
            os.path.join(os.path.dirname(chain[-1]), str(content.pop("base")))
        )
        if not os.path.isfile(base):
            raise UserError(
                f"{chain[-1]}: its base {base} is missing; give the path of a "
                "YAML relative to this one."
            )
        if any(os.path.samefile(base, path) for path in chain):
            raise UserError(
                f"{chain[-1]}: its base {base} leads back to itself; name a "
                "YAML that is whole."
            )
        _check_keys_of_base(chain[-1], content, base)
        if overrides:
            recursive_update(content, yaml.load(overrides))
        stream = io.StringIO()
        yaml.dump(content, stream)
        overrides = stream.getvalue()
        chain.append(base)


def _check_keys_of_base(hparams_file, content, base):
    """Refuse a key that the base does not have."""
    with open(base, encoding="utf-8") as stream:
        known = set(YAML().load(stream) or ())
    # The base of a base has the rest of the keys.
    unknown = [key for key in content if key not in known]
    if unknown and "base" not in known:
        raise UserError(
            f"{hparams_file}: the key `{unknown[0]}` is not in its base "
            f"{base}; check its spelling against that file."
        )


def _unreadable(hparams_file, overrides, error):
    """Say whether the file or an option is no YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    problem = " ".join(str(getattr(error, "problem", error)).split())
    # The command line's overrides are parsed as a string, the file by name.
    if mark is None or mark.name == hparams_file:
        line = "" if mark is None else f", line {mark.line + 1}"
        return f"{hparams_file}{line}: cannot be read as YAML ({problem})."
    lines = overrides.splitlines()
    option = lines[min(mark.line, len(lines) - 1)]
    return (
        f"the option `--{option.replace(':', '', 1)}` cannot be read as YAML "
        f"({problem}); quote it for the shell, as in `--durations '[1.0, "
        "2.0]'`."
    )


def _yaml_mistake(hparams_file, error):
    """The sentence for what HyperPyYAML complains about; None for a bug."""
    text = " ".join(" ".join(map(str, error.args)).split())
    if "PLACEHOLDER" in text:
        return _placeholder_message(hparams_file, error)
    if isinstance(error, KeyError) and text.startswith("Override"):
        key = text.split("'")[1]
        return (
            f"{hparams_file}: the option `--{key}` names no key of this YAML; "
            "check its spelling against the file."
        )
    if text.startswith(
        (
            "There is no such",
            "The reference",
            "Invalid argument to",
            "The structure of the overrides",
        )
    ):
        return f"{hparams_file}: {text}; correct the YAML or the option."
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


def as_list(value):
    "Makes a list of a single value, which is easier to type in a terminal."
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_mapping(overrides):
    """Return overrides as a mapping, whether they are one or YAML text.

    Example
    -------
    >>> as_mapping("eta: 2.0")["eta"], as_mapping(None)
    (2.0, {})
    """
    if isinstance(overrides, str):
        return YAML().load(overrides) or {}
    return dict(overrides or {})
