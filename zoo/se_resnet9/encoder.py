"""The network with what is around it in an agent: pixels before, and a head that makes one vector of its features."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from zoo.se_resnet9.network import CHANNELS, SEResNet9
from zoo.se_resnet9.pixels import ColourPixels, DepthPixels

COMPRESSED, VECTOR = 256, 512
_POSITIONS = 4  # 2x2


def head() -> nn.Sequential:
    """`[B,512,2,2]` to `[B,512]`: 3x3 convolution to 256 channels, linear layer, LayerNorm."""
    layers = OrderedDict(
        compress=nn.Conv2d(CHANNELS[-1], COMPRESSED, 3, padding=1),
        relu=nn.ReLU(),
        flatten=nn.Flatten(),
        linear=nn.Linear(COMPRESSED * _POSITIONS, VECTOR, bias=False),
        norm=nn.LayerNorm(VECTOR),
        last=nn.ReLU(),
    )
    return nn.Sequential(layers)


class Encoder(nn.Module):
    """uint8 colours `[B,3,64,64]`, or metres `[B,1,64,64]` with `depth`, to a vector `[B,512]`.

    With a network of 3 channels it has 6,643,472 parameters.
    """

    def __init__(self, network: SEResNet9 | None = None, depth: bool = False):
        super().__init__()
        self.pixels: nn.Module = DepthPixels() if depth else ColourPixels()
        self.network = network or SEResNet9(DepthPixels.channels if depth else ColourPixels.channels)
        self.head = head()

    def forward(self, image: Tensor) -> Float[Tensor, "b 512"]:
        """What the agent sees, as a vector. Computes in the weights' type."""
        pixels = self.pixels(image).to(self.network.stem.weight.dtype)
        return self.head(self.network(pixels))
