"""Helpers that several tests share: teacher."""

import torch
from synthetic import TRAIN_SPEAKERS

from imlkd_brain.data.datasets import train_dataset
from speechbrain.utils.data_pipeline import provides, takes


def training_set(corpus, seconds=0.5):
    """The training utterances, as the script gives them."""
    dataset, _ = train_dataset(
        str(corpus / "train.csv"), "", seconds, 16000, seed=1
    )

    @takes("spk_id")
    @provides("spk_id_encoded")
    def label_pipeline(spk_id):
        return torch.tensor([TRAIN_SPEAKERS.index(spk_id)])

    dataset.add_dynamic_item(label_pipeline)
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    return dataset
