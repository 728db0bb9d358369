"""What goes in: colours normalised by what was seen so far, depth in metres with ten bins."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

MOST_METRES = 10.0
BINS = 10
_LEAST_VARIANCE = 1e-2


class RunningNorm(nn.Module):
    """(x - mean) / sqrt(variance) by channel, of all batches seen in training mode; no gradient, nothing to learn.

    Batches join by Chan, Golub and LeVeque's rule. A variance under 0.01 counts as 0.01.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, channels: int):
        super().__init__()
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.zeros(1, channels, 1, 1))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """In training mode the batch is taken in first. Before any, with zeros and a variance of 0.01."""
        if self.training:
            self._take_in(x.detach())
        return (x - self.mean) / self.variance.clamp(min=_LEAST_VARIANCE).sqrt()

    def _take_in(self, x: Tensor) -> None:
        wide = x.float()
        count = torch.tensor(float(len(x)), device=x.device)
        mean = wide.mean((0, 2, 3), keepdim=True)
        variance = (wide - mean).square().mean((0, 2, 3), keepdim=True)
        total = self.count + count
        away = (self.mean - mean).square() * (self.count * count / total)
        self.variance.copy_((self.variance * self.count + variance * count + away) / total)
        self.mean.copy_((self.mean * self.count + mean * count) / total)
        self.count.copy_(total)


class ColourPixels(nn.Module):
    """uint8 colours `[B,3,H,W]` to normalised floats."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.norm = RunningNorm(3)

    def forward(self, image: Integer[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """0..255 become 0..1, then those of mean 0 and variance 1."""
        return self.norm(image * (1 / 255))


class DepthPixels(nn.Module):
    """Metres `[B,1,H,W]` to 11 channels: a tenth of the depth clamped to 0..10 m, and which whole metre it is in.

    10 m and more are in the last bin.
    """

    channels = 1 + BINS

    def forward(self, depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 11 h w"]:
        """Channel 0 in 0..1, channels 1 to 10 zeros but for a one."""
        near = depth.clamp(0, MOST_METRES)
        bins = torch.arange(BINS, device=depth.device)[None, :, None, None]
        hot = near.floor().clamp(max=BINS - 1) == bins
        return torch.cat([near / MOST_METRES, hot.to(depth.dtype)], 1)
