"""Unit tests of ``imlkd_brain.corpora.clips``."""

import itertools
import shutil

import numpy as np
import pytest
import soundfile
from helpers.clips import write_clips
from hypothesis import given
from hypothesis import strategies as st

from imlkd_brain.corpora.clips import (
    FEWEST_SESSIONS,
    SAMPLE_RATE,
    UTTERANCES_PER_SESSION,
    band_limited,
    build_speaker,
    join_clips,
    levelled,
    session_sizes,
    trimmed,
)
from imlkd_brain.corpora.packs import PACKS

RATE = SAMPLE_RATE
SEPARATE = [pack for pack in PACKS if pack != "gcin"]


def tone(hertz, seconds, rate):
    """A sine of amplitude 0.5."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate)


@given(st.lists(st.floats(0.12, 8.0), max_size=60))
def test_joined_utterances_last_4_to_8_seconds_and_share_no_clip(lengths):
    utterances = join_clips(lengths)
    used = list(itertools.chain(*utterances))
    assert len(used) == len(set(used))
    for utterance in utterances:
        seconds = sum(lengths[index] for index in utterance)
        # Sums in another order differ in the last bits.
        assert 4.0 - 1e-9 <= seconds <= 8.0 + 1e-9


def test_a_clip_that_fits_no_open_utterance_stands_alone():
    assert join_clips([3.0, 6.0, 2.0]) == [[1], [0, 2]]


@given(st.integers(0, 500))
def test_sessions_hold_all_utterances_in_three_parts_or_more(count):
    sizes = session_sizes(count)
    assert sum(sizes) == count
    assert all(sizes)
    assert max(sizes, default=1) <= UTTERANCES_PER_SESSION
    assert len(sizes) >= min(count, FEWEST_SESSIONS)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_resampling_keeps_the_band_and_nothing_else(rate):
    kept = band_limited(tone(1000, 1, rate), rate, 3800.0)
    assert len(kept) == RATE
    middle = slice(2000, -2000)
    # The ends of a tone that begins and stops at once ring a little.
    expected = tone(1000, 1, RATE)[middle]
    np.testing.assert_allclose(kept[middle], expected, atol=2e-3)
    if rate / 2 > 3900:
        gone = band_limited(tone(3900, 1, rate), rate, 3800.0)
        assert np.abs(gone[middle]).max() < 2e-3


def test_silence_is_trimmed_but_for_its_margin():
    speech = tone(300, 1, RATE)
    silence = np.zeros(RATE // 2)
    signal = np.concatenate([silence, speech, silence])
    # A margin of 50 ms on both sides, in steps of a 20-ms frame.
    assert len(trimmed(signal)) == pytest.approx(1.1 * RATE, abs=320)
    assert len(trimmed(silence)) == 0


def test_level_says_nothing_about_the_speaker():
    for level in (0.01, 1.9):
        clip = levelled(level * tone(300, 1, RATE).astype("float32"))
        # Two 5-ms fades in a second take half a per cent of the power.
        assert np.sqrt((clip**2).mean()) == pytest.approx(0.05, rel=0.01)
    click = np.zeros(RATE, dtype="float32")
    click[8000] = 0.5
    assert np.abs(levelled(click)).max() <= 0.95


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
    row = build_speaker("p-a", clips, 7000.0, 12, tmp_path)
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
        row = build_speaker("p-a", clips, 7000.0, 0.5, tmp_path / place)
        files = sorted((tmp_path / place).rglob("*.wav"))
        built.append((row, [file.read_bytes() for file in files]))
    assert built[0] == built[1]
    # Half a minute is 20 clips of 1.5 s.
    assert built[0][0]["dropped"] == {"over the cap": 10}


def test_long_clips_are_cut(tmp_path):
    clips = write_clips(tmp_path / "clips", 1, seconds=20)
    row = build_speaker("p-a", clips, 7000.0, 12, tmp_path)
    # Three pieces of 6.7 s, each an utterance.
    assert (row["utterances"], row["sessions"]) == (3, 3)
