"""Keys go from a YAML's text; the rest stays as it was."""

import pytest

from upstream.yamls import YamlError, blocks, without_keys

TEXT = """\
# Header

first: 1
# Why second
second:
    inner: 2
    # Why other
    other: 3

######## Section ########
third: !new:torch.nn.Linear
    in_features: 4

fourth: 4
"""


def test_a_key_goes_with_its_comments():
    assert without_keys(TEXT, ["second"]) == TEXT.replace(
        "# Why second\nsecond:\n    inner: 2\n    # Why other\n    other: 3\n",
        "",
    )


def test_a_nested_key_goes_alone():
    slim = without_keys(TEXT, ["second.other", "third.absent"])
    assert slim == TEXT.replace("    # Why other\n    other: 3\n", "")


def test_a_banner_goes_with_the_last_key_of_its_section():
    slim = without_keys(TEXT, ["third"])
    assert "Section" in slim
    assert "torch" not in slim
    assert "Section" not in without_keys(TEXT, ["third", "fourth"])


def test_blocks_are_whole():
    assert blocks(TEXT, ["third", "first"]) == (
        "third: !new:torch.nn.Linear\n    in_features: 4\n\nfirst: 1"
    )
    with pytest.raises(YamlError, match="fifth"):
        blocks(TEXT, ["fifth"])
