"""Unit tests of ``imlkd_brain.models.initial_weights``."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from synthetic import TRAIN_SPEAKERS, write_model

from imlkd_brain.errors import UserError
from imlkd_brain.models.export import inherited_speakers, write_names
from imlkd_brain.models.folder import TEACHER_SPEAKERS, load_speaker_model
from imlkd_brain.models.initial_weights import keep_speakers, start_from
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.processing.features import InputNormalization


def new_model(width=8, dim=8, n_speakers=3):
    """As write_model's, with other weights."""
    torch.manual_seed(5)
    model = ECAPA_TDNN(
        20,
        channels=[width] * 4 + [3 * width],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        groups=[1] * 5,
        attention_channels=8,
        se_channels=8,
        lin_neurons=dim,
    )
    return model, Classifier(dim, out_neurons=n_speakers)


def test_a_trained_model_is_where_a_training_starts(tmp_path):
    trained = load_speaker_model(write_model(tmp_path / "trained"))
    model, classifier = new_model()
    fresh = classifier.weight.detach().clone()
    anna, dora = (TRAIN_SPEAKERS.index(name) for name in ("anna", "dora"))
    n_rows = start_from(
        tmp_path / "trained", model, classifier, ["dora", "zoe", "anna"]
    )
    assert n_rows == 2
    wanted = trained.embedding_model.state_dict()
    found = model.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    rows = trained.classifier.weight
    assert torch.equal(classifier.weight[0], rows[dora])
    assert torch.equal(classifier.weight[1], fresh[1])
    assert torch.equal(classifier.weight[2], rows[anna])
    assert all(p.requires_grad for p in model.parameters())


def test_initial_weights_of_other_features_are_said(tmp_path, caplog):
    """Layers of equal shape do not say how long a frame is."""
    write_model(tmp_path / "trained")
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    for hop, said in ((10, False), (5, True)):
        caplog.clear()
        features = Fbank(n_mels=20, hop_length=hop), norm
        start_from(tmp_path / "trained", *new_model(), ["zoe"], features)
        assert ("hop_length: 160, the student's: 80" in caplog.text) == said


def test_whom_the_initial_weights_have_learnt_is_kept(tmp_path):
    """With the teacher's speakers, also when the first model is gone."""
    save = tmp_path / "save"
    save.mkdir()
    assert inherited_speakers(save) == []
    folder = write_model(tmp_path / "trained")
    write_names(folder / TEACHER_SPEAKERS, ["zoë"])
    keep_speakers(tmp_path / "trained", save)
    shutil.rmtree(tmp_path / "trained")
    assert inherited_speakers(save) == sorted([*TRAIN_SPEAKERS, "zoë"])
    teacher = SimpleNamespace(learnt_speakers=["yan"])
    assert inherited_speakers(save, teacher) == sorted(
        [*TRAIN_SPEAKERS, "yan", "zoë"]
    )
    # A later start without initial weights, before the first checkpoint
    keep_speakers(None, save)
    assert inherited_speakers(save) == []


@pytest.mark.parametrize(
    ("size", "layer", "shapes"),
    [
        ({"dim": 12}, "fc.conv.weight", ("[8, 48, 1]", "[12, 48, 1]")),
        (
            {"width": 16},
            "blocks.0.conv.conv.weight",
            ("[8, 20, 5]", "[16, 20, 5]"),
        ),
    ],
)
def test_another_width_is_told_by_the_layers_name(
    tmp_path, size, layer, shapes
):
    write_model(tmp_path / "trained")
    model, classifier = new_model(**size)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        start_from(tmp_path / "trained", model, classifier, ["anna"])
    said = str(caught.value)
    assert said.startswith("initial_weights: ") and f"`{layer}`" in said
    assert re.search(
        f"has {re.escape(shapes[0])} .* has {re.escape(shapes[1])}", said
    )
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
