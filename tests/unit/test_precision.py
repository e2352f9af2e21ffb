"""float32 stays float32: TF32 is off unless asked for, and off where said."""

import pytest
import torch

from imlkd_brain.distillation.attribution import (
    attribution_target,
    integrated_gradients,
)
from imlkd_brain.distillation.prototypes import embed_dataset
from imlkd_brain.explanation.maps import Batch, saliency_map
from imlkd_brain.precision import full_float32, set_tf32
from imlkd_brain.verification.scoring import cohort_statistics, score_trials
from imlkd_brain.verification.scoring import unit_length as scoring_unit_length
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.quirks import allow_tf32


def flags():
    """Whether matrix products and convolutions may run in TF32."""
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )


@pytest.fixture
def tf32():
    """TF32 as SpeechBrain's import leaves it."""
    allow_tf32()
    assert flags() == (True, True)
    yield
    set_tf32(False)


def test_a_setting_holds_for_products_and_convolutions(tf32):
    set_tf32(False)
    assert flags() == (False, False)
    set_tf32(True)
    assert flags() == (True, True)


def test_inside_it_is_off_and_afterwards_as_before(tf32):
    torch.backends.cudnn.allow_tf32 = False
    with pytest.raises(KeyError), full_float32():
        assert flags() == (False, False)
        raise KeyError
    assert flags() == (True, False)


def test_attributions_and_scores_are_in_full_float32_whoever_calls(
    tf32, monkeypatch
):
    seen = []

    def cosines(x):
        seen.append(flags())
        return x.flatten(1)[:, :3]

    feats, target = torch.rand(2, 5, 4), torch.tensor([0, 1])
    integrated_gradients(cosines, feats, target)
    attribution_target(cosines, feats, target, "predicted")
    for method in ("gradient", "integrated_gradients", "occlusion"):
        options = {
            "integrated_gradients": {"n_steps": 1, "rule": "midpoint"},
            "occlusion": {"window": [2, 2], "stride": [2, 2]},
        }.get(method, {})
        saliency_map(method, Batch(cosines, feats, target), options)
    assert len(seen) > 5

    unit_length = scoring_unit_length
    monkeypatch.setattr(
        "imlkd_brain.verification.scoring.unit_length",
        lambda x: (seen.append(flags()), unit_length(x))[1],
    )
    before = len(seen)
    embeddings = torch.rand(3, 4)
    score_trials(embeddings, embeddings, torch.tensor([[0, 1]]))
    cohort_statistics(embeddings, embeddings, top=2)
    assert len(seen) > before
    assert set(seen) == {(False, False)} and flags() == (True, True)


def test_prototypes_are_in_full_float32(tf32, monkeypatch):
    class Model(torch.nn.Linear):
        sample_rate, hop_samples = 16000, 160

        def features(self, wavs):
            return wavs

        def embed_features(self, feats):
            seen.append(flags())
            return feats

    class Batch:
        sig = PaddedData(torch.rand(2, 3), torch.ones(2))
        spk_id_encoded = type("Padded", (), {"data": torch.zeros(2, 1)})

        def to(self, device):
            return self

    seen = []
    monkeypatch.setattr(
        "imlkd_brain.distillation.prototypes.make_dataloader",
        lambda *a, **k: [Batch()],
    )
    rows = DynamicItemDataset({"a": {}, "b": {}})
    embed_dataset(Model(1, 1), rows)
    assert seen == [(False, False)]
