"""Unit tests of ``imlkd_brain.data.sources``."""

from types import SimpleNamespace

import pytest
import soundfile
from helpers.prepared import rows_of, speakers_of, write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.data import sources
from imlkd_brain.data.augmentation_data import _list_files
from imlkd_brain.data.sources import list_files, read_pairs
from imlkd_brain.data.trial_audio import locate_trials
from imlkd_brain.data.trials import read_trials
from imlkd_brain.data.unlabelled_folder import list_audio
from imlkd_brain.errors import UserError
from imlkd_brain.verification.dev_trials import valid_trials


def test_several_lists_are_separated_by_commas(voxceleb, tmp_path):
    lists = f"{voxceleb / 'test.txt'}, {voxceleb / 'dev.txt'}"
    prepare_voxceleb(str(voxceleb), str(tmp_path), lists)
    assert speakers_of(tmp_path / "train.csv") == set("def")
    assert speakers_of(tmp_path / "enrol.csv") == set("ac")


def test_two_data_folders_and_a_file_in_both(tmp_path):
    write_wav(tmp_path / "one" / "wav" / "a" / "x" / "1.wav", 3)
    write_wav(tmp_path / "two" / "wav" / "b" / "x" / "1.wav", 3)
    both = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    prepare_voxceleb(both, str(tmp_path), None, ["train"])
    assert speakers_of(tmp_path / "train.csv") == {"a", "b"}
    write_wav(tmp_path / "two" / "wav" / "a" / "x" / "1.wav", 3)
    with pytest.raises(UserError, match="one data folder"):
        prepare_voxceleb(both, str(tmp_path / "again"), None, ["train"])


def spelled(form, path, data):
    """A file of the corpus, ``a/x/1.wav``, as a list may write it."""
    stem = path.removesuffix(".wav")
    return {
        "plain": path,
        "no suffix": stem,
        "wav": f"wav/{path}",
        "absolute": str(data / "wav" / path),
        "kaldi": stem.replace("/", "-"),
    }[form]


@pytest.mark.parametrize("start", ["", "\ufeff", "label enrol test\n"])
@pytest.mark.parametrize("style", ["first", "last", "words"])
@pytest.mark.parametrize(
    "form", ["plain", "no suffix", "wav", "absolute", "kaldi"]
)
def test_a_training_reads_every_list_that_verification_reads(
    voxceleb, tmp_path, form, style, start
):
    """Both give the same utterances, and their speakers are held out."""
    lines = []
    for label, *names in (
        (1, "a/x/1.wav", "a/y/2.wav"),
        (0, "a/x/1.wav", "b/x/2.wav"),
    ):
        names = [spelled(form, name, voxceleb) for name in names]
        word = ("nontarget", "target")[label] if style == "words" else label
        fields = [word, *names] if style == "first" else [*names, word]
        lines.append("\t".join(map(str, fields)))
    path = tmp_path / "list.txt"
    path.write_text(start + "\r\n".join(lines), encoding="utf-8")
    prepare_voxceleb(str(voxceleb), str(tmp_path), str(path))
    located = locate_trials(read_trials(path), voxceleb)
    assert {row["wav"] for row in rows_of(tmp_path / "test.csv")} == {
        *located.test_files
    }
    assert {row["wav"] for row in rows_of(tmp_path / "enrol.csv")} == {
        name for files in located.enrol_files for name in files
    }
    assert speakers_of(tmp_path / "train.csv") == set("cdef")
    # As dev trials: dev.csv holds what the dev EER looks for.
    dev = tmp_path / "dev"
    prepare_voxceleb(
        str(voxceleb),
        str(dev),
        None,
        ["train", "dev"],
        dev_pairs_file=str(path),
    )
    rows = rows_of(dev / "dev.csv")
    dataset = SimpleNamespace(data={row["ID"]: row for row in rows})
    found = valid_trials(str(path), dataset)
    assert found.utterances == ["a/x/1", "a/y/2", "b/x/2"]
    assert found.labels.tolist() == [True, False]


def test_dev_trials_of_several_lists_are_one(voxceleb, tmp_path):
    """One list alone has targets only; both together have both kinds."""
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("1 a/x/1 a/y/2\n")
    other.write_text("a/x/1 b/x/2 nontarget\n")
    rows = [{"wav": f"wav/{key}.wav"} for key in ("a/x/1", "a/y/2", "b/x/2")]
    dataset = SimpleNamespace(data=dict(enumerate(rows)))
    found = valid_trials(f"{one}, {other}", dataset)
    assert found.labels.tolist() == [True, False]
    assert found.pairs.tolist() == [[0, 1], [0, 2]]


def test_a_session_with_a_dash_is_told_by_its_folder(voxceleb, tmp_path):
    write_wav(voxceleb / "wav" / "c" / "x-y" / "1.wav", 7)
    path = tmp_path / "list.txt"
    path.write_text("1 c-x-y-1 c-x-1\n0 c-x-1 d-x-1\n")
    # Utterances that are not there are held out by their speakers' folders.
    path.write_text(path.read_text() + "0 c-x-1 e-z-z-9\n")
    trials = read_pairs([str(path)], [str(voxceleb)])
    assert trials[0][1:] == ("c/x-y/1", "c/x/1")
    prepare_voxceleb(str(voxceleb), str(tmp_path), str(path), ["train"])
    assert speakers_of(tmp_path / "train.csv") == set("abf")


@pytest.mark.parametrize("name", ["1.wav", "a/1.wav", "a-1"])
def test_a_name_without_a_session_is_refused(voxceleb, tmp_path, name):
    path = tmp_path / "list.txt"
    path.write_text(f"1 a/x/1 a/x/2\n0 a/x/1 {name}\n")
    with pytest.raises(UserError, match="line 2: .*speaker/session/utterance"):
        prepare_voxceleb(str(voxceleb), str(tmp_path), str(path), ["train"])


def test_a_flac_tree_trains_like_its_wav(voxceleb, tmp_path):
    """LibriSpeech's layout; the samples of FLAC are those of the WAV."""
    tree = tmp_path / "flac"
    for path in (voxceleb / "wav").rglob("*.wav"):
        copy = tree / path.relative_to(voxceleb / "wav").with_suffix(".flac")
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, *soundfile.read(path, dtype="int16"))
    # Noise that an earlier training downloaded there
    write_wav(tree / "noise" / "pointsource" / "n1.wav", 7)
    csvs = []
    for folder in (voxceleb, tree):
        save = tmp_path / f"of_{folder.name}"
        prepare_voxceleb(str(folder), str(save), str(voxceleb / "test.txt"))
        parts = [rows_of(save / f"{n}.csv") for n in ("train", "dev", "test")]
        csvs.append([{**row, "wav": ""} for rows in parts for row in rows])
    assert csvs[0] == csvs[1]
    assert len(csvs[0]) > 20


def test_wav_goes_before_flac_of_the_same_name(voxceleb, tmp_path):
    (voxceleb / "wav" / "a" / "x" / "1.flac").touch()
    files = list_files([str(voxceleb)], 16000)
    assert files["a/x/1"].endswith("1.wav")
    assert len(files) == 24


@pytest.mark.parametrize("suffix", [".m4a", ".mp3", ".ogg", ".opus"])
def test_other_formats_are_refused_with_the_way_out(tmp_path, suffix):
    path = tmp_path / "a" / "x" / f"1{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match=f"1{suffix}: .*ffmpeg -i IN{suffix}"):
        list_files([str(tmp_path)], 16000)


@pytest.mark.parametrize("layout", ["itself", "above", "each other"])
def test_links_without_an_end_are_refused(tmp_path, layout):
    """os.walk would list them forty levels deep, or for ever."""
    write_wav(tmp_path / "wav" / "a" / "x" / "1.wav", 0.5)
    here = tmp_path / "wav" / "a"
    if layout == "itself":
        (here / "loop").symlink_to(here)
    elif layout == "above":
        (here / "x" / "loop").symlink_to(tmp_path)
    else:
        for name, other in (("b", "c"), ("c", "b")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "loop").symlink_to(tmp_path / other)
        (here / "other").symlink_to(tmp_path / "b")
    with pytest.raises(UserError, match="is a link to a folder that it is in"):
        list_files([str(tmp_path)], 16000)
    for listing in (list_audio, lambda root: _list_files(root, "wav")):
        with pytest.raises(UserError, match="link to a folder that it is in"):
            listing(str(tmp_path / "wav"))


def test_a_link_beside_is_followed(tmp_path):
    write_wav(tmp_path / "store" / "a" / "x" / "1.wav", 0.5)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "wav").symlink_to(tmp_path / "store")
    assert list(list_files([str(tmp_path / "corpus")], 16000)) == ["a/x/1"]


def test_names_that_are_nowhere_are_not_all_looked_for(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(
        sources, "_file_of", lambda *arguments: looked.append(arguments)
    )
    trials = [("line", f"a/s/{n}", f"b/s/{n}") for n in range(100_000)]
    with pytest.raises(UserError, match="1000 utterances or more"):
        sources.find_listed(trials, [str(tmp_path)])
    assert len(looked) == sources.MOST_UNKNOWN
