"""Unit tests of ``imlkd_brain.training``."""

import contextlib
import re

import pytest
import train_kd
from synthetic import HPARAMS

from imlkd_brain.errors import UserError
from imlkd_brain.training import load_training, sole_training

STUDENT = str(HPARAMS / "iml_kd.yaml")


@pytest.mark.parametrize(
    ("key", "reader"),
    [
        ("valid_trials", "dev_trials"),
        ("initial_weights", "start_from"),
        ("teacher_cache", "open_teacher_cache"),
    ],
)
def test_a_key_that_nothing_of_the_yaml_reads_is_refused(tmp_path, key, reader):
    """As in a YAML of one's own that an earlier version read."""
    text = (HPARAMS.parent / "iml_kd.yaml").read_text()
    kept = re.sub(rf"^{reader}:.*\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
    assert kept != text
    (tmp_path / "mine.yaml").write_text(kept)
    argv = [str(tmp_path / "mine.yaml"), "--data_folder", str(tmp_path)]
    argv += ["--output_folder", str(tmp_path / "out")]
    load_training(argv)
    with pytest.raises(UserError, match=f"gives {key}, but lacks.*{reader}"):
        load_training([*argv, f"--{key}", "there"])


def test_test_only_has_nothing_to_test_here(tmp_path):
    argv = [STUDENT, "--output_folder", str(tmp_path), "--test_only"]
    with pytest.raises(UserError, match="--test_only: .*verify.py"):
        load_training(argv)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_two_trainings_never_share_a_folder(tmp_path, monkeypatch):
    argv = [STUDENT, "--method", "scratch", "--data_folder", "none"]
    argv += ["--output_folder", str(tmp_path / "out")]
    with sole_training(tmp_path / "out"):
        with pytest.raises(UserError, match="another training is at work"):
            train_kd.main(argv)
        assert not (tmp_path / "out" / "hyperparams.yaml").exists()
        # Of the processes of one training the main one has the lock.
        monkeypatch.setenv("RANK", "1")
        with sole_training(tmp_path / "out"):
            pass
    monkeypatch.delenv("RANK")
    with sole_training(tmp_path / "out"):
        pass


def test_a_file_system_without_locks_trains(tmp_path, monkeypatch, capsys):
    @contextlib.contextmanager
    def unknown(path, busy):
        # As filelock does on such a file system
        raise NotImplementedError
        yield

    monkeypatch.setattr("imlkd_brain.locks.locked", unknown)
    with sole_training(tmp_path):
        assert "no locks" in capsys.readouterr().err
