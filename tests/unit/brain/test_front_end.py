"""The Brain with a teacher that has features of its own."""

import pytest
import torch
from helpers.brains import fit, spy
from helpers.front_ends import OTHERS, other_teacher, taught_by
from helpers.public import SPEAKERS, write_hub_model, write_run
from synthetic import TRAIN_SPEAKERS

from imlkd_brain.distillation.front_end import FrontEnd
from imlkd_brain.distillation.guidance import Guidance
from imlkd_brain.distillation.teacher import (
    load_teacher,
)


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
