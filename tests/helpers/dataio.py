"""Helpers that several tests share: dataio."""

from synthetic import RATE

from imlkd_brain.data.datasets import train_dataset


def train(csv_path, seconds=0.5, seed=1, speeds=(1.0,)):
    return train_dataset(csv_path, "", seconds, RATE, seed, speeds)
