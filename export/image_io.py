"""Folds the picture's way in and out into the graph, so that bytes cross the bus instead of floats."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn


class PixelsIn(nn.Module):
    """uint8 `[B,R,R,C]` to FP32 `[B,C,R,R]`: `(x - mean) / std` per channel, mean and std in grey levels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("scale", 1.0 / torch.tensor(std, dtype=torch.float32), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean, dtype=torch.float32) / torch.tensor(std), persistent=False)

    def forward(self, pixels: UInt8[Tensor, "b r r c"]) -> Float[Tensor, "b c r r"]:
        """Normalise while the channels are last, then turn: one fused pass over the bytes."""
        return rearrange(pixels.float() * self.scale + self.shift, "b h w c -> b c h w")


class PixelsOut(nn.Module):
    """FP32 `[B,C,R,R]` to uint8 `[B,R,R,C]`: `x * std + mean`, rounded half to even, clamped to 0..255."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)

    def forward(self, image: Float[Tensor, "b c r r"]) -> UInt8[Tensor, "b r r c"]:
        """The wide arithmetic is FP32 whatever the network's precision: a grey level is 1/255 of the range."""
        pixels = rearrange(image.float(), "b c h w -> b h w c") * self.std + self.mean
        return torch.clamp(torch.round(pixels), 0, 255).to(torch.uint8)


class ImageModule(nn.Module):
    """A float image network behind uint8 pixels; its ends are named so that the precision policy can find them."""

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...] = (127.5,) * 3, std: tuple[float, ...] = (127.5,) * 3
    ):
        super().__init__()
        self.pixels_in, self.network, self.pixels_out = PixelsIn(mean, std), network, PixelsOut(mean, std)

    def forward(self, image: UInt8[Tensor, "b r r c"]) -> UInt8[Tensor, "b r r c"]:
        """Pixels in, pixels out."""
        return self.pixels_out(self.network(self.pixels_in(image)))
