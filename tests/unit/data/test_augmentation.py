"""Noise and reverberation: what is drawn, what is added, what is refused."""

import numpy as np
import pytest
import soundfile
import torch
from synthetic import RATE, write_wav

from imlkd_brain.data.augmentation import AddNoise, AddReverb, check_repeatable
from imlkd_brain.errors import UserError
from speechbrain.augment import time_domain
from speechbrain.augment.augmenter import Augmenter


def write_csv(path, files):
    """A CSV as SpeechBrain's augmentations read it; its path as str."""
    rows = ["ID,duration,wav,wav_format,wav_opts"]
    rows += [f"{i},1.0,{file},wav," for i, file in enumerate(files)]
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    files = [
        write_wav(folder / f"{i}.wav", 0.3 + 0.1 * i, 100 + 50 * i, i)
        for i in range(6)
    ]
    return write_csv(folder / "noise.csv", files)


@pytest.mark.parametrize("kind", [AddNoise, AddReverb])
def test_what_is_drawn_depends_on_the_random_state_alone(noises, kind):
    """Not on what was drawn before, nor on how many threads read."""

    def view(module, seed):
        torch.manual_seed(seed)
        arguments = (torch.ones(3),) if kind is AddNoise else ()
        return module(signals.clone(), *arguments)

    signals = torch.randn(3, 4000, generator=torch.Generator().manual_seed(0))
    one, other = kind(noises), kind(noises, num_workers=2)
    first = [view(one, seed) for seed in range(4)]
    again = [view(other, seed) for seed in reversed(range(4))]
    assert all(map(torch.equal, first, reversed(again)))
    assert not torch.equal(first[0], first[1])


def test_noise_is_a_piece_of_the_file_at_the_ratio_that_is_asked_for(tmp_path):
    # A sample tells where in the file it is.
    ramp = np.arange(1, 5001) / 8192
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE, "FLOAT")
    csv_file = write_csv(tmp_path / "n.csv", [tmp_path / "ramp.wav"])
    torch.manual_seed(1)
    signals = torch.randn(8, 1000)
    noisy = AddNoise(csv_file, snr_low=0, snr_high=0)(signals, torch.ones(8))
    # 0 dB: as loud as the signal, and half of each.
    added = (noisy - 0.5 * signals).double()
    rms = signals.double().square().mean(1).sqrt()
    # Sums of 1,000 float32 numbers.
    torch.testing.assert_close(
        added.square().mean(1).sqrt(), 0.5 * rms, rtol=1e-5, atol=0
    )
    slope = (added[:, -1] - added[:, 0]) / 999
    starts = (added[:, 0] / slope).round().long() - 1
    assert len(set(starts.tolist())) > 4
    assert all(0 <= start <= 4000 for start in starts)
    for row, start, step in zip(added, starts, slope, strict=True):
        expected = torch.from_numpy(ramp)[start : start + 1000] * step * 8192
        torch.testing.assert_close(row, expected, rtol=1e-3, atol=1e-6)


def test_a_short_noise_ends_or_is_repeated(tmp_path):
    soundfile.write(tmp_path / "s.wav", np.full(300, 0.5), RATE, "FLOAT")
    csv_file = write_csv(tmp_path / "n.csv", [tmp_path / "s.wav"])
    signals, lengths = torch.ones(2, 1000), torch.full((2, 1), 1000.0)
    noise, n_samples = AddNoise(csv_file)._load_noise(lengths, 1000)
    assert n_samples.tolist() == [[300], [300]]
    assert (noise[:, :300] == 0.5).all() and (noise[:, 300:] == 0).all()
    padded = AddNoise(csv_file, pad_noise=True)
    noise, n_samples = padded._load_noise(lengths, 1000)
    assert n_samples.tolist() == [[1000], [1000]] and (noise == 0.5).all()
    assert padded(signals, torch.ones(2)).isfinite().all()


def test_noise_of_another_rate_is_heard_at_its_pitch(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32000) / 32000)
    soundfile.write(tmp_path / "t.wav", tone, 32000, "FLOAT")
    csv_file = write_csv(tmp_path / "n.csv", [tmp_path / "t.wav"])
    module = AddNoise(csv_file, noise_sample_rate=32000)
    (noise,), n_samples = module._load_noise(torch.full((1, 1), 8000.0), 8000)
    assert n_samples.item() == 8000
    # Bins are 2 Hz apart.
    assert abs(2 * torch.fft.rfft(noise).abs().argmax().item() - 440) <= 2


def test_an_impulse_is_a_room_that_changes_nothing(tmp_path):
    response = np.zeros(200)
    response[50] = 0.7
    soundfile.write(tmp_path / "r.wav", response, RATE, "FLOAT")
    signals = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    csv_file = write_csv(tmp_path / "r.csv", [tmp_path / "r.wav"])
    # The direct sound stays in its place, and the level is kept; an FFT of
    # float32 numbers.
    torch.testing.assert_close(
        AddReverb(csv_file)(signals), signals, atol=1e-5, rtol=1e-5
    )


def test_each_mistake_has_its_sentence(tmp_path):
    def refused(csv_file, words):
        for use in (
            lambda: AddNoise(csv_file)(torch.ones(1, 100), torch.ones(1)),
            lambda: AddReverb(csv_file)(torch.ones(1, 100)),
        ):
            with pytest.raises(UserError, match=words) as raised:
                use()
            assert "\n" not in str(raised.value)

    files = {
        "none": tmp_path / "none.wav",
        "text": tmp_path / "text.wav",
        "empty": write_wav(tmp_path / "empty.wav", 0.0, 200, 0),
        "nan": tmp_path / "nan.wav",
    }
    files["text"].write_text("no audio")
    soundfile.write(files["nan"], np.full(100, np.nan), RATE, "FLOAT")
    for name, words in {
        "none": "none.wav: this audio file is missing; restore",
        "text": "text.wav: this audio file is broken; restore",
        "empty": "empty.wav: no samples from 0",
        "nan": "nan.wav: sample 0 is NaN",
    }.items():
        refused(write_csv(tmp_path / f"{name}.csv", [files[name]]), words)
    refused(str(tmp_path / "no.csv"), "no.csv: missing; let the script")
    refused(write_csv(tmp_path / "void.csv", []), "void.csv: names no audio")
    (tmp_path / "bad.csv").write_text("wav\na.wav\n")
    refused(str(tmp_path / "bad.csv"), "bad.csv: .*ID,duration,wav")
    for kind in (AddNoise, AddReverb):
        with pytest.raises(UserError, match="sorting: 'ascending'"):
            kind(write_csv(tmp_path / "v.csv", []), sorting="ascending")


def test_files_in_an_order_that_no_checkpoint_keeps_are_told(noises, caplog):
    def told(*augmentations):
        caplog.clear()
        check_repeatable(
            Augmenter(
                min_augmentations=1,
                max_augmentations=1,
                augmentations=list(augmentations),
            )
        )
        return caplog.text

    assert "AddNoise in the YAML" in told(time_domain.AddNoise(noises))
    assert "AddReverb in the YAML" in told(time_domain.AddReverb(noises))
    # White noise comes from the random state.
    assert not told(AddNoise(noises), AddReverb(noises), time_domain.AddNoise())
