"""Tests that a patch appends to one of SpeechBrain's test files."""

import pytest
import torch


def test_interrupted_save_leaves_no_checkpoint(tmpdir):
    from speechbrain.utils.checkpoints import Checkpointer

    recoverable = torch.nn.Linear(2, 2)
    recoverer = Checkpointer(tmpdir, {"recoverable": recoverable})
    whole = recoverer.save_checkpoint(name="whole")

    def interrupted(obj, path):
        raise KeyboardInterrupt

    recoverer.custom_save_hooks["recoverable"] = interrupted
    for name in ("half", "whole"):
        with pytest.raises(KeyboardInterrupt):
            recoverer.save_checkpoint(name=name)
        # An overwritten checkpoint is gone, others are untouched
        expected = [whole.path] if name == "half" else []
        found = [ckpt.path for ckpt in recoverer.list_checkpoints()]
        assert found == expected
