"""The Brain with a teacher that has features of its own."""

import pytest
import torch
from helpers.brains import fit, spy
from helpers.public import SPEAKERS, write_hub_model, write_run
from synthetic import TRAIN_SPEAKERS

from imlkd_brain.distillation.front_end import FrontEnd
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.distillation.teacher import (
    Teacher,
    front_end_of,
    load_teacher,
)
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


@pytest.mark.parametrize("method", ["embedding_kd", "iml_kd", "iml_kd_plus"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_student_learns_from_a_teacher_of_other_features(
    make, monkeypatch, name, method
):
    teacher = other_teacher(name)
    brain = taught_by(make, method, teacher)
    assert isinstance(teacher.front_end, FrontEnd)
    before = {k: v.clone() for k, v in brain.modules.state_dict().items()}
    chunks = spy(monkeypatch, Guidance, "of_chunk")
    segments = spy(monkeypatch, Guidance, "of_segments")
    fit(brain)
    for (_, view), _, (cosines, embeddings) in chunks:
        # What the teacher answers by itself, at its own rate.
        own = torch.cat([teacher.front_end(w[None]) for w in view.wavs])
        with torch.no_grad():
            expected = teacher.embed_features(own)
        torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-4)
        assert cosines.shape == (len(view.wavs), len(TRAIN_SPEAKERS))
    for (_, view, _), _, inputs in segments:
        assert inputs.student.shape[2] == view.feats.shape[2]
        assert inputs.teacher.shape[2] == OTHERS[name][1]
        seconds = inputs.student.shape[1] / 100
        frames = seconds * teacher.front_end.frame_rate
        assert inputs.teacher.shape[1] == pytest.approx(frames, abs=3)
        assert inputs.gap.isfinite().all()
    assert chunks or segments
    after = brain.modules.state_dict()
    assert any(not torch.equal(after[k], before[k]) for k in before)


def test_features_of_its_own_that_are_the_students_make_no_difference(
    make, teacher, monkeypatch
):
    made = {}
    for own in (False, True):
        brain = taught_by(make, "iml_kd_plus", teacher)
        assert teacher.front_end is None
        if own:
            teacher.front_end = FrontEnd(teacher, 16000)
        with monkeypatch.context() as context:
            chunks = spy(context, Guidance, "of_chunk")
            segments = spy(context, Guidance, "of_segments")
            fit(brain)
        teacher.front_end = None
        made[own] = chunks[0][2][1], segments[0][2].student
    # Whole chunks are the same input. The waveforms of segments are cut, so
    # that 3 of 30 frames at their edges are not those of the cut features.
    torch.testing.assert_close(made[True][0], made[False][0])
    both = torch.stack([made[own][1].flatten() for own in made])
    assert torch.corrcoef(both)[0, 1] > 0.95


def test_weights_of_single_mel_bands_do_not_carry_over(make):
    front_end = FrontEnd(other_teacher("40 mels"), 16000)
    front_end.check("time_gate")
    front_end.check("identity")
    with pytest.raises(Exception, match="mode: gate .*--mode time_gate"):
        front_end.check("gate")


@pytest.mark.parametrize(
    ("write", "n_mels"),
    [(write_hub_model, 20), (write_hub_model, 40), (write_run, 20)],
)
def test_a_speechbrain_model_teaches_by_the_names_of_its_speakers(
    make, tmp_path, monkeypatch, write, n_mels
):
    """A hub model and a run; the first and last share the student's mels."""
    folder = tmp_path / "model"
    write(folder, **({} if n_mels == 20 else {"n_mels": n_mels}))
    assert set(TRAIN_SPEAKERS) < set(SPEAKERS)
    teacher = load_teacher(folder, TRAIN_SPEAKERS)
    brain = taught_by(make, "iml_kd_plus", teacher)
    assert (teacher.front_end is None) == (n_mels == 20)
    before = {k: v.clone() for k, v in brain.modules.state_dict().items()}
    chunks = spy(monkeypatch, Guidance, "of_chunk")
    fit(brain)
    assert chunks and chunks[0][2][0].shape[1] == len(TRAIN_SPEAKERS)
    # The dimensions differ, 8 and 12: there is a projection.
    assert brain.modules.projection.weight.shape == (12, 8)
    after = brain.modules.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(after[key], before[key]) for key in before)
