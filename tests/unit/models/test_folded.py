"""Unit tests of ``imlkd_brain.models.folded``."""

import copy
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from imlkd_brain.models.campplus import CAMPlusPlus
from imlkd_brain.models.folded import (
    WeightedStatistics,
    folded,
    without_idle_padding,
)
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

# In float64 what is more than this is wrong, not rounded.
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def trained(network, negative=False):
    """Statistics and weights of BatchNorm as after a training, in float64."""
    generator = torch.Generator().manual_seed(0)
    norms = [
        m
        for m in network.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
    ]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
                if negative:
                    norm.weight[::3] *= -1
    return network.double().eval().requires_grad_(False)


def ecapa(**options):
    torch.manual_seed(3)
    sizes = {"channels": [16] * 4 + [48], "attention_channels": 8}
    sizes |= {"se_channels": 8, "lin_neurons": 12}
    return ECAPA_TDNN(10, **(sizes | options))


def campplus():
    torch.manual_seed(3)
    return CAMPlusPlus(input_size=16, lin_neurons=12)


class Kernels(TorchDispatchMode):
    """Count which operation runs how often, and gradients of weights."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()
        self.of_weights = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        if name == "convolution_backward":
            _, of_weight, of_bias = args[-1]
            self.of_weights += of_weight or of_bias
        return func(*args, **(kwargs or {}))


def kept_bytes(network, feats):
    """What a forward pass keeps for the backward pass, weights apart."""
    kept = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        network(feats.clone().requires_grad_())
    return sum(storage.nbytes() for storage in kept.values())


NETWORKS = {
    "ecapa": lambda: trained(ecapa()),
    "ecapa with negative scales": lambda: trained(ecapa(), negative=True),
    "ecapa with a shortcut": lambda: trained(
        ecapa(channels=[16, 24, 24, 24, 48]), negative=True
    ),
    "ecapa with groups": lambda: trained(ecapa(groups=[1, 2, 2, 2, 2])),
    "campplus": lambda: trained(campplus()),
}


def gradient(network, feats):
    feats = feats.clone().requires_grad_()
    network(feats).sin().sum().backward()
    return feats.grad


@pytest.mark.parametrize("name", NETWORKS)
def test_answers_and_gradients_are_the_network_s(name):
    network = NETWORKS[name]()
    size = 16 if name == "campplus" else 10
    feats = torch.randn(3, 40, size, dtype=torch.float64)
    before = copy.deepcopy(network.state_dict())
    quick = folded(network)
    assert quick is not network
    torch.testing.assert_close(quick(feats), network(feats), **EXACT)
    torch.testing.assert_close(
        gradient(quick, feats), gradient(network, feats), **EXACT
    )
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(p.requires_grad for p in quick.parameters())


def test_convolutions_of_one_frame_do_not_copy_their_input():
    """The same bits, in training as well."""
    network, feats = ecapa(), torch.randn(3, 40, 10)
    before = copy.deepcopy(network)
    without_idle_padding(network)
    with Kernels() as kernels:
        embeddings = network(feats)
    assert torch.equal(embeddings, before(feats))
    assert kernels.counts["reflection_pad1d"] == 1 + 3 * 7
    assert torch.equal(gradient(network, feats), gradient(before, feats))


def test_batches_with_padding_are_the_network_s():
    network = NETWORKS["ecapa"]()
    feats = torch.randn(2, 40, 10, dtype=torch.float64)
    lengths = torch.tensor([0.5, 1.0], dtype=torch.float64)
    assert torch.equal(folded(network)(feats, lengths), network(feats, lengths))


def test_the_derivatives_of_the_statistics():
    generator = torch.Generator().manual_seed(1)
    frames, scores = (
        torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    frames[0, 0] = 2.0  # a channel that is constant has no deviation
    weights = scores.softmax(2)

    def moved(frames, weights):
        """Weights that stay weights whatever is added to them."""
        return WeightedStatistics.apply(frames, weights / weights.sum(2, True))

    def reference(frames, weights):
        weights = weights / weights.sum(2, True)
        mean = (weights * frames).sum(2)
        spread = (frames - mean.unsqueeze(2)).square()
        return mean, (weights * spread).sum(2).clamp(1e-12).sqrt()

    for given in (frames, weights):
        given.requires_grad_()
    results = [
        torch.autograd.grad(
            sum(x.cos().sum() for x in function(frames, weights)),
            (frames, weights),
        )
        for function in (moved, reference)
    ]
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize(
    "network",
    [
        ecapa(),  # in training mode
        ecapa(activation=torch.nn.LeakyReLU).eval(),
        ecapa(global_context=False).eval(),
        torch.nn.Linear(2, 2).eval(),
    ],
    ids=["training", "leaky", "no context", "another"],
)
def test_other_networks_stay_as_they_are(network):
    assert folded(network) is network


def test_fewer_operations():
    """No BatchNorm, no copy for the padding of one frame, fewer products."""
    network = trained(ecapa()).float()
    quick, feats = folded(network), torch.randn(2, 40, 10)
    counts = []
    for each in (network, quick):
        with Kernels() as kernels:
            gradient(each, feats)
        counts.append(kernels.counts)
    before, after = counts
    assert [name for name in before if "batch_norm" in name]
    assert not [name for name in after if "batch_norm" in name]
    # The first layer and seven in each of three Res2Net blocks.
    assert after["reflection_pad1d"] == 1 + 3 * 7
    assert before["reflection_pad1d"] == 1 + 3 * (7 + 4) + 4
    flops = []
    for each in (network, quick):
        with FlopCounterMode(display=False) as counter:
            gradient(each, feats)
        flops.append(counter.get_total_flops())
    assert kernels.of_weights == 0
    # Of the pooling's hidden layer, 8 numbers of 3 x 48, two thirds are the same
    # for all 40 frames of an utterance; 2 utterances, forward and backward.
    product = 2 * 8 * (2 * 48)
    assert flops[0] - flops[1] == 2 * 2 * (40 - 1) * product


def test_less_is_kept_for_the_backward_pass():
    network, feats = trained(ecapa()).float(), torch.randn(2, 100, 10)
    before, after = (
        kept_bytes(one, feats) for one in (network, folded(network))
    )
    # BatchNorm kept its input as well as ReLU its output, and the pooling nine
    # arrays of all channels and frames where four are needed.
    assert after < 0.6 * before
