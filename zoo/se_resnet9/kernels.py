"""The fused pieces as Triton kernels, with the signatures of `formulas`. Importing this needs Triton, and no GPU.

Tensors are channels-last, so that an image is a matrix of positions by channels. One program holds a whole image where
a mean over it is wanted: 16,384 numbers at most. Gradients of scalars are summed by program first, then by PyTorch, so
that they are the same bits each time.
"""

# mypy: ignore-errors
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
_MOST_ELEMENTS = (1 << 31) - _BLOCK
_MOST_IMAGE = 1 << 15


@triton.jit
def _shifted_relu(z, out, before, after, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = tl.load(z + at, mask=inside, other=0).to(tl.float32) + tl.load(before).to(tl.float32)
    tl.store(out + at, (tl.maximum(x, 0) + tl.load(after).to(tl.float32)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _shifted_relu_backward(g, z, g_z, before, sums, count, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    given = tl.load(g + at, mask=inside, other=0).to(tl.float32)
    x = tl.load(z + at, mask=inside, other=0).to(tl.float32) + tl.load(before).to(tl.float32)
    through = tl.where(x > 0, given, 0.0)
    tl.store(g_z + at, through.to(g_z.dtype.element_ty), mask=inside)
    tl.store(sums + program, tl.sum(through))
    tl.store(sums + tl.num_programs(0) + program, tl.sum(given))


@triton.jit
def _relu_pair(z, out, shifted, after, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    x = tl.maximum(tl.load(z + at, mask=inside, other=0).to(tl.float32), 0)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=inside)
    tl.store(shifted + at, (x + tl.load(after).to(tl.float32)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _relu_pair_backward(g, g_shifted, z, g_z, sums, count, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    second = tl.load(g_shifted + at, mask=inside, other=0).to(tl.float32)
    both = tl.load(g + at, mask=inside, other=0).to(tl.float32) + second
    x = tl.load(z + at, mask=inside, other=0).to(tl.float32)
    tl.store(g_z + at, tl.where(x > 0, both, 0.0).to(g_z.dtype.element_ty), mask=inside)
    tl.store(sums + program, tl.sum(second))


@triton.jit
def gate_of(o, w1, c1, w2, c2, HW: tl.constexpr, C: tl.constexpr, R: tl.constexpr):
    """Of an image `[HW,C]`: mean, hidden, gate and both weight matrices, all FP32."""
    c = tl.arange(0, C)
    r = tl.arange(0, R)
    mean = tl.sum(o, 0) / HW
    squeeze = tl.load(w1 + r[:, None] * C + c[None, :]).to(tl.float32)
    hidden = tl.maximum(tl.sum(squeeze * mean[None, :], 1) + tl.load(c1 + r).to(tl.float32), 0)
    excite = tl.load(w2 + c[:, None] * R + r[None, :]).to(tl.float32)
    x = tl.sum(excite * hidden[None, :], 1) + tl.load(c2 + c).to(tl.float32)
    return mean, hidden, 1 / (1 + tl.exp(-x)), squeeze, excite


@triton.jit
def _squeeze_merge(
    z, identity, out, scale, bias, w1, c1, w2, c2, after, HW: tl.constexpr, C: tl.constexpr, R: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64) * HW * C
    at = image + tl.arange(0, HW)[:, None] * C + tl.arange(0, C)[None, :]
    o = tl.load(z + at).to(tl.float32) * tl.load(scale).to(tl.float32) + tl.load(bias).to(tl.float32)
    _mean, _hidden, gate, _squeeze, _excite = gate_of(o, w1, c1, w2, c2, HW, C, R)
    y = tl.maximum(o * gate[None, :] + tl.load(identity + at).to(tl.float32), 0)
    tl.store(out + at, (y + tl.load(after).to(tl.float32)).to(out.dtype.element_ty))


@triton.jit
def _squeeze_merge_backward(
    g, z, identity, g_z, g_identity, excited_out, squeezed_out, mean_out, hidden_out, sums,
    scale, bias, w1, c1, w2, c2, HW: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    c = tl.arange(0, C)
    r = tl.arange(0, R)
    at = program.to(tl.int64) * HW * C + tl.arange(0, HW)[:, None] * C + c[None, :]
    times = tl.load(scale).to(tl.float32)
    x = tl.load(z + at).to(tl.float32)
    o = x * times + tl.load(bias).to(tl.float32)
    mean, hidden, gate, squeeze, excite = gate_of(o, w1, c1, w2, c2, HW, C, R)
    given = tl.load(g + at).to(tl.float32)
    through = tl.where(o * gate[None, :] + tl.load(identity + at).to(tl.float32) > 0, given, 0.0)
    tl.store(g_identity + at, through.to(g_identity.dtype.element_ty))
    excited = tl.sum(through * o, 0) * gate * (1 - gate)
    squeezed = tl.where(hidden > 0, tl.sum(excite * excited[:, None], 0), 0.0)
    back = tl.sum(squeeze * squeezed[:, None], 0) / HW
    g_o = through * gate[None, :] + back[None, :]
    tl.store(g_z + at, (g_o * times).to(g_z.dtype.element_ty))
    kind = g_z.dtype.element_ty
    tl.store(excited_out + program * C + c, excited.to(kind))
    tl.store(squeezed_out + program * R + r, squeezed.to(kind))
    tl.store(mean_out + program * C + c, mean.to(kind))
    tl.store(hidden_out + program * R + r, hidden.to(kind))
    programs = tl.num_programs(0)
    tl.store(sums + program, tl.sum(g_o * x))
    tl.store(sums + programs + program, tl.sum(g_o))
    tl.store(sums + 2 * programs + program, tl.sum(given))


def shifted_relu(z: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """See `formulas`."""
    z = _channels_last(z)
    out = torch.empty_like(z)
    _shifted_relu[_programs(z)](z, out, before, after, z.numel(), BLOCK=_BLOCK)
    return out


def shifted_relu_backward(g: Tensor, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas`."""
    g, z = _dense(g), _channels_last(z)
    g_z, sums = torch.empty_like(z), _sums(2, _programs(z)[0], z)
    _shifted_relu_backward[_programs(z)](g, z, g_z, before, sums, z.numel(), BLOCK=_BLOCK)
    return g_z, sums.sum(1)


def relu_pair(z: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas`."""
    z = _channels_last(z)
    out, shifted = torch.empty_like(z), torch.empty_like(z)
    _relu_pair[_programs(z)](z, out, shifted, after, z.numel(), BLOCK=_BLOCK)
    return out, shifted


def relu_pair_backward(g: Tensor, g_shifted: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """See `formulas`."""
    z = _channels_last(z)
    g_z, sums = torch.empty_like(z), _sums(1, _programs(z)[0], z)
    _relu_pair_backward[_programs(z)](_dense(g), _dense(g_shifted), z, g_z, sums, z.numel(), BLOCK=_BLOCK)
    return g_z, sums.sum(1)


def squeeze_merge(z, identity, scale, bias, w1, c1, w2, c2, after) -> Tensor:
    """See `formulas`."""
    z, identity = _channels_last(z), _channels_last(identity)
    out = torch.empty_like(z)
    weights = [each.contiguous() for each in (w1, c1, w2, c2)]
    _squeeze_merge[(len(z),)](z, identity, out, scale, bias, *weights, after, **_image(z))
    return out


def squeeze_merge_backward(g, z, identity, scale, bias, w1, c1, w2, c2) -> tuple[Tensor, ...]:
    """See `formulas`."""
    g, z, identity = _dense(g), _channels_last(z), _channels_last(identity)
    g_z, g_identity = torch.empty_like(z), torch.empty_like(identity)
    count, channels = z.shape[:2]
    small = [z.new_empty(count, size) for size in (channels, len(w1), channels, len(w1))]
    sums = _sums(3, count, z)
    weights = [each.contiguous() for each in (w1, c1, w2, c2)]
    shape = _image(z)
    shape["num_warps"] *= 2  # three images at once
    _squeeze_merge_backward[(count,)](g, z, identity, g_z, g_identity, *small, sums, scale, bias, *weights, **shape)
    return g_z, g_identity, *small, sums.sum(1)


def _channels_last(x: Tensor) -> Tensor:
    """Raises ValueError for what a kernel cannot take as it is."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(
            f"strides {list(x.stride())} are not channels-last: use x.to(memory_format=torch.channels_last)"
        )
    if x.numel() > _MOST_ELEMENTS:
        raise ValueError(f"{x.numel()} elements in a tensor; expected at most {_MOST_ELEMENTS}: split the batch")
    return x


def _dense(g: Tensor) -> Tensor:
    """Gradients come in any format, an expanded number among them."""
    return g.contiguous(memory_format=torch.channels_last)


def _programs(z: Tensor) -> tuple[int]:
    return (triton.cdiv(z.numel(), _BLOCK),)


def _sums(kinds: int, programs: int, z: Tensor) -> Tensor:
    return torch.empty(kinds, programs, dtype=torch.float32, device=z.device)


def _image(z: Tensor) -> dict[str, int]:
    """An image's sizes, and warps for it. Raises ValueError where it is no power of two or too large for a program."""
    _, channels, height, width = z.shape
    positions, hidden = height * width, channels // 16
    for size in (positions, channels, hidden):
        if size < 1 or size & (size - 1):
            raise ValueError(f"an image of {positions} positions and {channels} channels; expected powers of two")
    if positions * channels > _MOST_IMAGE:
        raise ValueError(f"an image of {positions * channels} numbers; expected at most {_MOST_IMAGE}")
    return {"HW": positions, "C": channels, "R": hidden, "num_warps": 8 if positions * channels >= 1 << 13 else 4}
