"""Unit tests of ``imlkd_brain.distillation.teacher``."""

import random

import pytest
import torch
from helpers.public import write_hub_model
from synthetic import TRAIN_SPEAKERS, write_model

from imlkd_brain.distillation.teacher import (
    Teacher,
    class_rows,
    load_teacher,
)
from imlkd_brain.errors import UserError
from imlkd_brain.models.folder import load_speaker_model
from imlkd_brain.models.speaker_model import SpeakerModel
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.processing.features import InputNormalization


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training output folder; its inference folder is in it."""
    return write_model(tmp_path_factory.mktemp("models") / "run").parent


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 8000, generator=generator)


def test_loading_leaves_the_callers_random_stream_alone(trained):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_teacher(trained, TRAIN_SPEAKERS)
    assert torch.equal(torch.rand(3), expected)


def test_classes_are_mapped_by_name(trained, wavs):
    model = load_speaker_model(trained)
    speakers = ["cleo", "anna", "dora"]
    teacher = load_teacher(trained, speakers)
    with torch.no_grad():
        feats = model.features(wavs)
        all_cosines = model.cosines(feats)
        cosines = teacher.cosines(feats)
    # Equal but for where the rows are normalised.
    torch.testing.assert_close(
        cosines, all_cosines[:, [2, 0, 3]], atol=1e-6, rtol=0
    )
    assert class_rows(model, speakers) == [2, 0, 3]
    with pytest.raises(UserError, match="1 of the 2 .*first: zoe.*prototypes"):
        load_teacher(trained, ["anna", "zoe"])
    with pytest.raises(UserError, match="another speed.*anna-sp0.9.*speed_per"):
        load_teacher(trained, ["anna", "anna-sp0.9", "bert-sp1.1"])
    with pytest.raises(UserError, match="teacher_classes: 'rows'"):
        load_teacher(trained, speakers, classes="rows")


def test_layers_before_the_rows_are_applied(wavs):
    torch.manual_seed(0)
    model = SpeakerModel(
        Fbank(n_mels=20),
        InputNormalization(norm_type="sentence", std_norm=False),
        ECAPA_TDNN(
            20,
            channels=[8] * 4 + [24],
            lin_neurons=8,
            attention_channels=8,
            se_channels=8,
        ),
        Classifier(8, lin_blocks=1, lin_neurons=6, out_neurons=2),
        speakers=["a", "b"],
    )
    feats = model.features(wavs)
    torch.testing.assert_close(
        Teacher(model, ["b", "a"]).cosines(feats),
        model.cosines(feats)[:, [1, 0]],
        atol=1e-6,
        rtol=0,
    )


@pytest.fixture(scope="module")
def ecapa(tmp_path_factory):
    """The format of the public ECAPA: 7,205 speakers of VoxCeleb 1 and 2."""
    names = [f"id{number:05d}" for number in range(2000, 9205)]
    random.Random(1).shuffle(names)
    folder = write_hub_model(tmp_path_factory.mktemp("hub") / "ecapa", names)
    return folder, names


def test_posteriors_over_fewer_classes_are_the_renormalised_ones(ecapa, wavs):
    """A student of 1,211 speakers: rows by name, softmax over these."""
    folder, names = ecapa
    student = random.Random(2).sample(sorted(names), 1211)
    teacher = load_teacher(folder, student)
    model = load_speaker_model(folder)
    feats = model.features(wavs)
    with torch.no_grad():
        all_posteriors = (30 * model.cosines(feats)).double().softmax(1)
        posteriors = (30 * teacher.cosines(feats)).double().softmax(1)
    assert all_posteriors.shape[1] == 7205 and posteriors.shape[1] == 1211
    rows = [names.index(speaker) for speaker in student]
    expected = all_posteriors[:, rows]
    expected /= expected.sum(1, keepdim=True)
    # Cosines in float32, times 30.
    torch.testing.assert_close(posteriors, expected, rtol=1e-4, atol=1e-9)


def test_a_folder_without_speakers_teaches_with_prototypes_alone(ecapa, wavs):
    folder, names = ecapa
    (folder / "label_encoder.txt").unlink()
    with pytest.raises(UserError, match="no classifier.*named speakers.*proto"):
        load_teacher(folder, names[:3])
    rows = torch.eye(12)[:3]
    teacher = load_teacher(
        folder, names[:3], "prototypes", lambda *_, **__: rows
    )
    assert teacher.cosines(teacher.features(wavs)).shape == (3, 3)
