"""Exact floating-point operations of one image through the network; a multiplication and an addition count as two."""

from __future__ import annotations

from dataclasses import dataclass

from cat2dog.config import Config


@dataclass(frozen=True)
class Flops:
    """Per image: matrix products with weights, and the two products of attention (QK^T and PV).

    Norms, softmax, GELU and RoPE are left out, as is usual for MFU: they are no work for the matrix units.
    """

    gemm: int
    attention: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.gemm + self.attention


def flops(config: Config) -> Flops:
    """FLOPs per image, exactly as `torch.utils.flop_counter` counts them."""
    width = config.width
    ends = 2 * config.patch_channels * width  # embed and head
    mlp = (3 if config.mlp == "swiglu" else 2) * width * config.hidden
    block = 4 * width**2 + mlp
    return Flops(
        gemm=2 * config.tokens * (ends + config.depth * block),
        attention=4 * config.tokens**2 * width * config.depth,
    )
