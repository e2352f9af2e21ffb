"""Teachers with other features than the student's."""

import torch
from synthetic import TRAIN_SPEAKERS

from imlkd_brain.distillation.teacher import Teacher, front_end_of
from imlkd_brain.models.kaldi_fbank import KaldiFbank
from imlkd_brain.models.speaker_model import SpeakerModel
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

OTHERS = {
    "40 mels": (Fbank(n_mels=40), 40, 16000),
    "MFCC": (MFCC(n_mfcc=20, deltas=False, context=False), 20, 16000),
    "half the frame rate": (Fbank(n_mels=30, hop_length=20), 30, 16000),
    "8 kHz": (Fbank(n_mels=30, sample_rate=8000), 30, 8000),
    "Kaldi": (KaldiFbank(n_mels=30), 30, 16000),
}


def other_teacher(name):
    """A teacher with features of its own, and prototypes as classes."""
    features, n_mels, rate = OTHERS[name]
    torch.manual_seed(3)
    network = ECAPA_TDNN(
        n_mels,
        channels=[8] * 4 + [24],
        lin_neurons=12,
        attention_channels=8,
        se_channels=8,
    )
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    model = SpeakerModel(features, norm, network, sample_rate=rate)
    rows = torch.randn(len(TRAIN_SPEAKERS), 12)
    return Teacher(model, TRAIN_SPEAKERS, rows)


def taught_by(make, method, teacher, **overrides):
    """A Brain with this teacher, as the script would add it."""
    brain = make(method, teacher=teacher, measure_interval=1, **overrides)
    # As load_teacher does with the features of the YAML.
    hparams = brain.hparams
    seen = hparams.compute_features, hparams.mean_var_norm, hparams.sample_rate
    teacher.front_end = front_end_of(teacher, *seen)
    return brain
