"""Declares what a key of a YAML may be.

A room declares its keys as :class:`Option`, once: kind, range, choices and one
sentence of meaning. :mod:`imlkd_brain.registry` collects them,
:mod:`imlkd_brain.values` checks values. Both know no key and import no room.

A library such as pydantic would check plain values as well. It checks neither a
value before the objects of a YAML are built from it, nor does it know objects
that are only described, references, paths and installed packages, and its
messages take several lines. What is left is short, and needs no package.

Authors: IML-KD contributors
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

# A limit above is said where it is crossed.
FAR = 10_000
KINDS = {
    "number": "a number",
    "whole": "a whole number",
    "flag": "True or False",
    "text": "text",
    "choice": "",
    "file": "the path of a file",
    "folder": "the path of a folder",
    "path": "a path",
    "list": "a list",
    "mapping": "a mapping",
    "object": "an object that the YAML builds (!new: or !name:)",
}


@dataclass(frozen=True)
class Made:
    """An object of a YAML before it is built.

    Arguments
    ---------
    name : str
        Class or function, with its module.
    args : list
        Arguments without a name.
    kwargs : dict
        Arguments by name.
    unknown : bool
        Whether it may become anything: a reference, or what a function
        returns.
    """

    name: str
    args: list
    kwargs: dict
    unknown: bool = False


@dataclass(frozen=True)
class Option:
    """What one key of a YAML may be.

    Arguments
    ---------
    kind : str
        A key of ``KINDS``.
    meaning : str
        One sentence.
    low, high : float, optional
        Smallest and largest number, or fewest and most entries of a list.
    above : float, optional
        The number must be larger than this one.
    choices : tuple, optional
        Of ``choice``.
    words : tuple of str, optional
        Accepted beside what the kind accepts.
    null : str, optional
        What null means. None: null is refused.
    item : Option, optional
        Each entry of a list or mapping.
    single : bool
        Whether a list of one may be written without brackets.
    other : Option, optional
        What a value that is no mapping must be, where that may be.
    entries : dict of str to Option, optional
        Known entries of a mapping; others are refused unless there is ``item``.
    classes : dict of str to dict of str to Option
        Known arguments of an object, by its class.
    optional : bool
        Whether a YAML may do without the key.
    several : bool
        Whether a path may be several with commas.
    replaces : bool
        Whether a mapping on the command line replaces the YAML's. Otherwise
        it is merged into it.
    example : str, optional
        A list or mapping, for a message.
    check : callable, optional
        From the value to what is expected, or None where it is good.
    package : tuple of str, optional
        Package and extra that are needed where the key is not null, False or
        empty.

    Example
    -------
    >>> rate = Option("number", "The learning rate.", above=0, high=100)
    >>> rate.expected
    'a number above 0 and at most 100'
    """

    kind: str
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple = ()
    words: tuple = ()
    null: str | None = None
    item: Optional["Option"] = None
    single: bool = False
    other: Optional["Option"] = None
    entries: dict | None = None
    classes: dict = field(default_factory=dict)
    optional: bool = False
    several: bool = False
    replaces: bool = False
    example: str | None = None
    check: Callable[[Any], str | None] | None = None
    package: tuple[str, str] | None = None

    @property
    def expected(self):
        """What the key may be, in words."""
        words = [*self.words, *(self.choices if self.kind == "choice" else ())]
        parts = []
        if words:
            one_of = "one of " if len(words) > 1 else ""
            parts.append(one_of + ", ".join(map(str, words)))
        if self.kind == "list":
            parts.append(self._list_in_words())
        elif self.kind == "mapping":
            such = f" such as {self.example}" if self.example else ""
            parts.append(KINDS["mapping"] + such)
        elif self.kind != "choice":
            parts.append(KINDS[self.kind] + self.limits_in_words())
        if self.other:
            parts.append(self.other.expected)
        if self.null is not None:
            parts.append(f"null ({self.null})")
        return " or ".join(parts)

    def limits_in_words(self, far=False):
        """The range of a number, with a space before.

        Arguments
        ---------
        far : bool
            Whether a limit is said that only a slip reaches.
        """
        limits = []
        if self.above is not None:
            limits.append(f"above {self.above:g}")
        if self.low is not None:
            limits.append(f"of at least {self.low:g}")
        if self.high is not None and (far or self.high <= FAR):
            limits.append(f"at most {self.high:.12g}")
        return f" {' and '.join(limits)}" if limits else ""

    def _list_in_words(self):
        """A list, with how many entries of which kind."""
        size = ""
        if self.low is not None and self.low == self.high:
            size = f" of {self.low:g} entries"
        elif self.low and self.high is not None and self.high <= FAR:
            size = f" of {self.low:g} to {self.high:g} entries"
        elif self.low:
            size = f" of at least {self.low:g} entr{'y' if self.low == 1 else 'ies'}"
        each = f", each {self.item.expected}" if self.item else ""
        such = f" such as {self.example}" if self.example else ""
        text = f"a list{size}{such}{each}"
        return f"{text}, or one of them alone" if self.single else text


def number(meaning, **limits):
    """An :class:`Option` that is a number."""
    return Option("number", meaning, **limits)


def whole(meaning, **limits):
    """An :class:`Option` that is a whole number."""
    return Option("whole", meaning, **limits)


def flag(meaning, **more):
    """An :class:`Option` that is True or False."""
    return Option("flag", meaning, **more)


def choice(meaning, choices, **more):
    """An :class:`Option` that is one of several words."""
    return Option("choice", meaning, choices=tuple(choices), **more)


def list_of(item, meaning, **more):
    """An :class:`Option` that is a list; of at least one entry by default."""
    return Option("list", meaning, item=item, **{"low": 1, **more})


def mapping(meaning, item=None, **more):
    """An :class:`Option` that is a mapping."""
    return Option("mapping", meaning, item=item, **more)


def built(meaning, **more):
    """An :class:`Option` that is an object of the YAML."""
    return Option("object", meaning, **more)
