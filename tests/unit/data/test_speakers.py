"""Speakers of every layout, and what is not said where they are not known."""

import pytest
import torch
from synthetic import write_wav

from imlkd_brain.data.held_out import check_held_out
from imlkd_brain.data.speaker_maps import SpeakerNames, read_speaker_map
from imlkd_brain.data.speakers import speaker_of, utterance_key
from imlkd_brain.data.trial_audio import (
    locate_known,
    locate_trials,
    read_enrolments,
)
from imlkd_brain.data.trials import read_trials, trial_groups
from imlkd_brain.errors import UserError
from imlkd_brain.verification.measures import Measures, measure
from imlkd_brain.verification.report import format_tables
from imlkd_brain.verification.scorer import Scored

LAYOUTS = {
    "voxceleb": "wav/{s}/s{u}/1.wav",
    "no wav folder": "{s}/s{u}/1.wav",
    "cn-celeb": "{s}/{u}.wav",
    "cn-celeb below wav": "wav/{s}/{u}.wav",
    "two parts": "dev/wav/{s}/s{u}/1.wav",
    "voxforge": "{s}/wav/{u}.wav",
}
ONE_FOLDER = "{s}{u}.wav"


def corpus(folder, layout, listed=None):
    """Three voices of two files each, and a list of all their pairs."""
    names = {}
    for voice, speaker in enumerate(("anna", "bert", "cleo")):
        for u in range(2):
            name = layout.format(s=speaker, u=u)
            write_wav(folder / name, 0.3, 100 + 40 * voice, u)
            spelling = (listed or layout).format(s=speaker, u=u)
            names[spelling] = speaker
    lines = [
        f"{int(names[one] == names[other])} {one} {other}"
        for one in names
        for other in names
    ]
    (folder / "list.txt").write_text("\n".join(lines))
    return read_trials(folder / "list.txt")


def measured(located):
    """Rows of the figures, with 20 draws of speakers."""
    draw = torch.Generator().manual_seed(0)
    labels = located.trials.labels
    scores = torch.randn(len(labels), generator=draw) + labels
    return measure(
        Scored(located, "m", {"full": scores}),
        Measures(group_separator="-", bootstrap_samples=20),
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_speakers_are_right_in_every_layout(tmp_path, layout):
    located = locate_trials(corpus(tmp_path, layout), tmp_path)
    assert located.speakers == ["anna", "bert", "cleo"]
    assert located.test_speakers == [s for s in located.speakers for _ in "12"]
    assert located.doubt == located.warning == ""
    (row,) = measured(located)
    assert row["eer_low"] < row["eer_high"]
    with pytest.raises(UserError, match=r"holds 1 of its 3 speakers \(bert\)"):
        check_held_out(located, {"the training data": ["bert"]})


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (ONE_FOLDER, "speakers of 12 of 12 files are not named"),
        ("all/{s}{u}.wav", "all files have the same speaker, all"),
        ("s{u}/{s}.wav", "line 2: a target trial of two speakers, s0 and s1"),
    ],
)
def test_without_known_speakers_there_is_no_interval_and_no_claim(
    tmp_path, layout, words
):
    located = locate_trials(corpus(tmp_path, layout), tmp_path)
    assert words in located.doubt
    assert "nothing says that its speakers were held out" in located.warning
    assert "--speaker_map" in located.warning and "\n" not in located.warning
    rows = measured(located)
    assert len(rows) == 1 and not {"eer_low", "min_dcf_low"} & set(rows[0])
    table = format_tables(
        [{**row, "min_dcf_0.01": 1.0} for row in rows],
        {"m": (1, 1)},
        0.01,
        {"list": located.warning},
    )
    assert located.warning in table.splitlines()
    assert trial_groups(located, "n") == {}
    with pytest.raises(UserError, match="speakers are not known"):
        locate_known(tmp_path / "list.txt", tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map", "anna0 A\nanna1 A\nbert0 B\nbert1.wav B\ncleo0 C\n./cleo1 C\n"),
        ("spk2utt", "A anna0 anna1\nB bert0 bert1\nC cleo0 cleo1\n"),
        ("my_spk2utt", "A anna0\nA anna1\nB bert0\nB bert1\nC cleo0\nC cleo1"),
        ("m.csv", "anna0,A\nanna1,A\nbert0,B\nbert1,B\ncleo0,C\ncleo1,C\n"),
        (
            "train.csv",
            "ID,wav,spk_id\n1,$data_root/anna0.wav,A\n2,$data_root/anna1.wav,A"
            "\n3,bert0.wav,B\n4,bert1.wav,B\n5,cleo0.wav,C\n6,cleo1.wav,C\n",
        ),
    ],
)
def test_a_map_names_the_speakers_of_any_layout(tmp_path, name, text):
    trials = corpus(tmp_path, ONE_FOLDER)
    path = tmp_path / "maps" / name
    path.parent.mkdir()
    path.write_text(text)
    located = locate_trials(trials, tmp_path, speaker_map=path)
    assert located.test_speakers == ["A", "A", "B", "B", "C", "C"]
    assert not located.doubt
    assert "eer_low" in measured(located)[0]
    path = path.with_name("short")
    path.write_text("anna0 A\nanna1 A\n")
    with pytest.raises(UserError, match="does not name the speaker of.*bert0"):
        locate_trials(trials, tmp_path, speaker_map=path)


def test_kaldis_files_in_the_data_folder_are_used(tmp_path):
    trials = corpus(tmp_path, ONE_FOLDER)
    (tmp_path / "spk2utt").write_text("A anna0 anna1\nB bert0 bert1\n")
    located = locate_trials(trials, tmp_path)
    assert "speakers of 4 of 12 files are not named" in located.doubt
    (tmp_path / "utt2spk").write_text(
        "anna0 A\nanna1 A\nbert0 B\nbert1 B\ncleo0 C\ncleo1 C\n"
    )
    located = locate_trials(trials, tmp_path)
    assert located.speakers == ["A", "B", "C"] and not located.doubt


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a A\nb\n", "line 2: expected an utterance and its speaker"),
        ("a A\na.wav B\n", "line 2: a has the speakers A and B"),
        ("x,y,z\n1,2,3\n", "the header 'x,y,z' names no columns"),
        ("wav,spk_id\na.wav\n", "line 2: expected an utterance"),
        ("a,A\nb,\n", "line 2: expected an utterance"),
    ],
)
def test_each_broken_map_has_its_sentence(tmp_path, text, words):
    path = tmp_path / "map"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_speaker_map(path)
    assert "\n" not in str(error.value)


def test_a_map_that_is_no_file_has_its_sentence(tmp_path):
    with pytest.raises(UserError, match="speaker_map: .*none is no readable"):
        SpeakerNames(tmp_path, tmp_path / "none")


def test_an_enrolment_of_two_voices_is_no_speaker(tmp_path):
    corpus(tmp_path, "{s}/{u}.wav")
    path = tmp_path / "models.txt"
    path.write_text("m anna/0 bert/0\n")
    (tmp_path / "l.txt").write_text("1 m anna/1\n0 m bert/1\n")
    located = locate_trials(
        read_trials(tmp_path / "l.txt"), tmp_path, read_enrolments(path)
    )
    assert (
        located.doubt == "the enrolment model m has utterances of two speakers"
    )


@pytest.mark.parametrize(
    ("path", "roots", "speaker"),
    [
        ("/d/wav/id1/x/1.wav", ["/d"], "id1"),
        ("/d/vox1/wav/id1/x/1.wav", ["/d"], "id1"),
        ("/d/vox1/id1/1.wav", ["/d", "/d/vox1"], "id1"),
        ("/d/wav/1.wav", ["/d"], None),
        ("/other/wav/id1/x/1.wav", ["/d"], "id1"),
        ("/other/id1/x/1.wav", ["/d"], None),
        ("/data2/id1/1.wav", ["/data"], None),
        ("id1/x/1", (), "id1"),
        ("id1/1", (), "id1"),
    ],
)
def test_the_speaker_is_the_first_folder_below_the_data(path, roots, speaker):
    assert speaker_of(path, roots) == speaker


def test_speakers_at_another_speed_are_the_same_speakers(tmp_path):
    """Also where the training has no factor of 1."""
    located = locate_trials(corpus(tmp_path, "{s}/{u}.wav"), tmp_path)
    with pytest.raises(UserError, match=r"2 of its 3 speakers \(anna, bert\)"):
        check_held_out(located, {"m": ["anna-sp0.9", "bert-sp1.1"]})


@pytest.mark.parametrize(
    "inside, key",
    [
        ("id1/song-1.wav", "id1/song-1"),
        ("song-1.flac", "song-1"),
        ("wav/id1/a/1.wav", "id1/a/1"),
        ("dev/wav/id1/a/1.wav", "id1/a/1"),
    ],
)
def test_an_utterances_name_is_the_same_wherever_its_corpus_lies(inside, key):
    for root in ("/data/one", "/data/two", "/else/where/a/corpus"):
        assert utterance_key(f"{root}/{inside}", ["/data", root]) == key
    assert utterance_key(f"./corpus/{inside}", ["./corpus/"]) == key
    assert utterance_key(inside, ["."]) == key
