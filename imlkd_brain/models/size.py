"""Counts a model's parameters and multiply-accumulates.

Authors: IML-KD contributors
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from imlkd_brain.data.crops import seconds_to_samples


def model_size(model, seconds=3.0):
    """Count parameters and multiply-accumulates of the embedding model.

    As in papers, the classifier and the features do not count.

    Arguments
    ---------
    model : SpeakerModel
        On any device.
    seconds : float
        Length of the input.

    Returns
    -------
    parameters : int
        Number of weights.
    macs : int
        Half of the floating-point operations of convolutions and matrix
        products on one input.
    """
    network = model.embedding_model
    device = next(network.parameters()).device
    n_samples = seconds_to_samples(seconds, model.sample_rate)
    wavs = torch.zeros(1, n_samples, device=device)
    with torch.inference_mode():
        feats = model.features(wavs)
        with _Operations() as counter:
            model.embed_features(feats)
    parameters = sum(weight.numel() for weight in network.parameters())
    return parameters, counter.flops // 2


class _Operations(TorchDispatchMode):
    """Counts what torch's FlopCounterMode counts, without module names."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls):
        """Nothing is compiled here, and importing the compiler takes a second."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and count it, or those that it is made of."""
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in flop_registry:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=result)
        return result
