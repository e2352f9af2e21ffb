"""Unit tests of ``imlkd_brain.training``."""

import re

import pytest
import teach
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
        load_training([*argv, f"--{key}", "there", "--skip_prep=True"])


def test_test_only_has_nothing_to_test_here(tmp_path):
    argv = [STUDENT, "--output_folder", str(tmp_path), "--test_only"]
    argv += ["--skip_prep=True"]
    with pytest.raises(UserError, match="--test_only: .*verify.py"):
        load_training(argv)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_two_trainings_never_share_a_folder(tmp_path, monkeypatch):
    argv = [STUDENT, "--method", "scratch", "--data_folder", str(tmp_path)]
    argv += ["--verification_file", "null", "--valid_trials", "null"]
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
    def unknown(*_):
        # As filelock does on such a file system
        raise NotImplementedError

    monkeypatch.setattr("imlkd_brain.locks._acquire", unknown)
    with sole_training(tmp_path):
        assert "no locks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data_folder", "none"], "none: there is no such folder"),
        (
            ["--data_folder", "none", "--verification_file", "http://x/y.txt"],
            "none: there is no such folder",
        ),
        (
            ["--verification_file", "no.txt"],
            "no.txt: there is no such trial list",
        ),
        (["--valid_trials", "no.txt"], "valid_trials: no.txt: .*null"),
    ],
)
def test_nothing_is_made_where_the_data_are_not_there(
    tmp_path, monkeypatch, options, says
):
    """No folder of results, and no download, before the sentence."""
    monkeypatch.setattr(
        "imlkd_brain.data.trial_lists.download_file",
        lambda *args, **kwargs: pytest.fail("a download was tried"),
    )
    (tmp_path / "trials").mkdir()
    for part in ("test", "dev"):
        (tmp_path / "trials" / f"{part}.txt").write_text("1 a/b/c a/b/d\n")
    argv = [STUDENT, "--method=scratch", f"--output_folder={tmp_path / 'out'}"]
    if options[0] != "--data_folder":
        argv += ["--data_folder", str(tmp_path)]
    with pytest.raises(UserError, match=says):
        train_kd.main([*argv, *options])
    with pytest.raises(UserError, match=says):
        teach.main([*argv, *options, f"--teacher_answers={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()
