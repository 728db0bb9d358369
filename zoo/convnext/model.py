"""The network, plain: stem, stages of blocks with a norm and a convolution of stride 2 between them, head.

After "A ConvNet for the 2020s" (Liu et al., 2022), with three differences: the depthwise convolution widens to four
times the channels, there is no layer scale, and each LayerNorm is over channels and positions together.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.convnext.activations import activation
from zoo.convnext.config import EXPANSION, FULL, Config


class Block(nn.Module):
    """x + project(activation(mix(norm(depthwise(x))))), `[B,d,h,w]` in and out; between them 4d channels."""

    def __init__(self, d: int, side: int, kind: str):
        super().__init__()
        wide = EXPANSION * d
        self.depthwise = nn.Conv2d(d, wide, 7, padding=3, groups=d)
        self.norm = nn.LayerNorm((wide, side, side), eps=1e-5)
        self.mix = nn.Conv2d(wide, wide, 1)
        self.activation = activation(kind)
        self.project = nn.Conv2d(wide, d, 1)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """The branch, and the stream that it joins."""
        return x + self.project(self.activation(self.mix(self.norm(self.depthwise(x)))))


class ConvNeXt(nn.Module):
    """Float image `[B,3,R,R]` to logits `[B,classes]`."""

    def __init__(self, config: Config = FULL):
        super().__init__()
        self.config = config
        first = config.channels[0]
        self.stem = nn.Sequential(
            OrderedDict(
                patches=nn.Conv2d(3, first, 4, stride=4),
                norm=nn.LayerNorm((first, config.side(0), config.side(0)), eps=1e-5),
            )
        )
        self.stages, self.downs = nn.ModuleList(), nn.ModuleList()
        for stage, (blocks, d) in enumerate(zip(config.blocks, config.channels, strict=True)):
            side = config.side(stage)
            self.stages.append(nn.Sequential(*(Block(d, side, config.activation) for _ in range(blocks))))
            if stage + 1 < len(config.blocks):
                norm = nn.LayerNorm((d, side, side), eps=1e-5)
                halve = nn.Conv2d(d, config.channels[stage + 1], 2, stride=2)
                self.downs.append(nn.Sequential(OrderedDict(norm=norm, halve=halve)))
        self.norm = nn.LayerNorm(config.channels[-1], eps=1e-5)
        self.head = nn.Linear(config.channels[-1], config.classes)

    def forward(self, image: Float[Tensor, "b 3 r r"]) -> Float[Tensor, "b classes"]:
        """Logits. The input size is the config's; PyTorch raises for another."""
        x = self.stem(image)
        for stage, blocks in enumerate(self.stages):
            x = blocks(x)
            if stage < len(self.downs):
                x = self.downs[stage](x)
        return self.head(self.norm(x.mean((2, 3))))


def seeded(config: Config = FULL, seed: int = 0) -> ConvNeXt:
    """PyTorch's own initial weights, from a seed; the process's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvNeXt(config)
