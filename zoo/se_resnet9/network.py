"""The network, plain: space to depth, a stem, four blocks with squeeze and excitation and Fixup's scalars; no norms.

After "Large Batch Simulation for Deep Reinforcement Learning" (Shacklett et al., 2021), "Squeeze-and-Excitation
Networks" (Hu et al., 2018) and "Fixup Initialization" (Zhang et al., 2019), whose names the scalars have.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

CHANNELS = (64, 128, 256, 512)
STRIDES = (1, 2, 2, 2)
SIDE = 64  # pixels of the input
STEP = 4  # pixels that become channels, each way
REDUCTION = 16
BLOCKS = len(CHANNELS)
# Colours; metres of depth; depth with ten bins (`pixels`).
INPUT_CHANNELS = (3, 1, 11)


class SpaceToDepth(nn.Module):
    """`[B,C,H,W]` to `[B,16C,H/4,W/4]`: channel (i*4 + j)*C + c holds pixel (i, j) of each 4x4 patch."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c16 h4 w4"]:
        """Only moves data."""
        b, c, h, w = x.shape
        patches = x.view(b, c, h // STEP, STEP, w // STEP, STEP).permute(0, 3, 5, 1, 2, 4)
        return patches.reshape(b, STEP * STEP * c, h // STEP, w // STEP)


class SqueezeExcite(nn.Module):
    """A gate in 0..1 for each channel of each sample: sigmoid(W2 relu(W1 mean + c1) + c2)."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // REDUCTION)
        self.excite = nn.Linear(channels // REDUCTION, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """The gate, to be multiplied with x."""
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3)))))
        return torch.sigmoid(gate)[:, :, None, None]


class Block(nn.Module):
    """relu(o * gate(o) + identity), o two convolutions with Fixup's five scalars around them.

    The scalars are added before the convolution pads with zeros: at the border they are no bias of it.
    """

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.b1a, self.b1b, self.b2a, self.b2b = (nn.Parameter(torch.zeros(1)) for _ in range(4))
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.se = SqueezeExcite(out)
        self.pool = nn.AvgPool2d(3, 2, padding=1) if stride == 2 else None
        self.downsample = nn.Conv2d(channels, out, 1, bias=False) if stride == 2 else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Stride 1 or 2."""
        shifted = x + self.b1a
        o = torch.relu(self.conv1(shifted) + self.b1b)
        o = self.conv2(o + self.b2a) * self.scale + self.b2b
        identity = x if self.downsample is None or self.pool is None else self.downsample(self.pool(shifted))
        return torch.relu(o * self.se(o) + identity)


class SEResNet9(nn.Module):
    """Float `[B,C,64,64]` to `[B,512,2,2]`; 4,938,256 parameters with 3 channels."""

    def __init__(self, channels: int = 3):
        super().__init__()
        self.space_to_depth = SpaceToDepth()
        self.stem = nn.Conv2d(STEP * STEP * channels, CHANNELS[0], 1, bias=False)
        widths = (CHANNELS[0], *CHANNELS)
        self.blocks = nn.ModuleList(map(Block, widths[:-1], widths[1:], STRIDES))
        self.initialize()

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.stem.in_channels // STEP**2

    def each_block(self) -> list[Block]:
        """The four blocks."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def initialize(self) -> None:
        """Fixup: each block begins as its identity; the more blocks, the smaller are the first convolutions drawn."""
        for block in self.each_block():
            out = block.conv1.out_channels
            nn.init.normal_(block.conv1.weight, std=math.sqrt(2 / (out * 9)) * BLOCKS**-0.5)
            nn.init.zeros_(block.conv2.weight)
            if block.downsample is not None:
                nn.init.normal_(block.downsample.weight, std=math.sqrt(2 / out))

    def forward(self, x: Float[Tensor, "b c 64 64"]) -> Float[Tensor, "b 512 2 2"]:
        """Features of each image."""
        x = torch.relu(self.stem(self.space_to_depth(x)))
        for block in self.blocks:
            x = block(x)
        return x


def parameter_count(channels: int) -> int:
    """Trainable parameters for an input of so many channels."""
    total, before = STEP**2 * channels * CHANNELS[0], CHANNELS[0]
    for out, stride in zip(CHANNELS, STRIDES, strict=True):
        hidden = out // REDUCTION
        total += 9 * before * out + 9 * out * out + 2 * out * hidden + hidden + out + 5
        total += before * out if stride == 2 else 0
        before = out
    return total


def macs(channels: int) -> int:
    """Multiply-accumulates of one image in convolutions and linear layers."""
    side = SIDE // STEP
    total, before = STEP**2 * channels * CHANNELS[0] * side**2, CHANNELS[0]
    for out, stride in zip(CHANNELS, STRIDES, strict=True):
        side //= stride
        weights = 9 * before * out + 9 * out * out + (before * out if stride == 2 else 0)
        total += weights * side**2 + 2 * out * (out // REDUCTION)
        before = out
    return total
