"""speechocean762: folds, lists, sources, and a whole build of noise.

The corpus of these tests is made here: five speakers of each sex and age
group, two recordings each, so that each fold tests one of every group.
"""

import csv
import hashlib
import itertools
import json
import shutil
import subprocess
import zlib
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile

from imlkd_brain.corpora.building import sole_build, write_json
from imlkd_brain.corpora.speechocean762 import PARTS, main, summary
from imlkd_brain.corpora.speechocean762 import build as speechocean762_build
from imlkd_brain.corpora.speechocean762_lists import (
    draw_splits,
    make_trials,
    read_table,
)
from imlkd_brain.corpora.speechocean762_source import read_recording
from imlkd_brain.corpora.splits import roles
from imlkd_brain.errors import UserError

needs_git = pytest.mark.skipif(
    shutil.which("git") is None, reason="no git here"
)


def write_corpus(folder, per_group=5, recordings=2, samples=160):
    """A source tree of noise, with one recording that no list names.

    Returns
    -------
    pathlib.Path
        The table of it.
    """
    draw = np.random.default_rng(0)
    lists, rows = defaultdict(list), []
    people = itertools.product("fm", (8, 30), range(per_group))
    for number, (sex, age, _) in enumerate(people):
        speaker = f"{number:04d}"
        split = ("train", "test")[number % 2]
        place = folder / "WAVE" / f"SPEAKER{speaker}"
        place.mkdir(parents=True)
        listed = []
        for index in range(recordings + (number == 0)):
            noise = draw.integers(-900, 900, samples, dtype="<i2")
            utterance = f"0{speaker}{index:04d}"
            soundfile.write(place / f"{utterance}.WAV", noise, 16000, "PCM_16")
            if index < recordings:
                lists[split, "utt2spk"].append(f"{utterance}\t{speaker}")
                crc = zlib.crc32(noise.tobytes())
                listed.append(f"{index:04d}={crc:08x}")
        lists[split, "spk2gender"].append(f"{speaker}\t{sex}")
        lists[split, "spk2age"].append(f"{speaker}\t{age}")
        rows.append([speaker, sex, age, " ".join(listed)])
    for (split, name), lines in lists.items():
        (folder / split).mkdir(exist_ok=True)
        (folder / split / name).write_text("\n".join(lines) + "\n")
    path = folder.with_name(f"{folder.name}.csv")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(
            [["speaker", "sex", "age", "utterances"], *rows]
        )
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A source tree and its table, not to be changed."""
    folder = tmp_path_factory.mktemp("source") / "corpus"
    return folder, write_corpus(folder)


def git(folder, *words):
    """Run git in a folder as somebody."""
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def repository(corpus, tmp_path_factory):
    """The corpus as a git repository, and its commit."""
    folder = tmp_path_factory.mktemp("git") / "repository"
    shutil.copytree(corpus[0], folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "corpus")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True
    )
    return folder, head.stdout.strip()


def content(folder):
    """Every file of a finished corpus."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for part in PARTS
        for path in (folder / part).rglob("*")
        if path.is_file()
    }


def test_the_table_has_the_250_speakers_of_the_corpus():
    """Counts of the paper: 125 of each sex, 20 sentences each."""
    table = read_table()
    assert len(table) == 250
    assert {len(row["utterances"]) for row in table.values()} == {20}
    assert len({u for row in table.values() for u in row["utterances"]}) == 5000
    assert Counter(row["sex"] for row in table.values()) == {"f": 125, "m": 125}
    adults = sum(row["age"] >= 16 for row in table.values())
    assert (adults, 250 - adults) == (128, 122)


def test_folds_are_balanced_and_test_everybody_once():
    splits = draw_splits(read_table())
    tested = Counter()
    for fold in range(5):
        parts = roles(splits, fold)
        assert Counter(parts.values()) == {"train": 150, "dev": 50, "test": 50}
        test = [name for name in splits if parts[name] == "test"]
        tested.update(test)
        groups = Counter((n.split("-")[0], splits[n]["sex"]) for n in test)
        # 72 women, 56 men, 53 girls and 69 boys, a fifth of them in each.
        for group, whole in {
            ("adult", "f"): 72,
            ("adult", "m"): 56,
            ("child", "f"): 53,
            ("child", "m"): 69,
        }.items():
            assert abs(groups[group] - whole / 5) < 1
        following = roles(splits, (fold + 1) % 5)
        for name in splits:
            assert (parts[name] == "dev") == (following[name] == "test")
    assert set(tested) == set(splits) and set(tested.values()) == {1}


def test_thirty_of_the_training_speakers_have_labels_balanced():
    splits = draw_splits(read_table())
    for fold in range(5):
        parts = roles(splits, fold)
        train = [name for name in splits if parts[name] == "train"]
        labelled = [name for name in train if splits[name]["labelled"]]
        assert len(labelled) == 30
        shares = [
            Counter((n.split("-")[0], splits[n]["sex"]) for n in names)
            for names in (train, labelled)
        ]
        for group, count in shares[0].items():
            # Each of three folds may round by less than one.
            assert abs(shares[1][group] - count / 5) < 3


def test_the_draw_is_part_of_the_corpus_and_never_changes():
    """Published figures are of these folds, whatever Python or machine."""
    splits = draw_splits(read_table())
    lines = [
        f"{name} {row['fold']} {int(row['labelled'])}"
        for name, row in splits.items()
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest[:16] == "e9900d7ce1014d8c"
    table = read_table()
    backwards = dict(reversed(table.items()))
    assert draw_splits(backwards) == splits


def test_trials_are_all_pairs_of_one_sex_and_age_group():
    splits = {
        name: {"sex": sex}
        for name, sex in (
            ("adult-1", "f"),
            ("adult-2", "f"),
            ("adult-3", "m"),
            ("child-4", "f"),
        )
    }
    utterances = {n: [f"{n}/s00/{i}.wav" for i in range(3)] for n in splits}
    trials = make_trials(utterances, splits)
    # Three pairs within each of four voices; two women give 3 * 3.
    assert Counter(label for label, *_ in trials) == {"1": 12, "0": 9}
    assert len({frozenset(pair) for _, *pair in trials}) == 21
    for label, *pair in trials:
        heard = {file.split("/")[0] for file in pair}
        assert heard in ({"adult-1", "adult-2"}, *({name} for name in splits))
        assert (label == "1") == (len(heard) == 1)
    # Neither label comes first, and either side enrols.
    assert len({trial[0] for trial in trials[:12]}) == 2
    assert len({one < other for _, one, other in trials}) == 2
    shuffled = dict(reversed(utterances.items()))
    assert make_trials(shuffled, splits) == trials


def test_build_is_whole_recognised_and_its_own(corpus, tmp_path, capsys):
    source, table = corpus
    folder = tmp_path / "corpus"
    manifest = speechocean762_build(folder, source, table)
    assert not (folder / ".building").exists()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert "commercial" in manifest["licence"]
    assert len(manifest["speakers"]) == 20
    assert len(list((folder / "wav").rglob("*.wav"))) == 40
    row = manifest["speakers"]["child-0000"]
    assert (row["sex"], row["age"], row["utterances"]) == ("f", 8, 2)
    # As it was, and the recording that no list names is not there.
    assert sorted(
        path.name for path in folder.glob("wav/child-0000/s00/*")
    ) == [
        "000000000.wav",
        "000000001.wav",
    ]
    assert (folder / "wav/child-0000/s00/000000001.wav").read_bytes() == (
        source / "WAVE/SPEAKER0000/000000001.WAV"
    ).read_bytes()
    for fold in range(5):
        for part in ("test", "dev"):
            path = folder / "trials" / f"fold{fold}_{part}.txt"
            lines = [line.split() for line in path.read_text().splitlines()]
            # One speaker of each group: a target trial each.
            assert [label for label, *_ in lines] == ["1"] * 4
            for _, *files in lines:
                assert all((folder / "wav" / file).is_file() for file in files)
        # Those with a label train, and the name of the file counts them.
        (labels,) = (folder / "labels").glob(f"fold{fold}_*.txt")
        named = labels.read_text().split()
        assert labels.name == f"fold{fold}_{len(named)}.txt"
        parts = roles(manifest["speakers"], fold)
        assert {parts[name] for name in named} == {"train"}
    for part in ("test", "dev"):
        assert (folder / "trials" / f"{part}.txt").read_bytes() == (
            folder / "trials" / f"fold0_{part}.txt"
        ).read_bytes()
    assert "child, m" in summary(manifest)
    # A second time nothing is done, not even looking for the source.
    again = speechocean762_build(folder, tmp_path / "nowhere", table)
    assert again == manifest
    assert "nothing to do" in capsys.readouterr().out
    shutil.rmtree(folder / "labels")
    with pytest.raises(UserError, match="labels of a finished speechocean762"):
        speechocean762_build(folder, source, table)


@needs_git
def test_every_kind_of_source_gives_the_same_corpus(
    corpus, repository, tmp_path
):
    source, table = corpus
    clone, commit = repository
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), "bare")
    git(tmp_path, "clone", "--quiet", "--no-checkout", str(clone), "empty")
    shutil.copytree(source, tmp_path / "archive" / "speechocean762")
    built = {}
    for name, given in {
        "files": source,
        "archive": tmp_path / "archive",
        "work tree": clone,
        "git directory": tmp_path / "bare",
        "no checkout": tmp_path / "empty",
        "cloned here": None,
    }.items():
        folder = tmp_path / name
        speechocean762_build(folder, given, table, str(clone), commit)
        built[name] = content(folder)
        assert not (folder / ".building").exists()
    assert len(built["files"]) == 40 + 12 + 5
    for name, files in built.items():
        assert files == built["files"], name


@pytest.mark.parametrize("moment", ["copy", "lists", "last rename"])
def test_interrupted_build_goes_on(corpus, tmp_path, monkeypatch, moment):
    source, table = corpus
    read = []
    whole = read_recording

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    def count(source, name, crc):
        if moment == "copy" and len(read) == 7:
            interrupt()
        read.append(name)
        return whole(source, name, crc)

    with monkeypatch.context() as patch:
        patch.setattr(
            "imlkd_brain.corpora.speechocean762.read_recording", count
        )
        if moment == "lists":
            patch.setattr(
                "imlkd_brain.corpora.speechocean762_lists.make_trials",
                interrupt,
            )
        if moment == "last rename":
            write = write_json
            patch.setattr(
                "imlkd_brain.corpora.building.write_json",
                lambda path, content: interrupt()
                if path.name == "manifest.json"
                else write(path, content),
            )
        with pytest.raises(KeyboardInterrupt):
            speechocean762_build(tmp_path / "one", source, table)
    assert not (tmp_path / "one" / "manifest.json").exists()
    before = len(read)
    moment = None
    monkeypatch.setattr(
        "imlkd_brain.corpora.speechocean762.read_recording", count
    )
    speechocean762_build(tmp_path / "one", source, table)
    # After seven recordings three speakers are whole; the rest is read again.
    assert len(read) - before == (34 if before == 7 else 0)
    speechocean762_build(tmp_path / "two", source, table)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_second_build_is_told_who_holds_the_folder(corpus, tmp_path):
    source, table = corpus
    with sole_build(tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match="another build.*process [0-9]+ on"):
            speechocean762_build(tmp_path, source, table)
        assert sorted(tmp_path.rglob("*")) == before
    speechocean762_build(tmp_path, source, table)
    assert (tmp_path / "manifest.json").exists()


def edit(name, old, new):
    """A change of a list of the source."""

    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def record(name, signal, rate=16000, subtype="PCM_16"):
    """Another recording in the place of one."""

    def change(folder):
        soundfile.write(folder / "WAVE" / name, signal, rate, subtype)

    return change


FIRST = "SPEAKER0000/000000000.WAV"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "WAVE" / FIRST).unlink(), f"WAVE/{FIRST} is missing"),
        (
            lambda f: (f / "test" / "spk2age").unlink(),
            "test/spk2age is missing",
        ),
        (
            edit("train/utt2spk", "000000000\t0000\n000000001\t0000\n", ""),
            r"do not list speaker 0000, one of 20 \(1 are missing\)",
        ),
        (edit("test/utt2spk", "\t0003", "\t0103"), "list speaker 0003, one of"),
        (
            edit("train/utt2spk", "000000000\t0000\n", ""),
            "do not list utterance 000000000 of speaker 0000",
        ),
        (
            edit("train/utt2spk", "000000000\t", "000000002\t"),
            "do not list utterance 000000000 of",
        ),
        (
            edit(
                "train/utt2spk", "000000000\t", "000000002\t0000\n000000000\t"
            ),
            "utt2spk list utterance 000000002 of",
        ),
        (
            edit(
                "train/utt2spk", "000000000\t", "900090000\t9000\n000000000\t"
            ),
            "list speaker 9000, whom it does not have",
        ),
        (edit("train/utt2spk", "\t0002", ""), "utt2spk, line 3 is not a new"),
        (
            edit("train/spk2gender", "0000\tf", "0000\tm"),
            "spk2gender gives m for speaker 0000, not f",
        ),
        (
            edit("train/spk2age", "0000\t8\n", ""),
            "spk2age gives nothing for speaker 0000, not 8",
        ),
        (
            record(FIRST, np.zeros(80), 8000),
            "has 8000 Hz, 1 channel and PCM_16",
        ),
        (record(FIRST, np.zeros((160, 2))), "has 16000 Hz, 2 channels"),
        (record(FIRST, np.zeros(160), subtype="FLOAT"), "and FLOAT, not 16000"),
        (record(FIRST, np.zeros(0)), "has no samples"),
        (record(FIRST, np.zeros(160)), "is another or a changed recording"),
        (
            lambda f: (f / "WAVE" / FIRST).write_bytes(
                b"version https://git-lfs"
            ),
            "is no readable audio file",
        ),
    ],
)
def test_the_first_difference_of_a_source_is_named(
    corpus, tmp_path, change, words
):
    source = shutil.copytree(corpus[0], tmp_path / "source")
    change(source)
    with pytest.raises(UserError, match=words) as refused:
        speechocean762_build(tmp_path / "out", source, corpus[1])
    assert str(source) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out" / "manifest.json").exists()
    # With the right source the same folder is built.
    speechocean762_build(tmp_path / "out", *corpus)


@needs_git
def test_mistakes_are_one_sentence(corpus, repository, tmp_path):
    source, table = corpus
    clone, commit = repository

    def refused(match, folder=None, given=source, **options):
        with pytest.raises(UserError, match=match) as error:
            speechocean762_build(
                folder or tmp_path / "out", given, table, **options
            )
        assert "\n" not in str(error.value)

    refused("no such folder", given=tmp_path / "nowhere")
    (tmp_path / "other" / "WAVE").mkdir(parents=True)
    refused("there is no folder train in it", given=tmp_path / "other")
    refused("has no commit 613968e", given=clone / ".git")
    # The address of no network or of no repository.
    refused(
        "could not be cloned .* --source",
        given=None,
        repository=str(tmp_path / "nowhere"),
        commit=commit,
    )
    # A git directory that lost a recording.
    broken = shutil.copytree(clone / ".git", tmp_path / "broken")
    name = f"{commit}:WAVE/{FIRST}"
    answer = subprocess.run(
        ["git", f"--git-dir={broken}", "rev-parse", name],
        capture_output=True,
        text=True,
    )
    blob = answer.stdout.strip()
    lost = broken / "objects" / blob[:2] / blob[2:]
    lost.unlink()
    refused(f"{FIRST} is missing", given=broken, commit=commit)
    lost.write_bytes(b"half of it")
    refused("git cannot read the corpus there", given=broken, commit=commit)
    (tmp_path / "file").write_text("mine")
    refused("no folder can be made", folder=tmp_path / "file")
    # A corpus of the user's own is never moved or overwritten.
    (tmp_path / "own" / "wav" / "id10001").mkdir(parents=True)
    refused("no speechocean762", folder=tmp_path / "own")
    assert (tmp_path / "own" / "wav" / "id10001").is_dir()
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "manifest.json").write_text('{"options": {}}')
    refused("holds MiniVox and not", folder=tmp_path / "mini")


def test_machines_without_git_are_told_the_way_out(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="install it, or give a folder"):
        speechocean762_build(tmp_path, None, corpus[1])
    # Files need no git.
    speechocean762_build(tmp_path, *corpus)


def test_a_full_disk_is_told_before_the_copy(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: type("usage", (), {"free": 1e8}),
    )
    with pytest.raises(UserError, match=r"0.1 GB are free and about 0.7 GB"):
        speechocean762_build(tmp_path, *corpus)


def test_the_command_says_what_is_where(corpus, tmp_path, monkeypatch, capsys):
    source, table = corpus
    build = speechocean762_build
    monkeypatch.setattr(
        "imlkd_brain.corpora.speechocean762.build",
        lambda folder, given: build(folder, given, table),
    )
    main(["--data_folder", str(tmp_path / "out"), "--source", str(source)])
    told = capsys.readouterr().out
    assert "all             12    4     4     40" in told
    assert "python train_kd.py" in told and "commercial" in told
