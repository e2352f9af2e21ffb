"""The Brain: a training that was interrupted is the one that was not."""

import pytest
import torch
from helpers.brains import drawn, fit, stats_of
from helpers.states import copy_of, same
from synthetic import (
    write_wav,
)

from imlkd_brain.data.augmentation import AddNoise, AddReverb
from speechbrain.augment.augmenter import Augmenter
from speechbrain.utils.train_logger import TensorboardLogger


def test_a_resumed_epoch_has_the_row_of_a_whole_one(make):
    """Stopped after three of an epoch's four updates: all four are in its row.

    Also what is measured before the interruption only.
    """
    options = {
        "number_of_epochs": 2,
        "batch_size": 2,
        "measure_interval": 3,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = stats_of(fit(make("iml_kd", **options)))
    assert "train completeness_gap" in whole
    brain = make("iml_kd", **options)
    save = brain._save_intra_epoch_ckpt

    def stopped():
        save()
        if brain.optimizer_step == 7:
            raise KeyboardInterrupt

    brain._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(brain)
    seconds = brain.means.seconds
    output = {"output_folder": brain.hparams.output_folder}
    resumed = stats_of(fit(make("iml_kd", **options, **output)))
    # The time until the checkpoint counts as well.
    assert float(resumed.pop("train seconds")) > 0.5 * seconds
    assert resumed == {k: v for k, v in whole.items() if k != "train seconds"}


def test_an_interrupted_run_adds_the_noise_of_an_uninterrupted_one(
    make, tmp_path
):
    """Other files, and from other samples on, would give other weights."""
    rows = ["ID,duration,wav,wav_format,wav_opts"]
    for i in range(5):
        path = write_wav(tmp_path / f"{i}.wav", 0.4 + 0.1 * i, 80 + 70 * i, i)
        rows.append(f"{i},{0.4 + 0.1 * i},{path},wav,")
    csv_file = tmp_path / "noise.csv"
    csv_file.write_text("\n".join(rows) + "\n")

    def augmented(hparams):
        hparams["wav_augment"] = Augmenter(
            min_augmentations=2,
            max_augmentations=2,
            augmentations=[AddNoise(str(csv_file)), AddReverb(str(csv_file))],
        )

    options = {
        "augmentation": True,
        "edit": augmented,
        "number_of_epochs": 2,
        "run_opts": {"ckpt_interval_steps": 1},
    }
    whole = fit(make("scratch", **options))
    broken = make("scratch", **options)
    save = broken._save_intra_epoch_ckpt

    def stopped():
        save()
        if broken.optimizer_step == 3:
            raise KeyboardInterrupt

    broken._save_intra_epoch_ckpt = stopped
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    output = {"output_folder": broken.hparams.output_folder}
    resumed = fit(make("scratch", **options, **output))
    assert same(copy_of(whole.modules), copy_of(resumed.modules))


def test_tensorboard_steps_are_epochs_also_after_an_interruption(make):
    written = []
    output = {}
    for epochs in (1, 2):
        brain = make("scratch", number_of_epochs=epochs, **output)
        output = {"output_folder": brain.hparams.output_folder}
        # SpeechBrain's logger around a writer that only remembers.
        logger = TensorboardLogger.__new__(TensorboardLogger)
        logger.global_step = {"train": {}, "valid": {}, "test": {}, "meta": 0}
        logger.writer = logger
        logger.add_scalar = lambda *scalar: written.append(scalar)
        brain.hparams.loggers.append(logger)
        fit(brain)
    for tag in ("loss/train", "EER/valid", "lr"):
        assert [step for name, _, step in written if name == tag] == [1, 2]


@pytest.mark.parametrize("n_files", [0, 2])
def test_an_interrupted_checkpoint_is_none(make, monkeypatch, n_files):
    """Stopped while it is written, the training goes on from the last one."""
    whole = fit(make("scratch", number_of_epochs=2))
    brain = fit(make("scratch", number_of_epochs=1))
    output = {"output_folder": brain.hparams.output_folder}
    brain = make("scratch", number_of_epochs=2, **output)
    written, save = [], torch.save

    def stopped(*args, **kwargs):
        if len(written) == n_files:
            raise KeyboardInterrupt
        written.append(args)
        save(*args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(torch, "save", stopped)
        with pytest.raises(KeyboardInterrupt):
            fit(brain)
    resumed = fit(make("scratch", number_of_epochs=2, **output))
    assert same(
        copy_of(whole.modules.embedding_model),
        copy_of(resumed.modules.embedding_model),
    )
    folders = {
        path.name for path in resumed.checkpointer.checkpoints_dir.glob("*/")
    }
    assert "CKPT+epoch_002" in folders and "building" not in folders


def test_a_resumed_training_draws_and_learns_what_an_uninterrupted_one_does(
    make, monkeypatch
):
    """Stopped amid an update of three batches, one of four left over."""
    options = {
        "run_opts": {"grad_accumulation_factor": 3, "ckpt_interval_steps": 1},
        "batch_size": 2,
        "number_of_epochs": 3,
        "augmentation": True,
    }
    whole = make("iml_kd", **options)
    expected = drawn(whole, monkeypatch)
    fit(whole)
    assert whole.optimizer_step == 3

    broken = make("iml_kd", **options)
    draws = drawn(broken, monkeypatch)
    seeded = broken._seed_step

    def stopped():
        seeded()
        if len(draws) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(broken, "_seed_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    resumed = make(
        "iml_kd", **options, output_folder=broken.hparams.output_folder
    )
    again = drawn(resumed, monkeypatch)
    fit(resumed)
    assert again and again == expected[-len(again) :]
    assert same(copy_of(whole.modules), copy_of(resumed.modules))
