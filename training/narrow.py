"""A cat2dog network that computes in FP16 or BF16 in PyTorch, but for the FP32 islands that are asked for.

It follows what `export/policy.py` writes into a graph: linear layers, attention products and RoPE round every result to
the narrow type, and each island is a family that can be left out, to see what it is worth.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cat2dog.model import Cat2Dog, RMSNorm
from cat2dog.pixels import HALF_RANGE, denormalise, normalise
from runtime.errors import InputError

ISLANDS = ("pixels", "norms", "softmax", "residual")


class _WideNorm(nn.Module):
    def __init__(self, norm: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.norm, self.dtype = norm, dtype

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        return self.norm(x.float()).to(self.dtype)


class _NarrowNorm(nn.Module):
    """Every step of the norm rounded, as engines do where a norm is plain operators."""

    def __init__(self, norm: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.norm, self.dtype = norm.to(dtype), dtype

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        x = x.to(self.dtype)
        if isinstance(self.norm, nn.LayerNorm):
            x = x - x.mean(dim=-1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + self.norm.eps) * self.norm.weight
        return x + self.norm.bias if isinstance(self.norm, nn.LayerNorm) else x


class NarrowCat2Dog(nn.Module):
    """`model` (left as it is) in `dtype`, with the `islands` of ISLANDS in FP32. Raises InputError for another island.

    pixels: normalising the bytes, and the way back. norms: LayerNorm and RMSNorm with their gains. softmax: exp and its
    sum. residual: the stream and the additions to it.
    """

    def __init__(self, model: Cat2Dog, dtype: torch.dtype, islands: Collection[str]):
        super().__init__()
        unknown = [name for name in islands if name not in ISLANDS]
        if unknown:
            raise InputError(f"there is no island '{unknown[0]}': expected some of {', '.join(ISLANDS)}")
        self.dtype, self.islands = dtype, frozenset(islands)
        self.network = copy.deepcopy(model).to(dtype)
        make = _WideNorm if "norms" in islands else _NarrowNorm
        for name, module in model.named_modules():
            if isinstance(module, (nn.LayerNorm, RMSNorm)):
                self.network.set_submodule(name, make(copy.deepcopy(module), dtype))

    @torch.inference_mode()
    def forward(self, images: UInt8[Tensor, "b r r 3"]) -> UInt8[Tensor, "b r r 3"]:
        """Pictures to pictures, as the exported graph does it."""
        wide_pixels = "pixels" in self.islands
        x = self.network.tokens(normalise(images, torch.float32 if wide_pixels else self.dtype).to(self.dtype))
        if "residual" in self.islands:
            x = x.float()  # a wide stream stays wide: narrow branches are widened as they are added
        for block in self.network.blocks:
            x = block(x, self.network.rope, self._attend)
        dog = self.network.picture(x)
        if wide_pixels:
            return denormalise(dog)
        pixels = (dog.clamp(-1, 1) + 1) * HALF_RANGE
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 1)

    def _attend(
        self, q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
    ) -> Float[Tensor, "b h n d"]:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if "softmax" in self.islands:
            return logits.float().softmax(dim=-1).to(v.dtype) @ v
        powers = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
        return powers / powers.sum(dim=-1, keepdim=True) @ v
