"""Unit tests of ``imlkd_brain.data.measured``."""

import numpy as np
import pytest
import soundfile
from helpers.prepared import rows_of, write_wav
from voxceleb_prepare import prepare_voxceleb

from imlkd_brain.data import measured
from imlkd_brain.errors import UserError


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are opened, in a list that grows."""
    names = []
    for function in ("check_audio", "read_audio"):
        whole = getattr(measured, function)

        def watched(path, sample_rate, whole=whole):
            names.append("/".join(path.split("/")[-3:]))
            return whole(path, sample_rate=sample_rate)

        monkeypatch.setattr(measured, function, watched)
    return names


def test_lengths_come_from_headers(voxceleb, tmp_path, monkeypatch):
    def refuse(path, sample_rate):
        raise AssertionError(f"decoded {path}")

    monkeypatch.setattr(measured, "read_audio", refuse)
    prepare_voxceleb(
        str(voxceleb),
        str(tmp_path),
        str(voxceleb / "test.txt"),
        dev_pairs_file=str(voxceleb / "dev.txt"),
        random_segment=True,
    )


def test_files_that_come_change_or_go_are_noticed(voxceleb, tmp_path, decoded):
    """And no file is read that is as it was."""

    def prepare():
        decoded.clear()
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), str(voxceleb / "test.txt")
        )
        found = sum(
            (rows_of(tmp_path / f"{name}.csv") for name in ("train", "dev")),
            [],
        )
        return {row["wav"].split("wav/", 1)[1] for row in found}

    first = prepare()
    assert first >= {"c/x/1.wav", "f/y/2.wav"}
    prepare()
    assert decoded == []
    # Speakers and files come.
    for session in "xy":
        write_wav(voxceleb / "wav" / "g" / session / "1.wav", 7)
    write_wav(voxceleb / "wav" / "c" / "x" / "3.wav", 7)
    more = {"g/x/1.wav", "g/y/1.wav", "c/x/3.wav"}
    assert prepare() == first | more
    assert set(decoded) == more
    # A file gets another content.
    write_wav(voxceleb / "wav" / "d" / "y" / "1.wav", 4)
    prepare()
    assert decoded == ["d/y/1.wav"]
    rows = rows_of(tmp_path / "train.csv") + rows_of(tmp_path / "dev.csv")
    (row,) = (row for row in rows if row["wav"].endswith("d/y/1.wav"))
    assert float(row["duration"]) == 4
    # They go again.
    for name in more:
        (voxceleb / "wav" / name).unlink()
    assert prepare() == first
    assert decoded == []


def test_an_edited_file_of_equal_size_is_noticed(voxceleb, tmp_path):
    place = voxceleb / "wav" / "c" / "x" / "1.wav"
    arguments = (str(voxceleb), str(tmp_path), None, ["train"], [100, 0])
    prepare_voxceleb(*arguments)
    n_rows = len(rows_of(tmp_path / "train.csv"))
    write_wav(place, 7, level=0)
    prepare_voxceleb(*arguments)
    assert len(rows_of(tmp_path / "train.csv")) == n_rows - 2


def test_changed_options_are_noticed(voxceleb, tmp_path, decoded):
    def rows(**options):
        decoded.clear()
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), None, ["train"], [100, 0], **options
        )
        return len(rows_of(tmp_path / "train.csv"))

    assert rows(seg_dur=3.0) == 24 * 2
    assert rows(seg_dur=2.0) == 24 * 3
    assert len(decoded) == 24
    # Levels are kept, so another threshold reads nothing.
    assert rows(seg_dur=2.0, amp_th=0) == 24 * 3
    assert rows(seg_dur=2.0, random_segment=True) == 24
    assert decoded == []


def test_what_an_interrupted_preparation_has_read_is_kept(
    voxceleb, tmp_path, decoded, monkeypatch
):
    arguments = (str(voxceleb), str(tmp_path), None, ["train"], [100, 0])
    samples = measured.read_audio

    def interrupt(path, sample_rate):
        if path.endswith("d/x/1.wav"):
            raise KeyboardInterrupt
        return samples(path, sample_rate=sample_rate)

    monkeypatch.setattr(measured, "read_audio", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_voxceleb(*arguments, n_jobs=1)
    monkeypatch.setattr(measured, "read_audio", samples)
    # A line that was being written is cut short.
    kept = tmp_path / measured.MEASURED_FILE
    text = kept.read_text()
    assert text.count("\n") == 12
    kept.write_text(text[:-4])
    decoded.clear()
    prepare_voxceleb(*arguments)
    assert len(decoded) == 24 - 12 + 1
    again = tmp_path / "again"
    prepare_voxceleb(str(voxceleb), str(again), None, ["train"], [100, 0])
    assert rows_of(again / "train.csv") == rows_of(tmp_path / "train.csv")


def test_another_sampling_rate_is_counted_or_refused(tmp_path):
    """Though the files were read before, at their own rate."""
    write_wav(tmp_path / "wav" / "a" / "x" / "1.wav", 7, rate=8000)
    write_wav(tmp_path / "wav" / "b" / "x" / "1.wav", 1, rate=8000)
    arguments = (str(tmp_path), str(tmp_path), None, ["train"], [100, 0])
    prepare_voxceleb(*arguments, sample_rate=8000)
    places = [
        (row["duration"], row["start"], row["stop"])
        for row in rows_of(tmp_path / "train.csv")
    ]
    # Two chunks of 3 s; what has 1 s is less than half of one.
    assert places == [("7.0", "0", "24000"), ("7.0", "24000", "48000")]
    with pytest.raises(UserError, match="mono audio at 16000 Hz, .*8000 Hz"):
        prepare_voxceleb(*arguments)


def test_bad_audio_is_named(voxceleb, tmp_path):
    place = voxceleb / "wav" / "f" / "x"
    write_wav(place / "rate.wav", 3, rate=8000)
    write_wav(place / "stereo.wav", 3, channels=2)
    write_wav(place / "void.wav", 0)
    (place / "broken.wav").write_bytes(b"no audio")
    soundfile.write(place / "nan.wav", [0.0, np.nan] * 24000, 16000, "FLOAT")
    with pytest.raises(UserError) as error:
        prepare_voxceleb(
            str(voxceleb), str(tmp_path), None, ["train"], [100, 0]
        )
    message = str(error.value)
    assert message.startswith("5 of ")
    for reason in (
        "broken.wav: this audio file is broken",
        "nan.wav: sample 1 is NaN or infinite",
        "rate.wav: expected mono audio at 16000 Hz, found 1 channel(s) at "
        "8000 Hz",
        "found 2 channel(s) at 16000 Hz",
        "void.wav: the audio file is empty",
    ):
        assert reason in message


def test_bad_audio_of_all_splits_is_named_together_and_then_forgotten(
    voxceleb, tmp_path
):
    """One preparation names what train, dev and the trials cannot use."""
    files = sorted((voxceleb / "wav").glob("*/*/*.wav"))
    listed = files[-1].relative_to(voxceleb / "wav")
    trials = tmp_path / "trials.txt"
    trials.write_text(f"1 {listed} {listed}\n")
    broken = files[::2] + files[-1:]
    kept = {path: path.read_bytes() for path in broken}
    for path in broken:
        path.write_bytes(b"no audio")
    arguments = (str(voxceleb), str(tmp_path), str(trials))
    splits = {"splits": ["train", "dev", "test"], "split_ratio": [50, 50]}
    with pytest.raises(UserError, match=r"\.txt names all of them") as error:
        prepare_voxceleb(*arguments, **splits)
    said = (tmp_path / measured.BAD_FILES).read_text().splitlines()
    speaker = listed.parts[0]
    expected = {str(p) for p in broken if speaker not in p.parts}
    assert set(said) == {*expected, str(files[-1])}
    assert str(error.value).startswith(f"{len(said)} of ")
    for path, content in kept.items():
        path.write_bytes(content)
    prepare_voxceleb(*arguments, **splits)
    assert not (tmp_path / measured.BAD_FILES).exists()
