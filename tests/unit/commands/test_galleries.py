"""``imlkd enrol`` and ``imlkd identify``."""

import shutil

from synthetic import write_model

from imlkd_brain.verification.gallery import read_gallery


def enrol(call, name, *files):
    """Enrol, and return what the command says."""
    return call("enrol", name, *files, "--gallery", "g.npz", "--json")


def test_who_was_enrolled_is_identified(call, here):
    assert enrol(call, "anna", "anna")[0] == 0
    code, content, _ = enrol(call, "bert", "bert/1.wav")
    assert code == 0 and content["speakers"] == {"anna": 2, "bert": 1}
    words = ("identify", "anna/2.wav", "bert", "--gallery", "g.npz", "--json")
    code, content, _ = call(*words)
    assert code == 0
    assert [one["speaker"] for one in content["results"]] == ["anna", "bert"]
    closest = content["results"][1]["closest"]
    assert [one["name"] for one in closest] == ["bert", "anna"]
    # bert's only recording is this one.
    assert abs(closest[0]["score"] - 1) < 1e-5
    assert closest[0]["probability"] > closest[1]["probability"]


def test_unknown_is_exit_code_one(call, here):
    enrol(call, "anna", "anna/1.wav")
    words = ("identify", "bert/1.wav", "--gallery", "g.npz")
    code, said, _ = call(*words, "--threshold", "1")
    assert code == 1 and said.startswith("bert/1.wav: unknown (anna ")


def test_bad_recordings_are_listed(call, here):
    (here / "anna" / "bad.wav").write_text("text")
    code, content, error = enrol(call, "anna", "anna")
    assert code == 3 and len(content["added"]) == 2
    assert "1 of 3 files were left out:\n  anna/bad.wav" in error
    words = ("identify", "anna", "--gallery", "g.npz")
    code, said, error = call(*words)
    assert code == 3 and len(said.splitlines()) == 2 and "anna/bad" in error
    code, _, error = enrol(call, "carl", "anna/bad.wav")
    assert code == 2 and "anna/bad.wav: no recording" in error
    assert read_gallery("g.npz").counts() == {"anna": 2}


def test_a_recording_counts_once(call, here):
    enrol(call, "anna", "anna/1.wav")
    shutil.copy(here / "anna" / "1.wav", here / "copy.wav")
    code, content, _ = enrol(call, "anna", "copy.wav", "anna/2.wav")
    assert code == 0 and content["already"] == ["copy.wav"]
    assert content["speakers"] == {"anna": 2}
    code, _, error = enrol(call, "bert", "copy.wav")
    assert code == 2 and "enrolled as anna" in error


def test_a_speaker_is_replaced(call, here):
    enrol(call, "anna", "anna")
    words = ("enrol", "anna", "bert/1.wav", "--gallery", "g.npz", "--replace")
    assert call(*words)[0] == 0
    gallery = read_gallery("g.npz")
    assert gallery.counts() == {"anna": 1} and gallery.files == ["bert/1.wav"]


def test_a_gallery_of_another_model(call, here):
    write_model(here / "other", dim=16, seed=1)
    enrol(call, "anna", "anna")
    before = (here / "g.npz").read_bytes()
    for words in (
        ("identify", "anna/1.wav", "--gallery", "g.npz"),
        ("enrol", "bert", "bert", "--gallery", "g.npz"),
    ):
        code, _, error = call(*words, "--model", "other", with_model=False)
        assert code == 2 and "made with another model" in error
    assert (here / "g.npz").read_bytes() == before


def test_no_gallery_and_no_name(call, here):
    code, _, error = call("identify", "anna", "--gallery", "none.npz")
    assert code == 2 and "no such gallery" in error
    code, _, error = enrol(call, " ", "anna")
    assert code == 2 and "NAME" in error
