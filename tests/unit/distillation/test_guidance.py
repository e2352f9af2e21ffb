"""Unit tests of ``imlkd_brain.distillation.guidance``."""

import captum.attr
import pytest
import torch
from helpers.networks import random_tensor
from synthetic import TRAIN_SPEAKERS, write_model

from imlkd_brain.distillation.guidance import Guidance, View
from imlkd_brain.distillation.integrated_inputs import IntegratedInputs
from imlkd_brain.distillation.teacher import load_teacher

OPTIONS = {
    "mode": "time_gate",
    "rule": "gauss_legendre",
    "n_steps": 4,
    "target": "own_embedding",
    "baseline": "zero",
    "durations": [0.3],
    "gate": 1.0,
    "max_weight": 1e6,
    "keep": 0.5,
    "internal_batch_size": None,
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return load_teacher(
        write_model(tmp_path_factory.mktemp("teacher")), TRAIN_SPEAKERS
    )


def test_own_embedding_equals_captum(teacher):
    feats = random_tensor(3, 50, 20).float()
    view = View(None, feats, None)
    integrated = IntegratedInputs(**OPTIONS)
    made = Guidance(teacher, integrated, 16000).of_segments(
        view, (1, 1), with_gap=True, weights=True
    )
    whole = teacher.embed_features(feats)
    assert torch.equal(view.answer[1], whole)

    def cosine(segments):
        """Of each segment to its own chunk; Captum repeats whole batches."""
        own = whole.repeat(len(segments) // len(whole), 1)
        return torch.nn.functional.cosine_similarity(
            teacher.embed_features(segments), own
        )

    expected, delta = captum.attr.IntegratedGradients(cosine).attribute(
        made.plain,
        n_steps=4,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    saliency = expected.abs().sum(2)
    weights = saliency / saliency.mean(1, keepdim=True)
    # Float32 through the network, of weights of order one.
    torch.testing.assert_close(made.weights, weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.gap, delta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        made.student, made.plain * weights[..., None], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("integrated", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_what_is_asked_for_is_the_same_however_it_is_asked(
    teacher, integrated, weights
):
    feats = random_tensor(3, 50, 20).float()
    options = {**OPTIONS, "target": "true_class", "mode": "gate"}
    guidance = Guidance(teacher, IntegratedInputs(**options), 16000)

    def ask(**asked):
        view = View(None, feats, torch.tensor([0, 3, 1]))
        return guidance.of_segments(view, (5, 5), **asked)

    whole = ask(integrated=True, weights=True)
    part = ask(integrated=integrated, weights=weights)
    assert torch.equal(part.plain, whole.plain)
    for name, asked in (("student", integrated), ("weights", weights)):
        if asked:
            assert torch.equal(getattr(part, name), getattr(whole, name))
        else:
            assert getattr(part, name) is None
