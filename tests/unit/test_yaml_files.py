"""Unit tests of ``imlkd_brain.yaml_files``."""

import pytest

from imlkd_brain.errors import UserError
from imlkd_brain.settings import load_hyperparameters


def test_a_broken_yaml_has_its_sentence(tmp_path):
    path = tmp_path / "a.yaml"
    for text, words in (
        ("a: [1\n", "cannot be read"),
        ("a: !new:no.such.Class\n", "no.such.Class"),
        ("a: !ref <b>\n", 'reference "b"'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path}.*{words}") as raised:
            load_hyperparameters([str(path)])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this YAML is empty"),
        (b"# nothing\n", "this YAML is empty"),
        (b"- 1\n- 2\n", "this YAML is no mapping"),
        (b"seed\n", "this YAML is no mapping"),
        ("seed: 1\n".encode("utf-16"), "no text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "no text in UTF-8"),
        (b"seed: 1\0\n", "no text file"),
        (b"base: null\nseed: 1\n", "its base .*None is missing"),
        (b"base: 3\nseed: 1\n", "its base .*3 is missing"),
        # More levels take the parser seconds: it looks ahead from each.
        (b"[" * 1000, "nested too deeply|cannot be read"),
        (b"seed: 1\nseed: 2\n", "cannot be read"),
        (b"a: !new:collections.Counter\n    b: !ref <nothing>\n", "nothing"),
        (b"a: !new:datetime.date\n    year: 1\n", "datetime.date"),
        (b"a: !new:fractions.Fraction [1, 0]\n", "Fraction cannot be built"),
    ],
)
def test_what_is_no_yaml_of_ours_has_its_sentence(tmp_path, content, words):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        load_hyperparameters([str(path)])
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_folder_is_no_yaml(tmp_path):
    with pytest.raises(UserError, match="this is a folder"):
        load_hyperparameters([str(tmp_path)])
