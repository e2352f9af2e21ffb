"""Fixtures of a Brain on a corpus of 14 utterances."""

import itertools

import pytest
import train_kd
from synthetic import (
    TRAIN_SPEAKERS,
    load_yaml,
    small_model,
    write_corpus,
    write_model,
)

from imlkd_brain.brain import IMLKDBrain
from imlkd_brain.distillation.teacher import load_teacher
from speechbrain.utils.run_opts import RunOptions


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def teacher(teacher_folder):
    """One for all tests: none of them may change it."""
    return load_teacher(teacher_folder, TRAIN_SPEAKERS)


@pytest.fixture
def make(corpus, teacher, tmp_path, monkeypatch):
    """``make(method, run_opts=..., **overrides)``: Brain and its data."""
    count = itertools.count()
    # It has the features of this teacher, whatever the student's are.
    monkeypatch.setattr(train_kd, "check_teacher", lambda *_: None)

    def build(method, run_opts=None, edit=None, teacher=teacher, **overrides):
        overrides = {
            "method": method,
            "output_folder": str(tmp_path / f"{method}{next(count)}"),
            "data_folder": str(corpus),
            "train_annotation": str(corpus / "train.csv"),
            "valid_annotation": str(corpus / "dev.csv"),
            "valid_trials": str(corpus / "dev.txt"),
            "number_of_epochs": 1,
            "batch_size": 4,
            "sentence_len": 0.5,
            "durations": [0.3, 0.4],
            "valid_durations": ["full", 0.3],
            "speed_perturb": [1.0],
            "eta": 1.0,
            "eta_schedule": "constant",
            "eta_warmup_steps": 0,
            "batchnorm": "raw_only",
            "measure_interval": 0,
            "augmentation": False,
            "base_lr": 0.001,
            **small_model(),
            **overrides,
        }
        hparams = load_yaml("iml_kd", overrides)
        if edit:
            edit(hparams)
        options = RunOptions.from_dictionary(
            {"device": "cpu", "noprogressbar": True} | (run_opts or {})
        )
        # As the script's main function does it.
        train_kd.check_before_training(hparams)
        if not hparams["augmentation"]:
            hparams["wav_augment"] = None
        train, valid, encoder = train_kd.dataio_prep(hparams)
        train_kd.add_speaker_modules(hparams, options, encoder, len(train))
        if hparams["objective"].needs_teacher:
            hparams["teacher"] = lambda **_: teacher
            train_kd.add_teacher(hparams, options, encoder, train)
        hparams["loggers"] = [hparams["train_logger"]]
        brain = IMLKDBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=options,
            checkpointer=hparams["checkpointer"],
        )
        brain.data = train, valid
        return brain

    return build
