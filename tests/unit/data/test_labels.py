"""Which training utterances have a label."""

from types import SimpleNamespace

import pytest
from synthetic import TRAIN_SPEAKERS, write_corpus, write_wav

from imlkd_brain.data.labels import Labels, read_speakers
from imlkd_brain.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def objective(teaches=True, attributes=False, of_classes=()):
    return SimpleNamespace(
        method="mine",
        needs_teacher=teaches,
        of_classes=list(of_classes),
        attributes=lambda mode: attributes,
    )


@pytest.fixture
def make(corpus, tmp_path):
    """``make(names, objective, **options)``: checked labels of the corpus."""

    def build(names=None, method=None, target="true_class", **options):
        path = names
        if isinstance(names, list):
            path = tmp_path / "names.txt"
            path.write_text("\n".join(names))
            path = str(path)
        labels = Labels(
            **{
                "labelled_speakers": path,
                "unlabelled_folder": None,
                "labelled_share": None,
                "data_folder": str(corpus),
                "save_folder": str(tmp_path / "save"),
                "test_trials": None,
                "dev_trials": str(corpus / "dev.txt"),
                "sample_rate": 16000,
                "sentence_len": 0.5,
                "seed": 1,
                **options,
            }
        )
        integrated = SimpleNamespace(mode="time_gate", target=target)
        labels.check(method or objective(), integrated)
        return labels

    return build


def rows_of(labels, corpus):
    folder = labels.data_folder
    return labels.rows(corpus / "train.csv", folder)


def test_without_keys_the_rows_are_the_annotation_s(make, corpus):
    for names in (None, TRAIN_SPEAKERS):
        labels = make(names)
        rows = rows_of(labels, corpus)
        assert len(rows) == 8 and not labels.mixes
        assert all("labelled" not in row for row in rows.values())
        assert not labels.speakers


def test_others_than_the_named_have_no_label(make, corpus):
    labels = make(["bert", "", "anna", "bert "])
    rows = rows_of(labels, corpus)
    assert labels.mixes and labels.speakers == ["cleo", "dora"]
    named = {row["spk_id"] for row in rows.values() if row["labelled"]}
    assert named == {"anna", "bert"} and len(rows) == 8


def test_a_folder_adds_utterances_of_nobody_and_of_no_test_speaker(
    make, corpus, tmp_path
):
    heap = tmp_path / "heap"
    for name in ("loose", "emil/1", "zoe/1"):  # emil is a dev speaker
        write_wav(heap / f"{name}.wav", 0.5, 100, 1)
    labels = make(unlabelled_folder=str(heap))
    rows = rows_of(labels, corpus)
    added = {key for key, row in rows.items() if not row["labelled"]}
    assert added == {"unlabelled--loose.wav", "unlabelled--zoe--1.wav"}
    assert labels.speakers == ["zoe"]


def test_some_speakers_without_a_label_are_left_out(make, corpus):
    heard = {}
    for number in (0, 1, 2):
        labels = make(["anna", "bert"], unlabelled_speakers=number)
        rows = rows_of(labels, corpus)
        # Two utterances each
        assert len(rows) == 4 + 2 * number and labels.mixes == bool(number)
        heard[number] = set(labels.speakers)
    assert heard[0] < heard[1] < heard[2] == {"cleo", "dora"}
    draws = [
        rows_of(make(["anna", "bert"], unlabelled_speakers=1, seed=i), corpus)
        for i in range(8)
    ]
    assert len({tuple(draw) for draw in draws}) == 2


def test_without_a_teacher_the_unlabelled_are_left_out(make, corpus):
    labels = make(["anna", "bert"], objective(teaches=False))
    rows = rows_of(labels, corpus)
    assert {row["spk_id"] for row in rows.values()} == {"anna", "bert"}
    assert not labels.mixes


@pytest.mark.parametrize(
    "names, options, expected",
    [
        (["anna", "zoe"], {}, "1 of its 2 speakers .*zoe"),
        ([""], {}, "names nobody.*none"),
        ("nowhere.txt", {}, "nowhere.txt cannot be read"),
        (["anna"], {}, "anna is the only speaker"),
        (None, {"unlabelled_speakers": 1}, "all speakers have a label"),
        ("none", {"unlabelled_speakers": 0}, "nobody is left"),
        (
            ["anna", "bert"],
            {"unlabelled_speakers": 3},
            "only 2 training speakers have no label",
        ),
        ("none", {"method": objective(teaches=False)}, "labels alone"),
        (None, {"data_folder": None}, "no unlabelled_folder either"),
        (
            None,
            {"data_folder": None, "unlabelled_folder": "heap"},
            "valid_trials.*null",
        ),
        (
            None,
            {
                "data_folder": None,
                "unlabelled_folder": "heap",
                "dev_trials": None,
                "test_trials": "None/trials/test.txt",
            },
            "verification_file.*no file",
        ),
        (
            ["anna", "bert"],
            {"method": objective(attributes=True)},
            "attribution_target predicted`, or .*own_embedding",
        ),
        (
            "none",
            {"method": objective(attributes=True), "target": "predicted"},
            "give `--attribution_target own_embedding`",
        ),
        (
            "none",
            {"method": objective(of_classes=["raw/instance"])},
            "mine has terms of speakers .raw/instance.*embedding_kd",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    make, corpus, names, options, expected
):
    with pytest.raises(UserError, match=expected):
        rows_of(make(names, **options), corpus)


def test_a_folder_beside_a_corpus_is_refused_before_anything_is_read(make):
    with pytest.raises(UserError, match="attribution_target: true_class asks"):
        make(None, objective(attributes=True), unlabelled_folder="heap")


def test_targets_that_need_no_true_class_go_with_unlabelled_speech(
    make, corpus
):
    asks = objective(attributes=True)
    for target in ("predicted", "own_embedding"):
        assert rows_of(make(["anna", "bert"], asks, target), corpus)
    assert rows_of(make("none", asks, "own_embedding"), corpus)


def test_dev_utterances_are_those_of_labelled_speakers(make, corpus):
    labels = make(["anna", "bert"], dev_trials=None)
    rows = labels.valid_rows(corpus / "train.csv", str(corpus))
    assert {row["spk_id"] for row in rows.values()} == {"anna", "bert"}
    with pytest.raises(UserError, match="no labelled speaker has a dev"):
        labels.valid_rows(corpus / "dev.csv", str(corpus))
    assert make("none", dev_trials=None).valid_rows(None, None) == {}


def test_names_are_read_once_each(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("anna\r\n\nbert\nanna\n")
    assert read_speakers(path) == ["anna", "bert"]
