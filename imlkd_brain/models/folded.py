"""A frozen network with fewer operations for the same answer.

For a network in evaluation mode whose weights no longer change, as a teacher:

- BatchNorm is a scale and a shift. They go into the weights of the convolution
  before it, or of the layer after it.
- SpeechBrain's ECAPA-TDNN copies the input of every convolution to pad it, also of
  those of one frame, which need no padding.
- Its pooling repeats the mean and the deviation of an utterance for every frame
  before it multiplies them by weights; here they are multiplied once.

Answers and gradients differ from the network's by rounding alone.

Authors: IML-KD contributors
"""

import copy

import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils.fusion import fuse_conv_bn_eval

from imlkd_brain.models import campplus
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, TDNNBlock
from speechbrain.nnet.CNN import Conv1d

# The smallest variance of SpeechBrain's pooling.
_EPS = 1e-12


def folded(network):
    """Return a network that answers alike with fewer operations.

    Arguments
    ---------
    network : torch.nn.Module
        In evaluation mode, from features (batch, time, mel) to embeddings
        (batch, 1, dim). It is left as it is.

    Returns
    -------
    torch.nn.Module
        For an ECAPA-TDNN of SpeechBrain with ReLU, or a CAM++, the same
        without BatchNorm, in evaluation mode and frozen; for any other network,
        and for one in training mode, the network itself.

    Example
    -------
    >>> network = ECAPA_TDNN(80, channels=[16] * 4 + [48], lin_neurons=24).eval()
    >>> feats = torch.randn(2, 60, 80)
    >>> bool((folded(network)(feats) - network(feats)).abs().max() < 1e-4)
    True
    """
    if network.training:
        return network
    if type(network) is ECAPA_TDNN and _has_known_parts(network):
        return FoldedECAPA(network).requires_grad_(False).eval()
    if type(network) is campplus.CAMPlusPlus:
        return _fused_campplus(network).requires_grad_(False).eval()
    return network


def without_idle_padding(network):
    """Spare convolutions of one frame the copy of their input.

    SpeechBrain pads the input of a convolution, which copies it, also by no
    frames at all. What the network computes stays the same to the last bit.

    Arguments
    ---------
    network : torch.nn.Module
        Changed in place, in training or not.

    Example
    -------
    >>> network = ECAPA_TDNN(80, channels=[16] * 4 + [48], lin_neurons=24)
    >>> without_idle_padding(network)
    >>> network.fc.padding
    'valid'
    """
    for module in network.modules():
        if isinstance(module, Conv1d) and module.kernel_size == 1:
            if module.padding == "same":
                module.padding = "valid"


def _has_known_parts(network):
    """Whether blocks have ReLU, padding by reflection and the usual pooling."""
    blocks = [m for m in network.modules() if isinstance(m, TDNNBlock)]
    return network.asp.global_context and all(
        type(block.activation) is nn.ReLU
        and (block.conv.padding == "same" or block.conv.kernel_size == 1)
        and block.conv.padding_mode == "reflect"
        and block.conv.conv.bias is not None
        for block in blocks
    )


class FoldedECAPA(nn.Module):
    """SpeechBrain's ECAPA-TDNN in evaluation mode, without BatchNorm.

    Arguments
    ---------
    network : speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
        In evaluation mode. Batches with padding still go through it.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.first = _Block(network.blocks[0])
        self.blocks = nn.ModuleList(map(_SERes2Net, network.blocks[1:]))
        self.mfa = _Block(network.mfa)
        shift = self.mfa.shift
        # Deviations do not follow a shift, means do.
        moved = torch.cat([shift, shift, torch.zeros_like(shift)])
        self.context = _Block(network.asp.tdnn, moved)
        self.attention = network.asp.conv.conv
        scale, offset = _scale_and_shift(network.asp_bn.norm)
        weight = network.fc.conv.weight[:, :, 0]
        offset = offset + scale * torch.cat([shift, torch.zeros_like(shift)])
        self.register_buffer("weight", weight * scale)
        self.register_buffer("bias", network.fc.conv.bias + weight @ offset)

    def forward(self, feats, lengths=None):
        """Return embeddings (batch, 1, dim) of features (batch, time, mel).

        Arguments
        ---------
        feats : torch.Tensor
            (batch, time, mel).
        lengths : torch.Tensor, optional
            Relative lengths (batch,), for the network itself.
        """
        if lengths is not None and not bool((lengths == 1).all()):
            return self.network(feats, lengths)
        frames = self.first.shifted(feats.transpose(1, 2))
        outputs = []
        for block in self.blocks:
            frames = block(frames)
            outputs.append(frames)
        frames = self.mfa(torch.cat(outputs, dim=1))
        mean = frames.mean(2)
        centred = frames - mean.unsqueeze(2)
        deviation = centred.square().mean(2).clamp(_EPS).sqrt()
        weights = self._attention(frames, torch.cat([mean, deviation], 1))
        mean, deviation = WeightedStatistics.apply(frames, weights)
        pooled = torch.cat([mean, deviation], 1)
        return linear(pooled, self.weight, self.bias).unsqueeze(1)

    def _attention(self, frames, statistics):
        """Weights of frames (batch, channels, time) that sum to one."""
        conv, channels = self.context.conv, frames.shape[1]
        hidden = nn.functional.conv1d(frames, conv.weight[:, :channels])
        context = linear(statistics, conv.weight[:, channels:, 0], conv.bias)
        hidden = self.context.rectified(hidden + context.unsqueeze(2))
        hidden = hidden + self.context.shift[:, None]
        return self.attention(hidden.tanh()).softmax(2)


class _Block(nn.Module):
    """A TDNN block, of which the shift of BatchNorm is left to the next layer.

    Arguments
    ---------
    block : speechbrain.lobes.models.ECAPA_TDNN.TDNNBlock
        Convolution, ReLU and BatchNorm.
    left : torch.Tensor, optional
        (in_channels,), the shift that the layer before left to this one.
    """

    def __init__(self, block, left=None):
        super().__init__()
        conv = block.conv.conv
        scale, shift = _scale_and_shift(block.norm.norm)
        bias = conv.bias.detach()
        if left is not None:
            # Grouped convolutions see their own channels only.
            n_in = conv.weight.shape[1]
            moved = conv.weight.sum(2) * left.view(conv.groups, 1, n_in).expand(
                -1, len(bias) // conv.groups, -1
            ).reshape(len(bias), n_in)
            bias = bias + moved.sum(1)
        # The caller's random stream is its own. torch's skip_init leaves it
        # alone too, but imports a compiler for that, most of a second.
        with torch.random.fork_rng(devices=[]):
            self.conv = nn.Conv1d(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,
                dilation=conv.dilation,
                groups=conv.groups,
                padding=(conv.kernel_size[0] - 1) * conv.dilation[0] // 2,
                padding_mode="reflect" if conv.kernel_size[0] > 1 else "zeros",
            ).to(conv.weight)
        with torch.no_grad():
            # A negative scale after ReLU is a sign after it.
            self.conv.weight.copy_(scale.abs()[:, None, None] * conv.weight)
            self.conv.bias.copy_(scale.abs() * bias)
        self.register_buffer("shift", shift)
        sign = None if bool((scale >= 0).all()) else scale.sign()[:, None]
        self.register_buffer("sign", sign)

    def forward(self, frames):
        """(batch, in_channels, time) to (batch, out_channels, time)."""
        return self.rectified(self.conv(frames))

    def rectified(self, frames):
        """ReLU in place, and the sign of BatchNorm's scale."""
        frames = frames.relu_()
        return frames if self.sign is None else frames * self.sign

    def shifted(self, frames):
        """The whole block, with its shift."""
        return self(frames) + self.shift[:, None]


class _SERes2Net(nn.Module):
    """A block of TDNN, Res2Net, TDNN and squeeze-and-excitation.

    Arguments
    ---------
    block : speechbrain.lobes.models.ECAPA_TDNN.SERes2NetBlock
        In evaluation mode.
    """

    def __init__(self, block):
        super().__init__()
        self.shortcut = nn.Identity()
        if block.shortcut is not None:
            self.shortcut = block.shortcut
        self.tdnn1 = _Block(block.tdnn1)
        self.scale = block.res2net_block.scale
        left = self.tdnn1.shift.chunk(self.scale)
        shifts, blocks = [left[0]], []
        for i, inner in enumerate(block.res2net_block.blocks, 1):
            # Its input is a part of tdnn1's output and the block before it.
            moved = left[i] if i == 1 else left[i] + shifts[-1]
            blocks.append(_Block(inner, moved))
            shifts.append(blocks[-1].shift)
        self.blocks = nn.ModuleList(blocks)
        self.tdnn2 = _Block(block.tdnn2, torch.cat(shifts))
        self.squeeze = block.se_block.conv1.conv
        self.excite = block.se_block.conv2.conv

    def forward(self, frames):
        """(batch, in_channels, time) to (batch, out_channels, time)."""
        parts = self.tdnn1(frames).chunk(self.scale, 1)
        outputs = [parts[0]]
        for i, block in enumerate(self.blocks, 1):
            outputs.append(
                block(parts[i] if i == 1 else parts[i] + outputs[-1])
            )
        inner = self.tdnn2(torch.cat(outputs, 1))
        shift = self.tdnn2.shift
        mean = (inner.mean(2) + shift).unsqueeze(2)
        gate = self.excite(self.squeeze(mean).relu()).sigmoid()
        residual = self.shortcut(frames) + gate * shift[:, None]
        return torch.addcmul(residual, gate, inner)


class WeightedStatistics(torch.autograd.Function):
    """Mean and standard deviation over time, with weights that sum to one.

    The derivatives by hand take a third of autograd's passes over memory. With
    ``d = x - mean`` and ``sum(w) = 1`` the variance ``v = sum(w d^2)`` has
    ``dv/dx = 2 w d`` and ``dv/dw = d^2``: a change of the mean cancels.
    """

    @staticmethod
    def forward(ctx, frames, weights):
        """Mean and deviation (batch, channels) of (batch, channels, time)."""
        mean = torch.linalg.vecdot(weights, frames)
        centred = frames - mean.unsqueeze(2)
        variance = torch.linalg.vecdot(weights * centred, centred)
        deviation = variance.clamp(_EPS).sqrt()
        ctx.save_for_backward(centred, weights, mean, variance, deviation)
        return mean, deviation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_mean, of_deviation):
        """Gradients of frames and weights, each (batch, channels, time)."""
        centred, weights, mean, variance, deviation = ctx.saved_tensors
        of_variance = of_deviation / (2 * deviation)
        of_variance = torch.where(variance > _EPS, of_variance, 0.0)
        of_mean, of_variance = of_mean.unsqueeze(2), of_variance.unsqueeze(2)
        half = torch.addcmul(of_mean, of_variance, centred)
        of_frames = weights * torch.addcmul(half, of_variance, centred)
        of_weights = torch.addcmul(of_mean * mean.unsqueeze(2), centred, half)
        return of_frames, of_weights


def _scale_and_shift(norm):
    """What BatchNorm in evaluation mode does to each channel."""
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias.detach() - scale * norm.running_mean


def _fused_campplus(network):
    """A CAM++ whose BatchNorms after convolutions are part of these."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, campplus._Front | campplus._Residual):
            _fuse(module, "conv1", module, "bn1")
            _fuse(module, "conv2", module, "bn2")
        if isinstance(module, campplus._Residual) and len(module.shortcut):
            _fuse(module.shortcut, "0", module.shortcut, "1")
        if isinstance(module, campplus._TimeDelay):
            _fuse(module, "linear", module.nonlinear, "batchnorm")
        if isinstance(module, campplus._DenseLayer):
            _fuse(module, "linear1", module.nonlinear2, "batchnorm")
    return network


def _fuse(owner, conv, other, norm):
    """Put a BatchNorm into the convolution before it."""
    fused = fuse_conv_bn_eval(getattr(owner, conv), getattr(other, norm))
    setattr(owner, conv, fused)
    setattr(other, norm, nn.Identity())
