"""Unit tests of ``imlkd_brain.keys``: values that do not go together."""

import pytest
from synthetic import HPARAMS

from imlkd_brain.errors import UserError
from imlkd_brain.keys import SCHEMA
from imlkd_brain.settings import read_command


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--durations", "[0.02, 1.0]"],
            "durations: 0.02 s is too short.*0.04",
        ),
        (["--sentence_len", "0.01"], "sentence_len: 0.01 s is too short"),
        (["--valid_durations", "[full, 0.01]"], "valid_durations: 0.01 s"),
        (["--n_mels", "40", "--embedding_model", "{input_size: 80}"], "is 80"),
        (["--classifier", "{input_size: 7}"], "classifier.input_size is 7"),
        (["--drop_chunk", "{drop_count_low: 9}"], "drop_count_low is 9"),
        (["--embedding_model", "{channels: [16, 9, 16, 16, 48]}"], "9 is no m"),
        (["--methods", "{iml_kd: {both: {}}}"], "both.*raw, integrated, cross"),
        (["--method", "iml_kdd"], "iml_kdd.*did you mean iml_kd"),
        (
            [
                "--eta_schedule=linear",
                "--eta_warmup_steps=9",
                "--eta_total_steps=5",
            ],
            "eta_total_steps is 5",
        ),
        (["--embedding_model", "{chanels: [8]}"], "chanels"),
        (["--drop_freq", "{nothing: 1}"], "DropFreq.*nothing"),
    ],
)
def test_what_does_not_go_together_is_named(argv, words):
    from imlkd_brain.training import load_training

    with pytest.raises(UserError, match=words) as raised:
        # No corpus is looked for.
        load_training([str(HPARAMS / "iml_kd.yaml"), "--skip_prep=True", *argv])
    assert "\n" not in str(raised.value)


def test_shorter_layers_take_shorter_segments():
    argv = [str(HPARAMS / "iml_kd.yaml"), "--durations", "[0.035]"]
    with pytest.raises(UserError, match="at least 0.04 s"):
        read_command(argv, SCHEMA)
    argv += ["--embedding_model", "{dilations: [1, 2, 3, 3, 1]}"]
    read_command(argv, SCHEMA)
