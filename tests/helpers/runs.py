"""Changes to the models of finished runs."""

import torch

from imlkd_brain.trained_with import TrainingRecord


def change(folder, seed):
    """Give a model other weights."""
    path = folder / "inference" / "embedding_model.ckpt"
    state = torch.load(path)
    generator = torch.Generator().manual_seed(seed)
    weight = state["fc.conv.weight"]
    weight += 0.3 * torch.randn(weight.shape, generator=generator)
    torch.save(state, path)


def finish(training):
    """A record of a training and what shows that it is finished."""
    model = training.folder / "inference" / "embedding_model.ckpt"
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"")
    record = TrainingRecord.of_command(training.command[2:])
    record.content["data"] = {"teacher": "before"}
    record.write(model.parent)
