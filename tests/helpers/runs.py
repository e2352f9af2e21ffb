"""Finished runs and their options, and changes to their models."""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

import speechbrain as sb
from imlkd_brain.files import SUMS
from imlkd_brain.trained_with import TrainingRecord


def change(folder, seed):
    """Give a model other weights."""
    path = folder / "inference" / "embedding_model.ckpt"
    state = torch.load(path)
    generator = torch.Generator().manual_seed(seed)
    weight = state["fc.conv.weight"]
    weight += 0.3 * torch.randn(weight.shape, generator=generator)
    torch.save(state, path)
    # A user who changes a model does the same.
    (path.parent / SUMS).unlink(missing_ok=True)


def finish(training):
    """A record of a training and what shows that it is finished."""
    model = training.folder / "inference" / "embedding_model.ckpt"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"")
    record = TrainingRecord.of_command(training.command[2:])
    record.content["data"] = {"teacher": "before"}
    record.write(model.parent)


def options(training):
    """A training's options, as its YAML will have them."""
    script, yaml, *rest = training.command[1:]
    assert Path(script).name == "train_kd.py" and Path(script).is_file()
    file, run_opts, overrides = sb.parse_arguments([yaml, *rest])
    assert run_opts.noprogressbar and run_opts.device == "cpu"
    # HyperPyYAML puts a mapping into a mapping, anything else in its place.
    blank = "".join(
        f"{line.split(':')[0]}: {'{}' if ': {' in line else 'null'}\n"
        for line in overrides.splitlines()
    )
    return file, load_hyperpyyaml(blank, overrides)
