"""CAM++ beside its authors' implementation, by numbers that this one gave."""

import pytest
import torch

from imlkd_brain.models.campplus import CAMPlusPlus

# speakerlab 0.0.6, models.campplus.DTDNN.CAMPPlus(80, 192), with the weights
# and input below, 2026-11-26: the first numbers of two embeddings
AUTHORS = torch.tensor(
    [
        [-3.27076, 3.07171, 1.47732, -3.88613],
        [-3.27493, 3.08593, 1.47264, -3.89765],
    ]
)


def filled(model):
    """The model with weights by a formula, in evaluation mode."""
    with torch.no_grad():
        for i, (name, value) in enumerate(sorted(model.state_dict().items())):
            if not value.is_floating_point():
                continue
            count = torch.arange(value.numel(), dtype=torch.float64)
            wave = torch.cos(0.37 * count + i).reshape(value.shape)
            is_scale = name.endswith("weight") and value.dim() == 1
            if name.endswith("running_var") or is_scale:
                wave = 1 + 0.2 * wave
            elif value.dim() == 1:
                wave = 0.15 * wave
            else:
                wave = wave * (2 / value[0].numel()) ** 0.5
            value.copy_(wave)
    return model.eval()


def test_embeddings_are_those_of_the_authors_network():
    # 230 frames: the last context segment is not whole.
    count = torch.arange(2 * 230 * 80, dtype=torch.float64)
    feats = 2 * torch.sin(0.011 * count).reshape(2, 230, 80).float()
    feats[1] *= torch.linspace(0, 3, 230).unsqueeze(1)
    with torch.no_grad():
        embeddings = filled(CAMPlusPlus())(feats)
    assert embeddings.shape == (2, 1, 192)
    # float32 through 60 layers on another machine's kernels.
    torch.testing.assert_close(
        embeddings[:, 0, :4], AUTHORS, rtol=1e-4, atol=1e-4
    )


def test_it_has_the_parameters_of_the_published_model():
    # 6.85 million, as 3D-Speaker's file has them.
    n_parameters = sum(p.numel() for p in CAMPlusPlus().parameters())
    assert n_parameters == 6_848_544


@pytest.mark.parametrize("n_frames", [5, 99, 201])
def test_each_utterance_of_a_batch_is_embedded_as_alone(n_frames):
    model = filled(CAMPlusPlus(lin_neurons=8))
    feats = torch.randn(3, n_frames, 80, generator=torch.manual_seed(0))
    with torch.no_grad():
        together = model(feats)
        alone = torch.cat([model(one.unsqueeze(0)) for one in feats])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_features():
    feats = torch.randn(1, 60, 80, requires_grad=True)
    filled(CAMPlusPlus(lin_neurons=8))(feats).sum().backward()
    assert torch.isfinite(feats.grad).all() and feats.grad.abs().sum() > 0
