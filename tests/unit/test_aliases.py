"""Aliases of aliases, and aliases of what they are in."""

import pytest

from imlkd_brain.aliases import check_aliases
from imlkd_brain.errors import UserError


@pytest.mark.parametrize("levels", [3, 30])
def test_aliases_are_counted_as_they_are_written_out(levels):
    lines = ["l0: &l0 [x, x]"] + [
        f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]"
        for i in range(1, levels)
    ]
    text = "\n".join(lines)
    if levels == 3:
        check_aliases(text, "some.yaml")
        return
    with pytest.raises(UserError, match="^some.yaml: its aliases.*100,000"):
        check_aliases(text, "some.yaml")


def test_an_alias_of_what_it_is_in_has_no_end():
    with pytest.raises(UserError, match="aliases"):
        check_aliases("a: &a [1, *a]", "some.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "&a [1, *a]",
        "- &a [1, *a]",
        "- - &a [1, *a]",
        "? &a [1, *a]\n: 1",
        "a:\n    &a [1, *a]",
        "{a: &a [1, *a]}",
        '{"a":&a [1, *a]}',
        "[&a [1, *a]]",
        "[1,&a [1, *a]]",
        "!!seq &a [1, *a]",
        "--- &a [1, *a]",
    ],
)
def test_wherever_an_anchor_is(text):
    with pytest.raises(UserError, match="aliases"):
        check_aliases(text, "some.yaml")
