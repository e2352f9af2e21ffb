"""Noises to train with: their spectra, levels and voices."""

import numpy as np
import pytest
import soundfile

from imlkd_brain.corpora import noises
from imlkd_brain.errors import UserError


@pytest.fixture
def voices(tmp_path):
    """Four voices, each a tone of its own."""
    time = np.arange(16000) / 16000
    for number in range(4):
        folder = tmp_path / "corpus" / "wav" / f"voice{number}" / "s00"
        folder.mkdir(parents=True)
        tone = (
            0.1 * (number + 1) * np.sin(2 * np.pi * 500 * (number + 1) * time)
        )
        soundfile.write(folder / "u.wav", tone, 16000)
    return tmp_path / "corpus"


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_power_of_coloured_noise_falls_with_the_frequency(exponent):
    noise = noises.coloured(np.random.default_rng(5), exponent, 160000)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(160000, 1 / 16000)
    octaves = [(100 * 2**k, 200 * 2**k) for k in range(6)]
    means = [
        power[(frequencies >= low) & (frequencies < high)].mean()
        for low, high in octaves
    ]
    slope = np.polyfit(range(6), np.log2(means), 1)[0]
    # The lowest octave has 1,000 lines, so its mean is within 3 %.
    assert slope == pytest.approx(-exponent, abs=0.05)
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(noises.LEVEL, rel=0.01)


def test_babble_has_voices_of_equal_power(voices):
    files = [[voices / f"wav/voice{n}/s00/u.wav"] for n in range(3)]
    babble = noises.babble(np.random.default_rng(1), files, 16000)
    power = np.abs(np.fft.rfft(babble)) ** 2
    # Three voices are the fewest, so all are in it, for all their levels.
    assert power[[500, 1000, 1500]] / power.sum() == pytest.approx(
        [1 / 3] * 3, abs=0.01
    )


def test_a_build_is_repeated_to_the_bit(voices, tmp_path, monkeypatch):
    monkeypatch.setattr(noises, "N_BABBLE", 2)
    monkeypatch.setattr(noises, "N_COLOURED", 1)
    monkeypatch.setattr(noises, "SECONDS", 1)
    made = [noises.build(tmp_path / name, voices) for name in ("a", "b")]
    assert made[0] == made[1]
    files = [sorted((tmp_path / n).rglob("*.wav")) for n in ("a", "b")]
    assert [path.name for path in files[0]] == [
        "babble000.wav",
        "babble001.wav",
        "coloured002.wav",
    ]
    contents = [[path.read_bytes() for path in found] for found in files]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 3
    assert noises.build(tmp_path / "a", voices) == made[0]


def test_what_cannot_become_babble_is_named(voices, tmp_path):
    with pytest.raises(UserError, match="0 speakers below"):
        noises.build(tmp_path / "a", tmp_path / "nothing")
    path = voices / "wav/voice0/s00/u.wav"
    soundfile.write(path, np.ones(8000), 8000)
    with pytest.raises(UserError, match=f"{path}: 8000 Hz"):
        noises.build(tmp_path / "b", voices)
    soundfile.write(path, np.zeros(8000), 16000)
    with pytest.raises(UserError, match=f"{path}: has no sound"):
        noises.build(tmp_path / "c", voices)
    path.write_bytes(b"no audio")
    with pytest.raises(UserError, match=f"{path}: cannot be read"):
        noises.build(tmp_path / "d", voices)
