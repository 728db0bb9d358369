"""Triton kernels of a block's first half: depthwise convolution with the norm's sums, and the norm inside the product.

A norm over channels and positions together needs a sample's whole mean before its first value can be used, so that one
kernel cannot do all. The first writes what the convolution makes, with count, mean and squared deviations of each tile
(Chan et al., 1979: combined without cancellation); the second combines them, and normalises while it loads.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Pixels of one input channel that a program convolves, and how many output channels that makes.
PIXELS, MULTIPLIER, KERNEL = 1024, 4, 7
NONE, GELU, RELU, HARDSWISH, FASTSWISH = range(5)
CODES = {"gelu": GELU, "relu": RELU, "hardswish": HARDSWISH, "fastswish": FASTSWISH}


@triton.jit
def _depthwise(
    x, weight, bias, y, parts, channels, height, width,
    PIXELS: tl.constexpr, KERNEL: tl.constexpr,
):  # fmt: skip
    """One sample's one channel, PIXELS positions, four output channels."""
    tile, channel, sample = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    area = height * width
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    row, column = pixel // width, pixel % width
    inside = pixel < area
    plane = x + (sample * channels + channel).to(tl.int64) * area
    first = weight + channel * 4 * KERNEL * KERNEL
    a0 = tl.zeros([PIXELS], tl.float32) + tl.load(bias + channel * 4).to(tl.float32)
    a1 = tl.zeros([PIXELS], tl.float32) + tl.load(bias + channel * 4 + 1).to(tl.float32)
    a2 = tl.zeros([PIXELS], tl.float32) + tl.load(bias + channel * 4 + 2).to(tl.float32)
    a3 = tl.zeros([PIXELS], tl.float32) + tl.load(bias + channel * 4 + 3).to(tl.float32)
    for across in range(KERNEL):  # a loop: all 49 taps written out would not fit in the cache of instructions
        r = row + (across - KERNEL // 2)
        in_row = inside & (r >= 0) & (r < height)
        for along in tl.static_range(KERNEL):
            c = column + (along - KERNEL // 2)
            value = tl.load(plane + r * width + c, mask=in_row & (c >= 0) & (c < width), other=0.0).to(tl.float32)
            taps = first + across * KERNEL + along
            a0 += value * tl.load(taps).to(tl.float32)
            a1 += value * tl.load(taps + KERNEL * KERNEL).to(tl.float32)
            a2 += value * tl.load(taps + 2 * KERNEL * KERNEL).to(tl.float32)
            a3 += value * tl.load(taps + 3 * KERNEL * KERNEL).to(tl.float32)
    out = y + (sample * channels + channel).to(tl.int64) * 4 * area + pixel
    kind = y.dtype.element_ty
    # What is written is what is normalised, so that the sums are of the rounded values.
    a0, a1, a2, a3 = a0.to(kind), a1.to(kind), a2.to(kind), a3.to(kind)
    tl.store(out, a0, mask=inside)
    tl.store(out + area, a1, mask=inside)
    tl.store(out + 2 * area, a2, mask=inside)
    tl.store(out + 3 * area, a3, mask=inside)
    v0 = tl.where(inside, a0.to(tl.float32), 0.0)
    v1 = tl.where(inside, a1.to(tl.float32), 0.0)
    v2 = tl.where(inside, a2.to(tl.float32), 0.0)
    v3 = tl.where(inside, a3.to(tl.float32), 0.0)
    count = 4.0 * tl.minimum(PIXELS, area - tile * PIXELS)
    mean = tl.sum(v0 + v1 + v2 + v3) / count
    d0, d1, d2, d3 = v0 - mean, v1 - mean, v2 - mean, v3 - mean
    squares = tl.sum(tl.where(inside, d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3, 0.0))
    part = parts + ((sample * channels + channel) * tl.num_programs(0) + tile) * 3
    tl.store(part, count)
    tl.store(part + 1, mean)
    tl.store(part + 2, squares)


@triton.jit
def _activate(x, CODE: tl.constexpr):
    if CODE == 1:  # tanh by the exponential of a number that is not positive
        u = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # sqrt(8 / pi)
        return x / (1.0 + tl.exp(-u))
    elif CODE == 2:
        return tl.maximum(x, 0.0)
    elif CODE == 3:
        return x * tl.minimum(tl.maximum(x + 3.0, 0.0), 6.0) / 6.0
    elif CODE == 4:
        low = tl.minimum(x, -3.0)
        middle = x * (x + 3.2307692307692308) / 6.230769230769231
        return tl.where(x > 3.0, x, tl.where(x < -3.0, -1.0 / (low * low), middle))
    return x


@triton.jit
def _mix(
    y, parts, norm_weight, norm_bias, weight, bias, out, area, tiles, epsilon,
    WIDE: tl.constexpr, TILES: tl.constexpr, CODE: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """M output channels at N positions of one sample, over all WIDE input channels."""
    rows, pixels, sample = (
        tl.program_id(1) * M + tl.arange(0, M),
        tl.program_id(0) * N + tl.arange(0, N),
        tl.program_id(2),
    )
    each = tl.arange(0, TILES)
    part = parts + (sample * tiles + each) * 3
    counts = tl.load(part, mask=each < tiles, other=0.0)
    means = tl.load(part + 1, mask=each < tiles, other=0.0)
    squares = tl.load(part + 2, mask=each < tiles, other=0.0)
    total = tl.sum(counts)
    mean = tl.sum(counts * means) / total
    deviation = means - mean
    variance = tl.sum(squares + counts * deviation * deviation) / total
    inverse = 1.0 / tl.sqrt(variance + epsilon)
    inside = pixels < area
    start = y + sample.to(tl.int64) * WIDE * area
    kind = y.dtype.element_ty
    sums = tl.zeros([M, N], tl.float32)
    for k in range(0, WIDE, K):
        inner = k + tl.arange(0, K)
        at = inner[:, None] * area + pixels[None, :]
        value = tl.load(start + at, mask=inside[None, :], other=0.0).to(tl.float32)
        gain = tl.load(norm_weight + at, mask=inside[None, :], other=0.0).to(tl.float32)
        shift = tl.load(norm_bias + at, mask=inside[None, :], other=0.0).to(tl.float32)
        normed = ((value - mean) * inverse * gain + shift).to(kind)
        taps = tl.load(weight + rows[:, None] * WIDE + inner[None, :])
        sums = tl.dot(taps, normed, sums)
    sums += tl.load(bias + rows).to(tl.float32)[:, None]
    made = _activate(sums, CODE).to(kind)
    tl.store(
        out + sample.to(tl.int64) * WIDE * area + rows[:, None] * area + pixels[None, :], made, mask=inside[None, :]
    )


def depthwise_sums(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The launch of the first kernel: as `zoo.convnext.fused.depthwise_sums`."""
    batch, channels, height, width = x.shape
    tiles = triton.cdiv(height * width, PIXELS)
    y = torch.empty((batch, MULTIPLIER * channels, height, width), dtype=x.dtype, device=x.device)
    parts = torch.empty((batch, channels * tiles, 3), dtype=torch.float32, device=x.device)
    size = min(PIXELS, triton.next_power_of_2(height * width))
    if size < PIXELS:
        assert tiles == 1
    _depthwise[(tiles, channels, batch)](
        x, weight, bias, y, parts, channels, height, width, PIXELS=size, KERNEL=KERNEL, num_warps=4
    )  # fmt: skip
    return y, parts


def normed_mix(
    y: Tensor, parts: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor,
    activation: str, epsilon: float,
) -> Tensor:  # fmt: skip
    """The launch of the second kernel: as `zoo.convnext.fused.normed_mix`."""
    batch, wide, height, width = y.shape
    area, tiles = height * width, parts.shape[1]
    out = torch.empty_like(y)
    m = 128 if wide % 128 == 0 and batch * area >= 4096 else 64 if wide % 64 == 0 else 16
    n = 64 if area >= 64 else 32
    k = 64 if wide % 64 == 0 else 16
    grid = (triton.cdiv(area, n), wide // m, batch)
    _mix[grid](
        y, parts, norm_weight, norm_bias, weight, bias, out, area, tiles, epsilon,
        WIDE=wide, TILES=triton.next_power_of_2(tiles), CODE=CODES[activation], M=m, N=n, K=k,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
