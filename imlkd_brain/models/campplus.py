"""CAM++, a public speaker model, as a network for its authors' weights.

Source: H. Wang, S. Zheng, Y. Chen, L. Cheng, Q. Chen, "CAM++: A Fast and
Efficient Network for Speaker Verification Using Context-Aware Masking",
arXiv 2303.00332 (2023). Parameters have the names of the checkpoints that the
authors published with 3D-Speaker, so these load strictly.

Authors: IML-KD contributors
"""

import torch
from torch import nn
from torch.nn.functional import avg_pool1d, relu

BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of a dense block
GROWTH = 32  # channels that a dense layer adds
BOTTLENECK = 128  # channels inside a dense layer
SEGMENT = 100  # frames of a segment of the context mask


class CAMPlusPlus(nn.Module):
    """CAM++: a convolutional front, then densely connected TDNN layers.

    A context-aware mask in every dense layer weighs its channels by the mean
    of the whole utterance and of the frame's segment of 100 frames (two
    seconds, since the TDNN halves the frame rate).

    Arguments
    ---------
    input_size : int
        Number of mel filters, a multiple of 8.
    lin_neurons : int
        Dimension of the embedding.

    Example
    -------
    >>> model = CAMPlusPlus(input_size=80, lin_neurons=192).eval()
    >>> model(torch.randn(2, 150, 80)).shape
    torch.Size([2, 1, 192])
    """

    def __init__(self, input_size=80, lin_neurons=192):
        super().__init__()
        self.head = _Front()
        channels = 32 * (input_size // 8)
        layers = nn.Sequential()
        layers.add_module("tdnn", _TimeDelay(channels, 128))
        channels = 128
        for number, (n_layers, dilation) in enumerate(BLOCKS, start=1):
            block = _DenseBlock(channels, n_layers, dilation)
            layers.add_module(f"block{number}", block)
            channels += n_layers * GROWTH
            transit = _Transit(channels, channels // 2)
            layers.add_module(f"transit{number}", transit)
            channels //= 2
        layers.add_module("out_nonlinear", _norm_relu(channels))
        layers.add_module("stats", _Statistics())
        layers.add_module("dense", _Dense(2 * channels, lin_neurons))
        self.xvector = layers

    def forward(self, feats, lens=None):
        """Return embeddings (batch, 1, dim) of features (batch, time, mel).

        Arguments
        ---------
        feats : torch.Tensor
            (batch, time, mel) log-mel features without their mean.
        lens : torch.Tensor, optional
            Not used: the model has no mask for padding, so that a batch has
            to hold utterances of one length.
        """
        maps = self.head(feats.transpose(1, 2).unsqueeze(1))
        return self.xvector(maps).unsqueeze(1)


class _Front(nn.Module):
    """2-D convolutions that keep the frames and divide the mels by 8."""

    def __init__(self, channels=32):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(_Residual(channels, 2), _Residual(channels))
        self.layer2 = nn.Sequential(_Residual(channels, 2), _Residual(channels))
        self.conv2 = nn.Conv2d(
            channels, channels, 3, stride=(2, 1), padding=1, bias=False
        )
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, maps):
        """(batch, 1, mel, time) to (batch, 32 * mel / 8, time)."""
        maps = relu(self.bn1(self.conv1(maps)))
        maps = self.layer2(self.layer1(maps))
        maps = relu(self.bn2(self.conv2(maps)))
        return maps.flatten(1, 2)


class _Residual(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; the stride is over the mels."""

    def __init__(self, channels, stride=1):
        super().__init__()
        steps = (stride, 1)
        self.conv1 = nn.Conv2d(
            channels, channels, 3, stride=steps, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, stride=steps, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, maps):
        """(batch, channels, mel, time) to the same with mel / stride."""
        inner = relu(self.bn1(self.conv1(maps)))
        inner = self.bn2(self.conv2(inner))
        return relu(inner + self.shortcut(maps))


class _TimeDelay(nn.Module):
    """Five frames to one, at half the frame rate."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.linear = nn.Conv1d(
            channels, out_channels, 5, stride=2, padding=2, bias=False
        )
        self.nonlinear = _norm_relu(out_channels)

    def forward(self, frames):
        """(batch, channels, time) to (batch, out_channels, time / 2)."""
        return self.nonlinear(self.linear(frames))


class _DenseBlock(nn.Module):
    """Layers that each add 32 channels to what they are given."""

    def __init__(self, channels, n_layers, dilation):
        super().__init__()
        for i in range(n_layers):
            layer = _DenseLayer(channels + i * GROWTH, dilation)
            self.add_module(f"tdnnd{i + 1}", layer)

    def forward(self, frames):
        """(batch, channels, time) to (batch, channels + 32 * layers, time)."""
        for layer in self.children():
            frames = torch.cat([frames, layer(frames)], dim=1)
        return frames


class _DenseLayer(nn.Module):
    """A bottleneck and a masked TDNN layer."""

    def __init__(self, channels, dilation):
        super().__init__()
        self.nonlinear1 = _norm_relu(channels)
        self.linear1 = nn.Conv1d(channels, BOTTLENECK, 1, bias=False)
        self.nonlinear2 = _norm_relu(BOTTLENECK)
        self.cam_layer = _MaskedTimeDelay(dilation)

    def forward(self, frames):
        """(batch, channels, time) to (batch, 32, time)."""
        inner = self.nonlinear2(self.linear1(self.nonlinear1(frames)))
        return self.cam_layer(inner)


class _MaskedTimeDelay(nn.Module):
    """Context-aware masking: a TDNN layer times a mask from its context."""

    def __init__(self, dilation):
        super().__init__()
        self.linear_local = nn.Conv1d(
            BOTTLENECK,
            GROWTH,
            3,
            padding=dilation,
            dilation=dilation,
            bias=False,
        )
        self.linear1 = nn.Conv1d(BOTTLENECK, BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(BOTTLENECK // 2, GROWTH, 1)

    def forward(self, frames):
        """(batch, 128, time) to (batch, 32, time)."""
        n_frames = frames.shape[-1]
        segments = avg_pool1d(frames, SEGMENT, SEGMENT, ceil_mode=True)
        if torch.onnx.is_in_onnx_export():
            # repeat_interleave leaves an ONNX graph without a known rank.
            repeated = segments.unsqueeze(-1).expand(-1, -1, -1, SEGMENT)
            segments = repeated.flatten(-2)[..., :n_frames]
        else:
            segments = segments.repeat_interleave(SEGMENT, dim=-1)
            segments = segments[..., :n_frames]
        context = frames.mean(-1, keepdim=True) + segments
        mask = torch.sigmoid(self.linear2(relu(self.linear1(context))))
        return self.linear_local(frames) * mask


class _Transit(nn.Module):
    """A 1 x 1 convolution between two dense blocks."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.nonlinear = _norm_relu(channels)
        self.linear = nn.Conv1d(channels, out_channels, 1, bias=False)

    def forward(self, frames):
        """(batch, channels, time) to (batch, out_channels, time)."""
        return self.linear(self.nonlinear(frames))


class _Statistics(nn.Module):
    """Mean and standard deviation over time."""

    def forward(self, frames):
        """(batch, channels, time) to (batch, 2 * channels)."""
        return torch.cat([frames.mean(-1), frames.std(-1)], dim=-1)


class _Dense(nn.Module):
    """The embedding: a linear layer and BatchNorm without weights."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.linear = nn.Conv1d(channels, out_channels, 1, bias=False)
        self.nonlinear = nn.Sequential()
        norm = nn.BatchNorm1d(out_channels, affine=False)
        self.nonlinear.add_module("batchnorm", norm)

    def forward(self, statistics):
        """(batch, channels) to (batch, out_channels)."""
        embeddings = self.linear(statistics.unsqueeze(-1)).squeeze(-1)
        return self.nonlinear(embeddings)


def _norm_relu(channels):
    """BatchNorm under its name in the checkpoints, and ReLU."""
    layers = nn.Sequential()
    layers.add_module("batchnorm", nn.BatchNorm1d(channels))
    layers.add_module("relu", nn.ReLU())
    return layers
