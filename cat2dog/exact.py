"""The exact FP32 forward pass: plain attention, in blocks of queries so that the largest checkpoint fits in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cat2dog.checkpoint import load
from cat2dog.model import Cat2Dog
from cat2dog.pixels import denormalise, normalise
from runtime.errors import InputError

# Scores held at once: 2^26 FP32 numbers are 256 MiB, and softmax needs as much again.
_MAX_SCORES = 1 << 26


def plain_attention(
    q: Float[Tensor, "b h n d"], k: Float[Tensor, "b h n d"], v: Float[Tensor, "b h n d"]
) -> Float[Tensor, "b h n d"]:
    """softmax(QK^T / sqrt(d)) V, written out; rows of the score matrix are independent, so they go in blocks."""
    batch, heads, tokens, size = q.shape
    rows = max(1, _MAX_SCORES // (batch * heads * tokens))
    out = torch.empty_like(q)
    for start in range(0, tokens, rows):
        scores = q[:, :, start : start + rows] @ k.transpose(-1, -2) / math.sqrt(size)
        out[:, :, start : start + rows] = scores.softmax(dim=-1) @ v
    return out


def exact_images(
    folder: str | os.PathLike[str],
    images: list[UInt8[Tensor, "r r 3"]],
    done: Callable[[int, UInt8[Tensor, "r r 3"]], None],
    step: Callable[[int], None],
) -> None:
    """Run each image alone; `done(index, output)` as each is ready, `step(blocks)` after each block of each image."""
    model = load(folder)
    for index, image in enumerate(images):
        done(index, _exact_image(model, image, step))


@torch.inference_mode()
def _exact_image(model: Cat2Dog, image: UInt8[Tensor, "r r 3"], step: Callable[[int], None]) -> UInt8[Tensor, "r r 3"]:
    x = model.tokens(normalise(image[None]))
    for block in model.blocks:
        x = block(x, model.rope, plain_attention)
        step(1)
    picture = model.picture(x)
    if not torch.isfinite(picture).all():
        raise InputError(
            "the network's output is not finite in FP32: the weights hold NaN or infinite values, or overflow"
        )
    return denormalise(picture)[0]
