"""A wrong option ends each script with one sentence."""

import pytest
import train_kd
from helpers.scripts import RECIPE, run_script

from imlkd_brain import values
from imlkd_brain.errors import UserError


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train_kd.py hparams/iml_kd.yaml --lr .nan", "lr is nan, but must"),
        ("verify.py hparams/minivox/eval.yaml --readers 0", "readers is 0"),
        ("explain.py hparams/minivox/explain.yaml --units x", "units is 'x'"),
        ("compare.py hparams/minivox/compare.yaml --jobs -1", "jobs is -1"),
    ],
)
def test_a_wrong_option_is_one_sentence(command, words, tmp_path):
    output = tmp_path / "out"
    done = run_script(*command.split(), "--output_folder", str(output))
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith(f"error: {words}"), (
        done.stderr
    )
    assert "Traceback" not in done.stderr and not output.exists()


def test_a_package_that_is_not_there_is_named_before_anything(monkeypatch):
    """TensorBoard is asked for after the data are prepared, in SpeechBrain."""
    there = values.find_spec
    monkeypatch.setattr(
        values,
        "find_spec",
        lambda name: None if name == "tensorboard" else there(name),
    )
    monkeypatch.chdir(RECIPE)
    argv = ["hparams/iml_kd.yaml", "--data_folder", "none"]
    with pytest.raises(
        UserError, match=r"use_tensorboard.*tensorboard.*pip install"
    ):
        train_kd.main([*argv, "--use_tensorboard", "True"])
