"""Every loss by its name, and logits to try it on."""

import torch

from imlkd_brain.distillation.losses import (
    batch_loss,
    class_loss,
    decoupled_kd_loss,
    dist_loss,
    instance_loss,
    multi_level_kd_loss,
)
from imlkd_brain.distillation.rivals import triage_loss

B, C = 6, 9

LOSSES = {
    "instance": lambda s, t, y: instance_loss(s, t, 1.5),
    "class": lambda s, t, y: class_loss(s, t, 1.5),
    "batch": lambda s, t, y: batch_loss(s, t, 1.5),
    "multi_level": lambda s, t, y: multi_level_kd_loss(s, t, (2, 3)),
    "decoupled": lambda s, t, y: decoupled_kd_loss(s, t, y, 1.0, 8.0, 1.5),
    "triage": lambda s, t, y: triage_loss(s, t, y, 0.7, 2.0, 3.0, 1.5),
    "correlation": lambda s, t, y: dist_loss(s, t, 1.5, 1.0, 2.0),
}


def logits(seed=0, shape=(B, C)):
    """Scaled like 30 times a cosine."""
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(*shape, generator=generator, dtype=torch.float64)
