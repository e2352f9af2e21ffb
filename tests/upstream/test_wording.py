"""Sentences go with what they speak of."""

from upstream.wording import (
    without_arguments,
    without_examples,
    without_mentions,
    without_stale_raises,
)

TEXT = '''\
"""Writes folders, also those of birds.

It writes them whole. Birds are counted, and also the nests that they have
built in spring. The folder is new.

Birds sing.

Authors: nobody
"""


def run(path, bird=None):
    """Runs.

    Arguments
    ---------
    path : str
        Where to. A bird's nest
        is possible.

    Example
    -------
    >>> run(
    ...     path="a", bird=1,
    ...     bird=2,
    ... )
    """
'''


def test_sentences_that_name_it_go_and_paragraphs_are_filled():
    slim = without_mentions(TEXT, "birds? ?(are|sing|'s)")
    assert slim.startswith(
        '"""Writes folders, also those of birds.\n\n'
        "It writes them whole. The folder is new.\n\n"
        "Authors: nobody\n"
    )
    assert "    path : str\n        Where to.\n\n    Example\n" in slim


def test_what_is_not_named_stays_as_it_was():
    assert without_mentions(TEXT, "fish") == TEXT


def test_a_heading_goes_where_nothing_follows():
    text = '''"""One.

    Raises
    ------
    A bird sings.

    Example
    -------
    >>> 1
    1
    """
'''
    assert without_mentions(text, "bird") == text.replace(
        "    Raises\n    ------\n    A bird sings.\n\n", ""
    )


def test_arguments_go_from_examples():
    slim = without_arguments(TEXT, ["bird"])
    assert '>>> run(\n    ...     path="a",\n    ... )\n' in slim


def test_raises_goes_where_nothing_raises():
    before = '''
def run():
    """Runs.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If bad.

    Example
    -------
    >>> run()
    1
    """
    raise ValueError
'''
    after = before.replace("    raise ValueError\n", "    return 1\n")
    assert "Raises" not in without_stale_raises(before, after)
    assert "If bad" not in without_stale_raises(before, after)
    assert "int\n\n    Example" in without_stale_raises(before, after)
    assert without_stale_raises(before, before) == before


def test_an_example_goes_with_its_heading_and_nothing_else():
    text = (
        "def shown():\n"
        '    """Is shown.\n\n'
        "    Example\n    -------\n    >>> shown()\n"
        '    """\n'
        "    return 1\n"
    )
    both = text + text.replace("shown", "kept")
    expected = 'def shown():\n    """Is shown.\n    """\n    return 1\n'
    assert without_examples(both, ["shown"]) == expected + text.replace(
        "shown", "kept"
    )
