"""Runs the Triton kernels in Triton's interpreter, on a CPU, beside the operators' CPU code; exits 1 where they differ.

A process of its own: whether Triton interprets is decided when it is imported.
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from zoo.convnext import fused, fused_kernels


def check(activation: str, batch: int, channels: int, side: int) -> float:
    """The largest difference, relative to the largest value."""
    generator = torch.Generator().manual_seed(side)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    wide = 4 * channels
    x, weight, bias = drawn(batch, channels, side, side), drawn(wide, 1, 7, 7) * 0.2, drawn(wide) + 3
    y, parts = fused_kernels.depthwise_sums(x, weight, bias)
    wanted_y, wanted_parts = fused.depthwise_sums(x, weight, bias)
    assert torch.allclose(y, wanted_y, atol=1e-4), "the convolution differs"
    rest = (drawn(wide, side, side), drawn(wide, side, side), drawn(wide, wide, 1, 1) / wide**0.5, drawn(wide))
    got = fused_kernels.normed_mix(y, parts, *rest, activation, 1e-5)
    wanted = fused.normed_mix(wanted_y, wanted_parts, *rest, activation, 1e-5)
    return float((got - wanted).abs().max() / wanted.abs().max())


def main() -> int:
    for case in (("gelu", 2, 4, 7), ("fastswish", 1, 4, 33), ("relu", 1, 4, 6), ("hardswish", 1, 4, 5)):
        error = check(*case)
        print(*case, f"{error:.2e}")
        if not error < 1e-5:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
