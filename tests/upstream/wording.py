"""Takes sentences out of docstrings and comments.

A docstring speaks of all that a module does. Where a part of it is left out, a
sentence that names the part goes too, and the paragraph is filled anew.
"""

import ast
import re
import textwrap

from upstream.source import DEFINITIONS, Source

WIDTH = 80
_SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z`:])")
_NO_PROSE = re.compile(r"\s*(>>>|\.\.\. |[=-]{3}|\S+ : |\* )|.*::$")


def without_mentions(text, words):
    """Drop sentences of docstrings that name something.

    Arguments
    ---------
    text : str
        A Python source.
    words : str
        A regular expression, in lower case.

    Returns
    -------
    str

    Example
    -------
    >>> print(without_mentions('"Reads. Or sings a song."', "song"))
    "Reads."
    """
    lines = text.split("\n")
    spans = sorted(_docstrings(ast.parse(text)), reverse=True)
    for start, end in spans:
        slim = _slim_docstring(lines[start:end], words)
        lines[start:end] = _without_empty_sections(slim)
    return "\n".join(lines)


def without_arguments(text, names):
    """Drop keyword arguments of calls in the examples of docstrings.

    Arguments
    ---------
    text : str
        A Python source.
    names : sequence of str
        Of the arguments.

    Returns
    -------
    str
    """
    if not names:
        return text
    argument = re.compile(rf"\b({'|'.join(names)})=[^,()]*,? ?")
    lines = []
    for line in text.split("\n"):
        if line.lstrip().startswith("... ") and argument.search(line):
            line = argument.sub("", line).rstrip()
            if line.strip() == "...":
                continue
        lines.append(line)
    return "\n".join(lines)


def without_examples(text, names):
    """Drop the sections ``Example``, which are the last, of some docstrings.

    Arguments
    ---------
    text : str
        A Python source.
    names : sequence of str
        Of the functions and classes.

    Returns
    -------
    str
    """
    lines = text.split("\n")
    documented = sorted(_documented(text), key=lambda pair: -pair[1].lineno)
    for name, node in documented:
        value = node.body[0].value
        heading = " " * value.col_offset + "Example"
        section = lines[value.lineno - 1 : value.end_lineno]
        if name.rpartition(".")[2] in names and heading in section:
            start = value.lineno - 1 + section.index(heading)
            # The blank line above it goes too, the closing quotes stay.
            del lines[start - 1 : value.end_lineno - 1]
    return "\n".join(lines)


def without_stale_raises(before, after):
    """Drop sections ``Raises`` of what no longer raises.

    Arguments
    ---------
    before, after : str
        A source, whole and cut.
    """
    raised = {name for name, node in _documented(before) if _raises(node)}
    source = Source(after)
    for name, node in _documented(after):
        if name not in raised or _raises(node):
            continue
        first = node.body[0]
        indent = b" " * first.col_offset
        lines = source.lines
        for number in range(first.lineno, first.end_lineno):
            if lines[number] == indent + b"Raises\n":
                # Up to the next heading or the closing quotes.
                end = number + 2
                while end < first.end_lineno - 1 and not (
                    lines[end + 1].strip() and not lines[end + 1].strip(b" -\n")
                ):
                    end += 1
                start = number
                # The blank line before it, where it was the last section.
                if end == first.end_lineno - 1:
                    start -= 1
                source.edits.append(
                    (source.starts[start], source.starts[end], b"")
                )
    return source.result()


def _docstrings(tree):
    """(first line, line after the last) of every docstring, from 0."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno - 1, value.end_lineno


def _slim_docstring(lines, words):
    """The lines of a docstring without some sentences."""
    result, paragraph = [], []
    for line in [*lines, None]:
        # Deeper or shallower is another paragraph: a description.
        goes_on = (
            line is not None
            and line.strip()
            and not _NO_PROSE.match(line)
            and (not paragraph or _indent(line) == _indent(paragraph[0]))
        )
        if goes_on:
            paragraph.append(line)
            continue
        kept = _slim_paragraph(paragraph, words)
        if paragraph and not kept and result and not result[-1].strip():
            # A blank line less
            result.pop()
        result += kept
        paragraph = []
        if line is not None and line.strip() and not _NO_PROSE.match(line):
            paragraph = [line]
        elif line is not None:
            result.append(line)
    return result


def _without_empty_sections(lines):
    """Drop headings of a docstring that nothing follows."""
    kept = list(lines)
    for number in range(len(lines) - 3, -1, -1):
        heading, dashes, after = (t.strip() for t in lines[number : number + 3])
        if heading and re.fullmatch(r"-{4,}", dashes) and after in ("", '"""'):
            # With the blank line before it
            del kept[number - 1 : number + 2]
    return kept


def _slim_paragraph(lines, words):
    """The lines of a paragraph without some sentences."""
    text = " ".join(line.strip() for line in lines)
    if not re.search(words, text, re.IGNORECASE):
        return lines
    opening = re.match(r'[rf]?("""|")?', text).group()
    closing = opening.lstrip("rf") if text.endswith('"') and opening else ""
    if not opening and text.endswith('"""'):
        closing = '"""'
    inner = text[len(opening) : len(text) - len(closing)]
    kept = [
        sentence
        for sentence in _SENTENCE.split(inner)
        if not re.search(words, sentence, re.IGNORECASE)
    ]
    if not kept and opening:
        # A docstring has a first sentence.
        return lines
    if not kept:
        return [_indent(lines[0]) + closing] if closing else []
    indent = _indent(lines[0])
    filled = textwrap.wrap(
        opening + re.sub(r"[;,]$", ".", " ".join(kept)) + closing,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled


def _indent(line):
    return line[: len(line) - len(line.lstrip())]


def _documented(text):
    """(name with its class, node) of everything that has a docstring."""
    stack = [("", ast.parse(text))]
    while stack:
        owner, parent = stack.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, DEFINITIONS):
                name = f"{owner}.{node.name}"
                stack.append((name, node))
                if ast.get_docstring(node) is not None:
                    yield name, node


def _raises(node):
    """Whether it raises or calls a check."""
    for part in ast.walk(node):
        if isinstance(part, ast.Raise):
            return True
        if isinstance(part, ast.Call):
            name = getattr(part.func, "id", getattr(part.func, "attr", ""))
            if "check" in name:
                return True
    return False
