"""The command says how to get a checkout."""

from upstream import contribute


def test_without_a_checkout_one_sentence_says_how_to_get_one(capsys):
    assert contribute.main(["patch"]) == 2
    assert contribute.main(["check", ""]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("git clone" in line for line in lines)
    assert "make upstream-patch SPEECHBRAIN=" in lines[0]


def test_what_is_no_checkout_is_refused_in_one_sentence(tmp_path, capsys):
    assert contribute.main(["patch", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no git checkout of SpeechBrain" in line
