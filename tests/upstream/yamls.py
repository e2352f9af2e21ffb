"""Leaves keys out of a YAML's text; comments and order stay.

A key goes with the comments right above it. A section whose keys are all left
out goes with its banner.
"""

import re

_BANNER = re.compile(r"#{4,}.*#{4,}$")


class YamlError(Exception):
    """A key to leave out is not there."""


def without_keys(text, keys):
    """Return a YAML's text without some keys.

    Arguments
    ---------
    text : str
        The YAML; nested keys are indented by four spaces.
    keys : sequence of str
        Keys to leave out, ``parent.child`` for a nested one. A key that is
        not there is left alone.

    Returns
    -------
    str

    Example
    -------
    >>> without_keys("a: 1\\n# why b\\nb:\\n    c: 2\\nd: 3\\n", ["b"])
    'a: 1\\nd: 3\\n'
    """
    lines = text.splitlines()
    for key in keys:
        found = _block(lines, key.split("."))
        if found is not None:
            start, end = found
            # Of two paragraphs one blank line stays.
            blank_before = start == 0 or not lines[start - 1]
            if blank_before and end < len(lines) and not lines[end]:
                end += 1
            del lines[start:end]
    lines = _without_empty_sections(lines)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def blocks(text, keys):
    """Return the lines of some top-level keys, as one text."""
    lines = text.splitlines()
    parts = []
    for key in keys:
        found = _block(lines, [key], with_comments=False)
        if found is None:
            raise YamlError(f"the key `{key}` is missing")
        parts.append("\n".join(lines[slice(*found)]))
    return "\n\n".join(parts)


def _without_empty_sections(lines):
    """Drop banners that no key follows, with the comments below them."""
    kept, section = [], []
    for line in [*lines, "#### end ####"]:
        if _BANNER.match(line) and section and _BANNER.match(section[0]):
            if any(text and not text.startswith("#") for text in section):
                kept += section
            section = []
        elif _BANNER.match(line):
            kept += section
            section = []
        section.append(line)
    return kept


def _block(lines, path, with_comments=True):
    """First line and line after the last one of a key; None if not there."""
    start, end = 0, len(lines)
    for depth, name in enumerate(path):
        indent = " " * 4 * depth
        at = next(
            (
                number
                for number in range(start, end)
                if re.match(rf"{indent}{re.escape(name)}:( |$)", lines[number])
            ),
            None,
        )
        if at is None:
            return None
        start, end = at, at + 1
        while end < len(lines) and re.match(
            rf"{indent}    \S|{indent}     ", lines[end]
        ):
            end += 1
        if depth + 1 < len(path):
            start += 1
    if with_comments:
        mark = " " * 4 * (len(path) - 1) + "#"
        while lines[start - 1].startswith(mark) and not _BANNER.match(
            lines[start - 1]
        ):
            start -= 1
    return start, end
