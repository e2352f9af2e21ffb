"""MiniVox: clips to utterances, fixed splits, trials, and a whole build.

The whole build runs on a Debian package made here out of noise, so it needs
dpkg-deb and no network.
"""

import csv
import itertools
import json
import shutil
import subprocess
from collections import Counter, defaultdict

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from imlkd_brain import corpus_build, minivox
from imlkd_brain.errors import UserError

RATE = minivox.SAMPLE_RATE
SEPARATE = [pack for pack in minivox.PACKS if pack != "gcin"]


def tone(hertz, seconds, rate):
    """A sine of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate)


@given(st.lists(st.floats(0.12, 8.0), max_size=60))
def test_joined_utterances_last_4_to_8_seconds_and_share_no_clip(lengths):
    utterances = minivox.join_clips(lengths)
    used = list(itertools.chain(*utterances))
    assert len(used) == len(set(used))
    for utterance in utterances:
        seconds = sum(lengths[index] for index in utterance)
        # Sums in another order differ in the last bits.
        assert 4.0 - 1e-9 <= seconds <= 8.0 + 1e-9


def test_a_clip_that_fits_no_open_utterance_stands_alone():
    assert minivox.join_clips([3.0, 6.0, 2.0]) == [[1], [0, 2]]


@given(st.integers(0, 500))
def test_sessions_hold_all_utterances_in_three_parts_or_more(count):
    sizes = minivox.session_sizes(count)
    assert sum(sizes) == count
    assert all(sizes)
    assert max(sizes, default=1) <= minivox.UTTERANCES_PER_SESSION
    assert len(sizes) >= min(count, minivox.FEWEST_SESSIONS)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_keeps_the_band_and_nothing_else(rate):
    kept = minivox.band_limited(tone(1000, 1, rate), rate, 3800.0)
    assert len(kept) == RATE
    middle = slice(2000, -2000)
    # The ends of a tone that begins and stops at once ring a little.
    expected = tone(1000, 1, RATE)[middle]
    np.testing.assert_allclose(kept[middle], expected, atol=2e-3)
    if rate / 2 > 3900:
        gone = minivox.band_limited(tone(3900, 1, rate), rate, 3800.0)
        assert np.abs(gone[middle]).max() < 2e-3


def test_silence_is_trimmed_but_for_its_margin():
    speech = tone(300, 1, RATE)
    silence = np.zeros(RATE // 2)
    signal = np.concatenate([silence, speech, silence])
    # A margin of 50 ms on both sides, in steps of a 20-ms frame.
    assert len(minivox.trimmed(signal)) == pytest.approx(1.1 * RATE, abs=320)
    assert len(minivox.trimmed(silence)) == 0


def test_level_says_nothing_about_the_speaker():
    for level in (0.01, 1.9):
        clip = minivox.levelled(level * tone(300, 1, RATE).astype("float32"))
        # Two 5-ms fades in a second take half a per cent of the power.
        assert np.sqrt((clip**2).mean()) == pytest.approx(0.05, rel=0.01)
    click = np.zeros(RATE, dtype="float32")
    click[8000] = 0.5
    assert np.abs(minivox.levelled(click)).max() <= 0.95


def write_clips(folder, count, suffix="wav", seconds=1.5, rate=22050):
    """Clips of noise, each its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        noise = np.random.default_rng(index).uniform(
            -0.3, 0.3, int(seconds * rate)
        )
        soundfile.write(folder / f"{index:02d}.{suffix}", noise, rate)
    return [(str(path), None) for path in sorted(folder.iterdir())]


def test_bad_clips_are_dropped_and_counted(tmp_path):
    clips = write_clips(tmp_path / "clips", 12)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "broken.wav").write_bytes(b"RIFF, or so it says")
    shutil.copy(clips[0][0], bad / "copy.wav")
    soundfile.write(bad / "narrow.wav", tone(300, 1, 8000), 8000)
    soundfile.write(bad / "silent.wav", np.zeros(22050), 22050)
    soundfile.write(bad / "short.wav", tone(300, 0.05, 22050), 22050)
    clips += [(str(path), None) for path in sorted(bad.iterdir())]
    row = minivox.build_speaker("p-a", clips, 7000.0, 12, tmp_path)
    assert row["dropped"] == {
        "broken": 1,
        "copy": 1,
        "narrow band": 1,
        "short": 1,
        "silent": 1,
    }
    # 12 clips of 1.5 s are 18 s; three of them make an utterance of 4.5 s.
    assert (row["utterances"], row["minutes"]) == (4, 0.3)
    files = sorted((tmp_path / "p-a").rglob("*.wav"))
    assert len(files) == 4
    for file in files:
        info = soundfile.info(file)
        assert (info.samplerate, info.channels) == (RATE, 1)
        assert info.subtype == "PCM_16"


def test_speakers_are_built_alike_twice_and_capped(tmp_path):
    clips = write_clips(tmp_path / "clips", 30)
    built = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        row = minivox.build_speaker("p-a", clips, 7000.0, 0.5, tmp_path / place)
        files = sorted((tmp_path / place).rglob("*.wav"))
        built.append((row, [file.read_bytes() for file in files]))
    assert built[0] == built[1]
    # Half a minute is 20 clips of 1.5 s.
    assert built[0][0]["dropped"] == {"over the cap": 10}


def test_long_clips_are_cut(tmp_path):
    clips = write_clips(tmp_path / "clips", 1, seconds=20)
    row = minivox.build_speaker("p-a", clips, 7000.0, 12, tmp_path)
    # Three pieces of 6.7 s, each an utterance.
    assert (row["utterances"], row["sessions"]) == (3, 3)


@pytest.mark.parametrize(
    ("pack", "path", "voice"),
    [
        ("tuxpaint", "tuxpaint/stamps/a/b/cat_desc_fr.ogg", "fr"),
        ("tuxpaint", "tuxpaint/stamps/a/cat_desc.ogg", "en"),
        ("tuxpaint", "tuxpaint/stamps/a/cat.ogg", None),
        ("klettres", "klettres/pt_BR/syllab/ba.ogg", "pt_BR"),
        ("ktuberling", "ktuberling/sounds/sr/hat.opus", "sr"),
        ("ktuberling", "ktuberling/sounds/sr@latin/hat.opus", None),
        ("ktuberling", "ktuberling/sounds/ca/hat.ogg", "ca_m"),
        ("ktuberling", "ktuberling/sounds/ca/moon_hat.ogg", "ca"),
        ("ktuberling", "ktuberling/sounds/da/hat.ogg", None),
        ("fillets", "games/fillets-ng/sound/a/cs/k1-m-ano.ogg", "cs_m"),
        ("fillets", "games/fillets-ng/sound/a/cs/k1-x-ano.ogg", None),
        ("asterisk", "asterisk/sounds/en_US_f_Allison/a/1.wav", "allison"),
        ("asterisk", "asterisk/sounds/es_MX_f_Allison/1.wav", "allison"),
        ("asterisk", "asterisk/sounds/it_IT_m_Carlo/silence/1.wav", None),
        ("gcin", "gcin-voice/ogg/x/5.ogg", "5"),
        ("uqm", "3dovoice/orz/orz01.ogg", "orz"),
    ],
)
def test_voices_are_read_off_the_paths(pack, path, voice):
    assert minivox.PACKS[pack].voice(path) == voice


def test_each_speaker_is_listed_once():
    with open(minivox.SPLITS_FILE, encoding="utf-8", newline="") as file:
        names = [row["speaker"] for row in csv.DictReader(file)]
    assert len(names) == len(set(names))
    assert {name.split("-")[0] for name in names} == set(minivox.PACKS)


def test_folds_test_every_speaker_once_and_never_alone():
    splits = minivox.read_splits()
    tested = Counter()
    for fold in range(minivox.FOLDS):
        parts = minivox.roles(splits, fold)
        for part in ("test", "dev"):
            packs = Counter(
                name.split("-")[0] for name in parts if parts[name] == part
            )
            # Nontarget trials within a pack need two of its speakers.
            assert min(packs.values()) >= 2
            assert {"tuxpaint", "klettres", "ktuberling"} <= set(packs)
        tested.update(name for name in parts if parts[name] == "test")
        dev_folds = {
            splits[name]["fold"] for name in parts if parts[name] == "dev"
        }
        assert dev_folds == {str((fold + 1) % minivox.FOLDS)}
    always = {name for name, row in splits.items() if row["fold"] == "train"}
    assert set(tested) == set(splits) - always
    assert set(tested.values()) == {1}


def test_tiny_has_its_own_split():
    parts = minivox.roles(minivox.read_splits(), None)
    assert {name.split("-")[0] for name in parts} == {"klettres"}
    counts = Counter(parts.values())
    assert counts["test"] >= 4 and counts["dev"] >= 3 and counts["train"] >= 8


def test_trials_stay_in_their_pack_and_cross_sessions():
    utterances = {
        speaker: [f"{speaker}/s{i % 3}/{i}.wav" for i in range(count)]
        for speaker, count in (("p-a", 40), ("p-b", 6), ("q-a", 9), ("q-b", 9))
    }
    trials = minivox.make_trials(utterances, 12, 50, 80)
    assert trials == minivox.make_trials(utterances, 12, 50, 80)
    assert len({frozenset(trial[1:]) for trial in trials}) == len(trials)
    used = defaultdict(set)
    targets = Counter()
    for label, enrolment, test in trials:
        left, right = enrolment.split("/"), test.split("/")
        assert left[0].split("-")[0] == right[0].split("-")[0]
        assert (label == "1") == (left[0] == right[0])
        if label == "1":
            assert left[1] != right[1]
            targets[left[0]] += 1
        used[left[0]].add(enrolment)
        used[right[0]].add(test)
    assert all(len(files) <= 12 for files in used.values())
    # 6 utterances in 3 sessions of 2: 15 pairs, 3 of them in a session.
    assert targets["p-b"] == 12
    assert targets["p-a"] == 48  # of 12 in sessions of 4: 66 - 18
    # Neither label comes first.
    assert len({trial[0] for trial in trials[:20]}) == 2


def test_a_list_for_models_of_another_corpus(tmp_path):
    """All speakers that a fold tests are in it, within their packs."""
    splits = minivox.read_splits()
    utterances = {
        speaker: [f"{speaker}/s{i % 3}/{i}.wav" for i in range(9)]
        for speaker in splits
    }
    counts = minivox.write_trials(tmp_path, utterances, splits, tiny=False)
    lines = (tmp_path / "unseen.txt").read_text().splitlines()
    trials = [line.split() for line in lines]
    assert sum(label == "1" for label, *_ in trials) == counts["unseen.txt"][0]
    heard = {file.split("/")[0] for _, *pair in trials for file in pair}
    tested = set()
    for fold in range(minivox.FOLDS):
        parts = minivox.roles(splits, fold)
        tested |= {name for name in parts if parts[name] == "test"}
    assert heard == tested
    assert sum(speaker.startswith("uqm-") for speaker in heard) == 23


needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None, reason="no dpkg-deb here"
)


@pytest.fixture(scope="module")
def debs(tmp_path_factory):
    """A folder with a klettres-data package whose voices are noise."""
    place = tmp_path_factory.mktemp("debs")
    share = place / "tree" / "usr" / "share"
    # 14 clips of 1.5 s make four utterances; every voice may say the same.
    clips = place / "clips"
    write_clips(clips, 14, "ogg", rate=16000)
    for speaker in minivox.roles(minivox.read_splits(), None):
        voice = speaker.split("-")[1]
        shutil.copytree(clips, share / "klettres" / voice / "alpha")
    (share / "doc" / "klettres-data").mkdir(parents=True)
    (share / "doc" / "klettres-data" / "copyright").write_text("GPL-2+\n")
    control = place / "tree" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        "Package: klettres-data\nVersion: 1-1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: noise\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", "-z1", str(place / "tree"), str(place)],
        check=True,
        capture_output=True,
    )
    return place


@needs_dpkg
def test_build_is_whole_recognised_and_its_own(debs, tmp_path, capsys):
    folder = tmp_path / "corpus"
    manifest = minivox.build(folder, tiny=True, deb_dir=debs)
    assert not (folder / ".building").exists()
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert (folder / manifest["packages"]["klettres-data"]["licence"]).exists()
    for name in ("test.txt", "dev.txt"):
        for line in (folder / "trials" / name).read_text().splitlines():
            label, *files = line.split()
            assert label in "01"
            assert all((folder / "wav" / file).is_file() for file in files)
    assert "klettres" in minivox.summary(folder, manifest)
    # A second time nothing is done, not even looking for the package.
    again = minivox.build(folder, tiny=True, deb_dir=tmp_path / "nowhere")
    assert again == manifest
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="built with another"):
        minivox.build(folder, packs=["tuxpaint"], deb_dir=debs)


@needs_dpkg
@pytest.mark.parametrize("moment", ["write_trials", "last rename"])
def test_interrupted_build_goes_on(debs, tmp_path, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "write_trials":
            patch.setattr(minivox, "write_trials", interrupt)
        else:
            whole = corpus_build.write_json
            patch.setattr(
                corpus_build,
                "write_json",
                lambda path, content: interrupt()
                if path.name == "manifest.json"
                else whole(path, content),
            )
        with pytest.raises(KeyboardInterrupt):
            minivox.build(tmp_path, tiny=True, deb_dir=debs)
    assert not (tmp_path / "manifest.json").exists()
    rows = tmp_path / ".building" / "rows"
    speakers = {path.stem for path in rows.iterdir()}
    assert len(speakers) == 17
    # One speaker was not finished: half of its files are there.
    (rows / "klettres-ar.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in rows.iterdir()}
    built = []
    whole_build = minivox._build_speakers

    def watch(packs, trees, splits, tiny, work):
        result = whole_build(packs, trees, splits, tiny, work)
        built.extend(
            path.stem
            for path in rows.iterdir()
            if before.get(path) != path.stat().st_mtime_ns
        )
        return result

    monkeypatch.setattr(minivox, "_build_speakers", watch)
    manifest = minivox.build(tmp_path, tiny=True, deb_dir=debs)
    assert built == ["klettres-ar"]
    assert set(manifest["speakers"]) == speakers


@needs_dpkg
def test_mistakes_are_one_sentence(debs, tmp_path):
    def refused(match, folder=None, **options):
        options = {"tiny": True, "deb_dir": debs, **options}
        with pytest.raises(UserError, match=match):
            minivox.build(folder or tmp_path / "out", **options)

    refused("not a pack", tiny=False, packs=["tuxpant"])
    refused("no test or no dev", tiny=False, packs=["gcin"])
    refused("no such folder", deb_dir=tmp_path / "nowhere")
    refused("apt-get download tuxpaint", tiny=False, packs=["tuxpaint"])
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "klettres-data_1-1_all.deb").write_bytes(b"!<arch>\n")
    refused("is broken", deb_dir=broken)
    # A corpus of the user's own is never moved or overwritten.
    (tmp_path / "own" / "wav" / "id10001").mkdir(parents=True)
    refused("no MiniVox", folder=tmp_path / "own")
    assert (tmp_path / "own" / "wav" / "id10001").is_dir()


def test_machines_without_apt_are_told_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(
        minivox.shutil,
        "which",
        lambda name: None if name == "apt-get" else "/usr/bin/dpkg-deb",
    )
    with pytest.raises(UserError, match="--deb-dir"):
        minivox.build(tmp_path, tiny=True)
