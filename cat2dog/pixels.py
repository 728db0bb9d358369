"""Between uint8 pictures and the network's floats: the one place that knows the constants.

The export wraps the network in these very steps, so a picture means the same in PyTorch and in an engine.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

HALF_RANGE = 127.5


def normalise(images: UInt8[Tensor, "b r r 3"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "b 3 r r"]:
    """0..255 to -1..1, and channels first."""
    return (images.to(dtype) / HALF_RANGE - 1).permute(0, 3, 1, 2)


def denormalise(images: Float[Tensor, "b 3 r r"]) -> UInt8[Tensor, "b r r 3"]:
    """-1..1 to 0..255, channels last. Values outside are clamped; halves round to even, as ONNX Round does."""
    # In FP32: FP16 holds 0..255 with steps of 1/8 only, which moves halves.
    pixels = (images.float().clamp(-1, 1) + 1) * HALF_RANGE
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1)
