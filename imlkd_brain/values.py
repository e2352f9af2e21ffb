"""Checks values of a YAML, and says in one sentence what is wrong with them.

Authors: IML-KD contributors
"""

import math
import numbers
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from imlkd_brain.errors import UserError, expected_sentence, nearest
from imlkd_brain.schema import KINDS, Made

# What is longer is cut in a message.
MOST_LETTERS = 60


def short(value):
    """A value as a message shows it.

    Example
    -------
    >>> short("a"), short(None), short([1, 2.5]), short(8000), short(8000.0)
    ("'a'", 'null', '[1, 2.5]', '8000', '8000.0')
    """
    if value is None:
        return "null"
    if isinstance(value, Made):
        return f"the object {value.name}"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.12g}"
        # 8000.0 is no whole number, so a message must not show it as one.
        return f"{text}.0" if text.lstrip("-").isdigit() else text
    if isinstance(value, numbers.Real):
        return _digits(value)
    text = " ".join(repr(value).split())
    if len(text) > MOST_LETTERS:
        text = f"{text[: MOST_LETTERS - 3]}..."
    return text


def _digits(value):
    """A whole number, of which a long one is not written out."""
    return (
        str(value)
        if abs(value) < 10**18
        else f"{float(min(value, 10**300)):.3g}"
    )


def check_value(key, value, option):
    """Refuse a value that a key may not have.

    Arguments
    ---------
    key : str
        For the message; dotted below an object.
    value : object
        Of the YAML; objects as :class:`Made`.
    option : Option
        What is declared.

    Raises
    ------
    UserError
        In one sentence with the key, its value and what is expected.

    Example
    -------
    >>> from imlkd_brain.schema import Option
    >>> check_value("lr", "abc", Option("number", "Rate.", above=0))
    Traceback (most recent call last):
    ...
    imlkd_brain.errors.UserError: lr is 'abc', but must be a number above 0.
    """
    if value is None and option.null is not None:
        return
    if isinstance(value, str) and value in option.words:
        return
    if isinstance(value, Made) and value.unknown:
        return
    if option.other and not isinstance(value, dict):
        option = option.other
    kind = option.kind
    if kind == "list":
        _check_list(key, value, option)
    elif kind == "mapping":
        _check_mapping(key, value, option)
    elif kind == "object":
        _check_object(key, value, option)
    elif not _is_of_kind(value, option):
        raise UserError(_refusal(key, value, option))
    elif kind in ("file", "folder", "path"):
        _check_path(key, value, option)
    if option.check:
        expected = option.check(value)
        if expected:
            raise UserError(expected_sentence(key, short(value), expected))
    if option.package and value:
        require(key, *option.package)


def require(key, package, extra):
    """Refuse a key whose optional package is not installed.

    Arguments
    ---------
    key : str
        That needs it.
    package : str
        As it is imported.
    extra : str
        Of this distribution, as pip knows it.

    Raises
    ------
    UserError
        With the command that installs it.

    Example
    -------
    >>> require("plots", "math", "plots")
    """
    if find_spec(package) is None:
        raise UserError(
            f"{key}: the package {package} is not installed; run `pip install "
            f"-e '.[{extra}]'` in this repository's root, or leave {key} out."
        )


def _refusal(key, value, option):
    """The sentence for a value of another kind or out of range."""
    hint = ""
    known = [*option.choices, *option.words]
    if isinstance(value, str) and known:
        hint = nearest(value, known)
    elif isinstance(value, numbers.Real) and option.kind in ("number", "whole"):
        if option.high is not None and value > option.high:
            expected = KINDS[option.kind] + option.limits_in_words(far=True)
            return expected_sentence(key, short(value), expected)
    return expected_sentence(key, short(value), option.expected + hint)


def _is_of_kind(value, option):
    """Whether a value that is no container is of the kind and in its range."""
    if option.kind == "flag":
        return isinstance(value, bool)
    if option.kind == "choice":
        # Not `value in choices`: True is 1 there.
        return any(
            type(value) is type(c) and value == c for c in option.choices
        )
    if option.kind in ("text", "file", "folder", "path"):
        return isinstance(value, str | os.PathLike) and bool(str(value).strip())
    whole = option.kind == "whole"
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if whole else numbers.Real
    ):
        return False
    # Infinity and NaN compare as false, also where there is no limit.
    return (
        math.isfinite(value)
        and (option.low is None or value >= option.low)
        and (option.above is None or value > option.above)
        and (option.high is None or value <= option.high)
    )


def _check_path(key, value, option):
    """Refuse a file where a folder is meant, and a folder for a file."""
    text = str(value)
    if "\0" in text:
        raise UserError(_refusal(key, value, option))
    for path in text.split(",") if option.several else [text]:
        path = path.strip()
        if option.kind == "folder" and _is(os.path.isfile, path):
            raise UserError(
                f"{key}: {path} is a file, but must be {KINDS['folder']}."
            )
        if option.kind == "file" and _is(os.path.isdir, path):
            raise UserError(
                f"{key}: {path} is a folder, but must be {KINDS['file']}."
            )
        if any(len(part) > 255 for part in path.split("/")) and (
            "://" not in path
        ):
            raise UserError(
                f"{key}: {short(path)} is longer than a path may be; correct "
                "it."
            )


def _is(kind, path):
    """Whether there is such a file or folder; False for what is no path."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False


def _check_list(key, value, option):
    """Refuse what is no list, has too few entries or wrong ones."""
    alone = not isinstance(value, list | tuple)
    if alone:
        wrong = isinstance(value, dict | Made) or value is None
        if wrong or not option.single or not option.item:
            raise UserError(_refusal(key, value, option))
        value = [value]
    size = len(value)
    if (option.low is not None and size < option.low) or (
        option.high is not None and size > option.high
    ):
        raise UserError(_refusal(key, value, option))
    if option.item:
        for number, entry in enumerate(value):
            name = key if alone else f"{key}[{number}]"
            check_value(name, entry, option.item)


def _check_mapping(key, value, option):
    """Refuse what is no mapping, and wrong entries."""
    if not isinstance(value, dict):
        raise UserError(_refusal(key, value, option))
    known = option.entries or {}
    for name, entry in value.items():
        if not isinstance(name, str):
            raise UserError(
                expected_sentence(
                    f"{key}: the name {short(name)}",
                    "no text",
                    "text in quotes",
                )
            )
        if name in known:
            check_value(f"{key}.{name}", entry, known[name])
        elif option.item:
            check_value(f"{key}.{name}", entry, option.item)
        elif known:
            raise UserError(
                f"{key}: there is no entry `{name}`{nearest(name, known)}; "
                f"the entries are {', '.join(known)}."
            )
    for name, entry in known.items():
        if name not in value and not entry.optional:
            raise UserError(
                f"{key}: the entry `{name}` is missing; give {entry.expected}."
            )


def _check_object(key, value, option):
    """Refuse what is no object, and wrong arguments of a known class."""
    if not isinstance(value, Made):
        raise UserError(_refusal(key, value, option))
    arguments = option.classes.get(value.name, {})
    for name, entry in value.kwargs.items():
        if name in arguments:
            check_value(f"{key}.{name}", entry, arguments[name])


def check_given(options, **values):
    """Check the arguments of a constructor by what is declared of their keys.

    Arguments
    ---------
    options : dict of str to Option
        By key.
    **values : object
        By key.

    Raises
    ------
    UserError
        As :func:`check_value`.
    """
    for key, value in values.items():
        check_value(key, value, options[key])


def check_values(values, options, source, named=()):
    """Refuse a YAML that is not what is declared.

    Arguments
    ---------
    values : dict
        Of the YAML, objects as :class:`Made`.
    options : dict of str to Option
        What is declared of its keys.
    source : str
        The YAML's path.
    named : iterable of str
        Further keys that it may have: what other keys refer to.

    Raises
    ------
    UserError
        For a key that is missing, unknown or has a wrong value.
    """
    for key in values:
        if key not in options and key not in named:
            raise UserError(
                f"{source}: nothing reads the key `{key}`"
                f"{nearest(key, options)}; correct its name, or remove it."
            )
    for key, option in options.items():
        if key in values:
            check_value(key, values[key], option)
        elif not option.optional:
            like = nearest(key, [k for k in values if k not in options])
            raise UserError(
                f"{source}: the key `{key}` is missing{like}; give "
                f"{option.expected}. It says: {option.meaning}"
            )


@dataclass(frozen=True)
class Schema:
    """What a script's YAML may be.

    Arguments
    ---------
    options : dict of str to Option
        All keys that it may have.
    check : callable
        Refuses values that do not go together.
    chosen : callable, optional
        From the values to the options that apply to them.
    """

    options: dict
    check: Callable = lambda values: None
    chosen: Callable | None = None

    def check_values(self, values, source, named=()):
        """:func:`check_values`, and whether they go together."""
        options = self.chosen(values) if self.chosen else self.options
        check_values(values, options, source, named)
        self.check(values)

    def check_given(self, values):
        """Check what the command line gives, before the YAML is read."""
        for key, value in values.items():
            option = self.options.get(key)
            # An object's arguments are known with its class alone.
            if option and not (
                option.kind == "object" and isinstance(value, dict)
            ):
                check_value(key, value, option)
