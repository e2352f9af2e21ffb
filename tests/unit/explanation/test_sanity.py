"""Unit tests of ``imlkd_brain.explanation.sanity``."""

import torch

from imlkd_brain.explanation.agreement import rank_correlation
from imlkd_brain.explanation.maps import Batch, gradient_map
from imlkd_brain.explanation.sanity import parameter_cascade

N_FRAMES, N_BANDS = 60, 16


def test_the_cascade_shuffles_from_the_output_down_and_spares_the_original(
    ecapa,
):
    before = {k: v.clone() for k, v in ecapa.state_dict().items()}
    shuffled_so_far = set()
    for name, network in parameter_cascade(
        ecapa, torch.Generator().manual_seed(0)
    ):
        shuffled_so_far.add(name)
        for key, value in network.named_parameters():
            ours = any(key.startswith(f"{n}.") for n in shuffled_so_far)
            same = torch.equal(value, before[key])
            assert same or ours, (name, key)
            # A few entries, or equal ones, may fall into place again.
            if ours and before[key].unique().numel() > 8:
                assert not same, (name, key)
            assert torch.equal(
                value.flatten().sort().values,
                before[key].flatten().sort().values,
            )
    assert list(shuffled_so_far) and name == "blocks.0"
    assert all(
        torch.equal(value, before[key])
        for key, value in ecapa.state_dict().items()
    )


def test_maps_of_a_shuffled_network_are_others(ecapa):
    feats = torch.randn(2, N_FRAMES, N_BANDS)
    target = torch.zeros(2, dtype=torch.long)

    def gradient(network):
        batch = Batch(lambda x: network(x).squeeze(1), feats, target)
        return gradient_map(batch)[0]

    *_, (_, shuffled) = parameter_cascade(
        ecapa, torch.Generator().manual_seed(0)
    )
    same = rank_correlation(gradient(ecapa), gradient(ecapa))
    rho = rank_correlation(gradient(ecapa), gradient(shuffled))
    assert torch.allclose(same, torch.ones_like(same))
    assert (rho < 0.5).all()
