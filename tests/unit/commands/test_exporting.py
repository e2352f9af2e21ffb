"""``imlkd export``."""


def test_an_export_decides_as_its_model(call, here, model):
    """The folder has the threshold, and a card."""
    code, content, _ = call("export", "--out", "deploy", "--json")
    assert code == 0 and content["graphs"] == {}
    assert "0.900" in (here / "deploy" / "README.md").read_text()
    words = ("verify", "anna/1.wav", "bert/1.wav", "--json")
    _, ours, _ = call(*words)
    _, theirs, _ = call(*words, "--model", "deploy", with_model=False)
    for key in ("score", "threshold", "probability", "fingerprint"):
        assert theirs[key] == ours[key]


def test_a_graph_is_written_and_checked(call, here):
    words = ("export", "--out", "deploy", "--graphs", "features", "--json")
    code, content, _ = call(*words)
    assert code == 0 and (here / "deploy" / "features.onnx").is_file()
    graph = content["graphs"]["features.onnx"]
    assert graph["largest_distance_to_pytorch"] < 1e-3


def test_what_is_no_export_is_kept(call, here):
    code, said, error = call("export", "--out", "anna")
    assert code == 2 and not said and "anna: it holds something" in error
    assert "`--out`" in error
    assert sorted(path.name for path in (here / "anna").iterdir()) == [
        "1.wav",
        "2.wav",
    ]


def test_eight_bits_of_nothing(call, here):
    code, _, error = call("export", "--out", "deploy", "--int8")
    assert code == 2 and "--graphs" in error and not (here / "deploy").exists()
