"""The network made fast, with the same weights and outputs: channels-last, and a block's small steps fused.

Convolutions are cuDNN's; what lies between them is three operators (`operators`), each one pass over memory where the
plain network makes up to ten. 1x1 convolutions are matrix products, which channels-last makes them. Fixup's scalars are
added as the plain network adds them, before the padding, by the piece that wrote the tensor.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from zoo.se_resnet9.network import STEP, SEResNet9
from zoo.se_resnet9.operators import relu_pair, shifted_relu, squeeze_merge


class FastSEResNet9(SEResNet9):
    """As SEResNet9, in training and inference; FP16 and BF16 are what it is made for. Its output is channels-last."""

    nothing: Tensor

    def __init__(self, channels: int = 3):
        super().__init__(channels)
        # The last block adds no next block's scalar. Not a weight: the state dict is the plain network's.
        self.register_buffer("nothing", torch.zeros(1), persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def of(cls, network: SEResNet9) -> FastSEResNet9:
        """One with a copy of the weights of `network`, in its type, place and mode."""
        weight = network.stem.weight
        made = cls(network.channels).to(device=weight.device, dtype=weight.dtype)
        made.load_state_dict(network.state_dict())
        return made.train(network.training)

    def forward(self, x: Float[Tensor, "b c 64 64"]) -> Float[Tensor, "b 512 2 2"]:
        """Features of each image, and gradients of all parameters."""
        blocks = self.each_block()
        identity, x = relu_pair(pointwise(patches(x), self.stem), blocks[0].b1a)
        for index, block in enumerate(blocks):
            if block.downsample is not None:
                identity = pointwise(functional.avg_pool2d(x, 3, 2, 1), block.downsample)
            x = shifted_relu(block.conv1(x), block.b1b, block.b2a)
            after = blocks[index + 1].b1a if index + 1 < len(blocks) else self.nothing
            squeeze, excite = block.se.squeeze, block.se.excite
            gate = squeeze.weight, squeeze.bias, excite.weight, excite.bias
            x = squeeze_merge(block.conv2(x), identity, block.scale, block.b2b, *gate, after)
        return x


def patches(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c16 h4 w4"]:
    """What SpaceToDepth gives, channels-last."""
    b, c, h, w = x.shape
    split = x.reshape(b, c, h // STEP, STEP, w // STEP, STEP).permute(0, 2, 4, 3, 5, 1)
    return split.reshape(b, h // STEP, w // STEP, STEP * STEP * c).permute(0, 3, 1, 2)


def pointwise(x: Float[Tensor, "b c h w"], layer: nn.Conv2d) -> Float[Tensor, "b o h w"]:
    """A 1x1 convolution without bias as a matrix product; channels-last in and out."""
    return functional.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1)).permute(0, 3, 1, 2)
