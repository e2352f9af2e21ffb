"""Small trainings of the Brain, and ways to look into them."""

import csv

import torch
from synthetic import HPARAMS, load_yaml

METHODS = list(
    load_yaml("iml_kd", {"data_folder": "none"}, HPARAMS.parent)["methods"]
)
N_UPDATES = 2  # 8 utterances in batches of 4


def fit(brain):
    """Train for the epochs of the YAML; return the brain."""
    brain.fit(
        brain.hparams.epoch_counter,
        *brain.data,
        train_loader_kwargs=dict(brain.hparams.train_dataloader_options),
        valid_loader_kwargs=dict(brain.hparams.valid_dataloader_options),
    )
    return brain


def stats_of(brain):
    """The last epoch's row of the statistics."""
    path = f"{brain.hparams.output_folder}/train_stats.csv"
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))[-1]


def spy(monkeypatch, owner, name):
    """Record what a method is called with and returns."""
    calls = []
    method = getattr(owner, name)

    def recorded(*args, **kwargs):
        result = method(*args, **kwargs)
        calls.append((args, kwargs, result))
        return result

    monkeypatch.setattr(owner, name, recorded)
    return calls


def drawn(brain, monkeypatch):
    """Record what each batch of a training draws at random."""
    draws = []
    seed = brain._seed_step

    def seeded():
        seed()
        state = torch.random.get_rng_state()
        draws.append({"augmentation": torch.rand(3).tolist()})
        torch.random.set_rng_state(state)

    monkeypatch.setattr(brain, "_seed_step", seeded)
    segments = brain.hparams.integrated_inputs.segments

    def cropped(feats, *generators):
        segment = segments(feats, *generators)
        draws[-1].update(
            frames=segment.features.shape[1], starts=segment.start.tolist()
        )
        return segment

    monkeypatch.setattr(brain.hparams.integrated_inputs, "segments", cropped)
    return draws
