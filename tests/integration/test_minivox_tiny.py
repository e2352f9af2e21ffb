"""The tiny MiniVox, real speech: its command, its files, its preparation."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.corpora.splits import read_splits, roles


def minivox(folder, *options):
    """Start the builder as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "imlkd_brain.corpora.minivox", "--tiny"]
        + ["--data_folder", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_files_are_speech_of_the_listed_speakers(tiny_minivox):
    manifest = json.loads((tiny_minivox / "manifest.json").read_text())
    parts = roles(read_splits(), None)
    speakers = {path.name for path in (tiny_minivox / "wav").iterdir()}
    assert speakers == set(manifest["speakers"]) == set(parts)
    for speaker, row in manifest["speakers"].items():
        files = sorted((tiny_minivox / "wav" / speaker).rglob("*.wav"))
        assert len(files) == row["utterances"] >= 4
        for file in files[:3]:
            signal_, rate = soundfile.read(file)
            assert rate == 16000 and signal_.ndim == 1
            assert 4.0 <= len(signal_) / rate <= 8.0
            # 16 bits and the peak limit move the level a little.
            assert 0.03 < np.sqrt((signal_**2).mean()) < 0.06
            # The pack's band ends at 7 kHz: above it 60 dB less than below.
            power = np.abs(np.fft.rfft(signal_)) ** 2
            edge = len(power) * 7200 // 8000
            assert power[edge:].sum() < 1e-6 * power[:edge].sum()


def test_trials_are_of_the_split(tiny_minivox):
    parts = roles(read_splits(), None)
    for part in ("test", "dev"):
        path = tiny_minivox / "trials" / f"{part}.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        found = {file.split("/")[0] for _, *pair in lines for file in pair}
        assert found == {name for name in parts if parts[name] == part}
        labels = [line[0] for line in lines]
        assert labels.count("1") >= 50 and labels.count("0") >= 100


def test_a_finished_build_says_so_at_once(tiny_minivox):
    before = (tiny_minivox / "manifest.json").stat().st_mtime_ns
    process = minivox(tiny_minivox)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "nothing to do" in out and "train_kd.py" in out
    assert (tiny_minivox / "manifest.json").stat().st_mtime_ns == before


def test_a_killed_build_is_taken_up_again(tiny_minivox, tmp_path):
    """SIGKILL in the middle of decoding, then the same command again."""
    debs = tiny_minivox / "cache" / "debs"
    rows = tmp_path / ".building" / "rows"
    process = minivox(tmp_path, "--deb-dir", str(debs))
    while process.poll() is None and len(list(rows.glob("k*.json"))) < 3:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "manifest.json").exists()
    process = minivox(tmp_path, "--deb-dir", str(debs))
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on with the unfinished build" in out
    for path in sorted((tiny_minivox / "wav").rglob("*.wav")):
        same = tmp_path / path.relative_to(tiny_minivox)
        assert same.read_bytes() == path.read_bytes()
    for name in ("test.txt", "dev.txt"):
        built = (tmp_path / "trials" / name).read_text()
        assert built == (tiny_minivox / "trials" / name).read_text()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")
def test_without_a_mirror_the_way_out_is_one_sentence(tmp_path):
    sources = tmp_path / "sources.list"
    sources.write_text("deb [trusted=yes] file:/nowhere stable main\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "-";\n'
    )
    process = subprocess.run(
        [sys.executable, "-m", "imlkd_brain.corpora.minivox", "--tiny"]
        + ["--data_folder", str(tmp_path / "out")],
        env={**os.environ, "APT_CONFIG": str(tmp_path / "apt.conf")},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "apt offers no package klettres-data" in process.stderr
    assert "--deb-dir" in process.stderr
    assert "Traceback" not in process.stderr


def test_preparation_takes_it_like_voxceleb(tiny_minivox, tmp_path):
    prepare_voxceleb(
        str(tiny_minivox),
        str(tmp_path),
        str(tiny_minivox / "trials" / "test.txt"),
        dev_pairs_file=str(tiny_minivox / "trials" / "dev.txt"),
        random_segment=True,
        seg_dur=2.0,
    )
    parts = roles(read_splits(), None)
    for name, part in (("train", "train"), ("dev", "dev"), ("test", "test")):
        with open(tmp_path / f"{name}.csv", encoding="utf-8") as file:
            found = {row["spk_id"] for row in csv.DictReader(file)}
        assert found == {name for name in parts if parts[name] == part}
