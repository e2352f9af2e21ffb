"""Unit tests of ``imlkd_brain.values``."""

import pytest

from imlkd_brain.errors import UserError
from imlkd_brain.schema import Option, choice, list_of, number, whole
from imlkd_brain.values import check_value, require, short


@pytest.mark.parametrize(
    ("option", "value"),
    [
        (number("A.", low=0, high=1), 0),
        (number("A.", low=0, high=1), 1.0),
        (number("A.", above=0), 1e-300),
        (whole("A.", low=1, null="none"), None),
        (number("A.", words=("full",)), "full"),
        (list_of(whole("A."), "B.", single=True), 3),
        (list_of(whole("A."), "B."), (1, 2)),
        (choice("A.", (1, "b")), 1),
    ],
)
def test_good_values_pass(option, value):
    check_value("key", value, option)


def test_true_is_no_number_and_one_is_not_true():
    for option, value in (
        (number("A."), True),
        (whole("A."), False),
        (Option("flag", "A."), 1),
        (choice("A.", (1, 2)), True),
    ):
        with pytest.raises(UserError, match=f"key is {value}, but must be"):
            check_value("key", value, option)


def test_the_sentence_has_key_value_expectation_and_nearest_word():
    with pytest.raises(UserError) as raised:
        check_value("rule", "midpint", choice("A.", ("right", "midpoint")))
    assert str(raised.value) == (
        "rule is 'midpint', but must be one of right, midpoint (did you mean "
        "midpoint?)."
    )


def test_a_number_far_out_is_told_its_limit():
    with pytest.raises(UserError, match="is 1e\\+30, .*at most 1000000"):
        check_value("n", 10**30, whole("A.", low=1, high=10**6))
    with pytest.raises(UserError, match="is 0, but must be .* at least 1.$"):
        check_value("n", 0, whole("A.", low=1, high=10**6))


def test_files_and_folders_are_told_apart(tmp_path):
    file = tmp_path / "a"
    file.write_text("")
    check_value("k", str(file), Option("file", "A."))
    check_value("k", str(tmp_path / "new"), Option("folder", "A."))
    with pytest.raises(UserError, match=f"k: {file} is a file, .* folder"):
        check_value("k", str(file), Option("folder", "A."))
    with pytest.raises(UserError, match=f"k: {tmp_path} is a folder, .* file"):
        check_value("k", str(tmp_path), Option("file", "A."))
    both = f"{tmp_path}, {file}"
    with pytest.raises(UserError, match="is a file"):
        check_value("k", both, Option("folder", "A.", several=True))
    for path in ("a\0b", "x" * 300):
        with pytest.raises(UserError, match="^k"):
            check_value("k", path, Option("file", "A."))


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    option = Option("flag", "A.", package=("no_such_package", "plots"))
    check_value("plots", False, option)
    with pytest.raises(UserError, match=r"plots: .*no_such.*'\.\[plots\]'"):
        check_value("plots", True, option)
    with pytest.raises(UserError, match="^methods: "):
        require("methods", "no_such_package", "explain")


def test_long_values_are_cut():
    assert len(short(list(range(1000)))) <= 60
    assert short(10**400) == "1e+300" and "\n" not in short("a\nb")
