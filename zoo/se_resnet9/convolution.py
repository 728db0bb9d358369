"""Convolutions for inference as Triton kernels: what follows a convolution is done while its result is in registers.

A scalar that is added before zero padding is, after the convolution, a constant for each position and channel: smaller
at the border, where some taps see padding. `shift` `[positions,channels]` (FP32) holds these constants, so that the
borders are right and tensor cores read the input as it lies in memory. Matrices: x `[B*H*W,C]`, weights `[9C,O]` by
taps.
"""

# mypy: ignore-errors
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo.se_resnet9.kernels import gate_of
from zoo.se_resnet9.network import SIDE, STEP

TAPS = 9
_FULL = 132  # programs that fill an H100 or H200


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a program, inner step, warps, stages, and how many programs share a sum."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int
    split: int = 1


@triton.jit
def _accumulate(
    x, w, acc, rows, columns, begin, end, M, ROW: tl.constexpr, SIDE: tl.constexpr, C: tl.constexpr, OC: tl.constexpr,
    OUT: tl.constexpr, STRIDE: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """`acc` plus the products of steps `begin` to `end`; a step is `BK` channels of one tap."""
    image = rows // (OUT * OUT)
    top = (rows // OUT) % OUT * STRIDE - 1
    left = rows % OUT * STRIDE - 1
    k = tl.arange(0, BK)
    for step in range(begin, end):
        tap = step // (C // BK)
        y = top + tap // 3
        across = left + tap % 3
        inside = (rows < M) & (y >= 0) & (y < SIDE) & (across >= 0) & (across < SIDE)
        place = ((image * SIDE + y) * SIDE + across) * ROW + step % (C // BK) * BK
        a = tl.load(x + place[:, None] + k[None, :], mask=inside[:, None], other=0.0)
        b = tl.load(w + (step * BK + k)[:, None] * OC + columns[None, :])
        acc = tl.dot(a, b, acc)
    return acc


@triton.jit
def _convolve(
    x, w, shift, out, M, ROW: tl.constexpr, SIDE: tl.constexpr, C: tl.constexpr, OC: tl.constexpr, OUT: tl.constexpr,
    STRIDE: tl.constexpr, RELU: tl.constexpr, SHIFT: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    STEPS: tl.constexpr = 9 * C // BK // SPLIT
    begin = tl.program_id(2) * STEPS
    acc = tl.zeros((BM, BN), tl.float32)
    acc = _accumulate(x, w, acc, rows, columns, begin, begin + STEPS, M, ROW, SIDE, C, OC, OUT, STRIDE, BK)
    if SHIFT:
        acc += tl.load(shift + (rows % (OUT * OUT))[:, None] * OC + columns[None, :])
        acc = tl.where(columns[None, :] < RELU, tl.maximum(acc, 0), acc)
    at = out + (tl.program_id(2) * M + rows)[:, None] * OC + columns[None, :]
    tl.store(at, acc.to(out.dtype.element_ty), mask=(rows < M)[:, None])


@triton.jit
def _stem(x, w, out, M, CHANNELS: tl.constexpr, OC: tl.constexpr, K: tl.constexpr, BM: tl.constexpr):
    """Space to depth, 1x1 convolution and ReLU, from pixels `[B,C,64,64]`."""
    OUT: tl.constexpr = 16
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    k = tl.arange(0, K)
    columns = tl.arange(0, OC)
    c = k % CHANNELS
    i = k // CHANNELS // 4
    j = k // CHANNELS % 4
    corner = rows // (OUT * OUT) * (CHANNELS * 4096) + (rows // OUT) % OUT * 256 + rows % OUT * 4
    place = corner[:, None] + (c * 4096 + i * 64 + j)[None, :]
    known = k < 16 * CHANNELS
    a = tl.load(x + place, mask=(rows < M)[:, None] & known[None, :], other=0.0)
    b = tl.load(w + k[:, None] * OC + columns[None, :], mask=known[:, None], other=0.0)
    y = tl.maximum(tl.dot(a, b), 0)
    tl.store(out + rows[:, None] * OC + columns[None, :], y.to(out.dtype.element_ty), mask=(rows < M)[:, None])


@triton.jit
def _merge(
    z, shift, identity, out, w1, c1, w2, c2, M, HW: tl.constexpr, C: tl.constexpr, R: tl.constexpr, ROW: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    """relu(o * gate(o) + identity) of one image, o the sum of `PARTS` partial sums and the shift."""
    at = tl.arange(0, HW)[:, None] * C + tl.arange(0, C)[None, :]
    rows = tl.program_id(0) * HW + tl.arange(0, HW)
    o = tl.load(shift + at)
    for part in tl.static_range(PARTS):
        o += tl.load(z + (part * M + rows)[:, None] * C + tl.arange(0, C)[None, :]).to(tl.float32)
    _mean, _hidden, gate, _squeeze, _excite = gate_of(o, w1, c1, w2, c2, HW, C, R)
    x = tl.load(identity + rows[:, None] * ROW + tl.arange(0, C)[None, :]).to(tl.float32)
    y = tl.maximum(o * gate[None, :] + x, 0)
    tl.store(out + rows[:, None] * C + tl.arange(0, C)[None, :], y.to(out.dtype.element_ty))


@triton.jit
def _convolve_merge(
    x, w, shift, identity, out, w1, c1, w2, c2, M, OUT: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    IN_ROW: tl.constexpr, ROW: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The second convolution of a block and all after it, an image a program."""
    HW: tl.constexpr = OUT * OUT
    rows = tl.program_id(0) * HW + tl.arange(0, HW)
    c = tl.arange(0, C)
    o = tl.zeros((HW, C), tl.float32)
    o = _accumulate(x, w, o, rows, c, 0, 9 * C // BK, M, IN_ROW, OUT, C, C, OUT, 1, BK)
    o += tl.load(shift + tl.arange(0, HW)[:, None] * C + c[None, :])
    _mean, _hidden, gate, _squeeze, _excite = gate_of(o, w1, c1, w2, c2, HW, C, R)
    y = o * gate[None, :] + tl.load(identity + rows[:, None] * ROW + c[None, :]).to(tl.float32)
    tl.store(out + rows[:, None] * C + c[None, :], tl.maximum(y, 0).to(out.dtype.element_ty))


@triton.jit
def _shift_relu(z, shift, count, IMAGE: tl.constexpr, OC: tl.constexpr, RELU: tl.constexpr, BLOCK: tl.constexpr):
    """In place, after a convolution that was cuDNN's: add the shift, ReLU on the first `RELU` of `O` channels."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = tl.load(z + at, mask=inside, other=0.0).to(tl.float32) + tl.load(shift + at % IMAGE, mask=inside, other=0.0)
    tl.store(z + at, tl.where(at % OC < RELU, tl.maximum(x, 0), x).to(z.dtype.element_ty), mask=inside)


def tiles(rows: int, outputs: int, channels: int, may_split: bool, most: int = 2) -> list[Tile]:
    """Some tiles to measure, those first that fill the GPU best with the largest products."""
    found = []
    for high, broad, warps, stages in (
        (128, 128, 8, 3),
        (128, 64, 4, 4),
        (64, 128, 4, 4),
        (64, 64, 4, 5),
        (64, 32, 4, 5),
    ):
        if outputs % broad:
            continue
        programs = -(-rows // high) * (outputs // broad)
        steps = TAPS * channels // 64
        splits = [split for split in (1, 2, 3, 4, 6) if steps % split == 0 and (split == 1 or may_split)]
        split = min(splits, key=lambda each: (abs(programs * each - _FULL) / _FULL) + 0.1 * each)
        waves = programs * split / _FULL
        waste = -(-waves // 1) / waves if waves >= 1 else 1 / waves
        # A smaller tile reads more for each product.
        found.append((waste * (1 + 24 / high + 24 / broad), Tile(high, broad, 64, warps, stages, split)))
    return [tile for _, tile in sorted(found, key=lambda each: each[0])[:most]]


def convolve(
    x: Tensor, w: Tensor, shift: Tensor | None, out: Tensor, side: int, stride: int, relu: int, tile: Tile
) -> None:
    """3x3 with padding 1 of `x` `[B*side*side,C]`, whose rows may be longer than C, into `out`.

    With `shift` it is added, and the first `relu` channels pass a ReLU. Without, `out` is `[M,O]`, or FP32
    `[split,M,O]`, whose parts are to be summed.
    """
    channels, outputs, small = x.shape[1], w.shape[1], side // stride
    m = out.shape[-2]
    grid = (triton.cdiv(m, tile.rows), outputs // tile.columns, tile.split)
    assert shift is None or tile.split == 1
    _convolve[grid](
        x, w, w if shift is None else shift, out, m, ROW=x.stride(0), SIDE=side, C=channels, OC=outputs, OUT=small,
        STRIDE=stride, RELU=relu, SHIFT=shift is not None, SPLIT=tile.split, BM=tile.rows, BN=tile.columns,
        BK=min(tile.inner, channels), num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def stem(image: Tensor, w: Tensor, out: Tensor) -> None:
    """`image` `[B,C,64,64]` (contiguous) into `out` `[B*256,64]`; `w` is `[16C,64]`."""
    assert image.is_contiguous() and image.shape[2:] == (SIDE, SIDE) and STEP == 4
    inner = triton.next_power_of_2(len(w))
    rows = 128 if inner <= 64 else 64
    grid = (triton.cdiv(len(out), rows),)
    _stem[grid](image, w, out, len(out), CHANNELS=image.shape[1], OC=w.shape[1], K=inner, BM=rows, num_warps=4)


def merge(z: Tensor, shift: Tensor, identity: Tensor, out: Tensor, gate: tuple[Tensor, ...]) -> None:
    """`z` `[M,C]`, or partial sums `[parts,M,C]`; `identity` `[M,C]`, whose rows may be longer; into `out` `[M,C]`."""
    positions, channels = shift.shape
    warps = 8 if positions * channels >= 1 << 13 else 4
    _merge[(len(out) // positions,)](
        z, shift, identity, out, *gate, len(out), HW=positions, C=channels, R=channels // 16, ROW=identity.stride(0),
        PARTS=1 if z.dim() == 2 else len(z), num_warps=warps,
    )  # fmt: skip


def convolve_merge(
    x: Tensor, w: Tensor, shift: Tensor, identity: Tensor, out: Tensor, gate: tuple[Tensor, ...]
) -> None:
    """`convolve` with stride 1 and `merge` in one, for blocks whose image is a tile: up to 256 positions."""
    positions, channels = shift.shape
    side = round(positions**0.5)
    _convolve_merge[(len(out) // positions,)](
        x, w, shift, identity, out, *gate, len(out), OUT=side, C=channels, R=channels // 16, IN_ROW=x.stride(0),
        ROW=identity.stride(0), BK=64, num_warps=8 if positions > 64 else 4, num_stages=3,
    )  # fmt: skip


def shift_relu(z: Tensor, shift: Tensor, relu: int) -> None:
    """In place, `z` `[M,O]`."""
    grid = (triton.cdiv(z.numel(), 2048),)
    _shift_relu[grid](z, shift, z.numel(), IMAGE=shift.numel(), OC=shift.shape[1], RELU=relu, BLOCK=2048)


def parts(tile: Tile, m: int, outputs: int, like: Tensor) -> Tensor:
    """Where `convolve` without a shift writes to."""
    if tile.split == 1:
        return like.new_empty(m, outputs)
    return torch.empty(tile.split, m, outputs, dtype=torch.float32, device=like.device)
