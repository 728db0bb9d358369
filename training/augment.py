"""More from each pair: flips and colours change cat and dog alike; noise and blur fall on the cat alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_BLUR = (0.25, 0.5, 0.25)


def augment(
    cats: Float[Tensor, "b 3 r r"], dogs: Float[Tensor, "b 3 r r"], generator: torch.Generator
) -> tuple[Float[Tensor, "b 3 r r"], Float[Tensor, "b 3 r r"]]:
    """Both in -1..1, and so is what is returned. `generator` is on the CPU, so that devices choose alike."""
    batch, device = len(cats), cats.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        draw = torch.rand((batch, channels, 1, 1), generator=generator) * (high - low) + low
        return draw.to(device, non_blocking=True)

    flip = uniform(0, 1) < 0.5
    cats, dogs = torch.where(flip, cats.flip(3), cats), torch.where(flip, dogs.flip(3), dogs)
    gain, grey_part = uniform(0.85, 1.15) * uniform(0.92, 1.08, 3), uniform(-0.3, 0.3)

    def recolour(pictures: Tensor) -> Tensor:
        light = (pictures + 1) / 2 * gain
        grey = light.mean(dim=1, keepdim=True)
        return (light + (grey - light) * grey_part).clamp(0, 1) * 2 - 1

    cats, dogs = recolour(cats), recolour(dogs)
    line = torch.tensor(_BLUR, device=device, dtype=cats.dtype)
    kernel = (line[:, None] * line[None, :]).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(cats, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    cats = torch.lerp(cats, blurred, uniform(-0.7, 1.0))
    # One normal number a pixel would cost more on the CPU than the network does on a GPU: seed the device's own.
    seed = int(torch.randint(1 << 62, (1,), generator=generator))
    noise = torch.randn(cats.shape, generator=torch.Generator(device).manual_seed(seed), device=device)
    return (cats + noise * uniform(0, 0.06).square().mul(12)).clamp(-1, 1), dogs
