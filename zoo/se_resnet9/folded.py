"""The network for inference alone: scalars folded into weights and constants by position, and few, large kernels.

Folding is exact but for rounding. `conv1` and the pooled 1x1 convolution beside it become one convolution: an average
of 3x3 with padding and then 1x1 is 3x3 with every tap a ninth. It has 22 % more products, and two launches and a pass
over memory less. New weights go in by `refold`, in place: graphs that were captured see them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from runtime.errors import InputError
from zoo.se_resnet9.network import CHANNELS, SIDE, STEP, STRIDES, Block, SEResNet9

# Which of a block's convolutions are Triton kernels: none; all; all, and in the first two blocks, whose images are
# large enough for a tile, the second one together with what follows; the first two blocks so and cuDNN in the others.
FORMS = ("cudnn", "triton", "fused", "mixed")
_FUSED_POSITIONS = 64
_ROUNDS = 20


@dataclass
class _FoldedBlock:
    """Weights of one block; `shift` are FP32 `[positions,channels]`. `wide` is conv1's outputs and the identity's."""

    side: int
    stride: int
    outputs: int
    wide: int
    fused: bool
    triton: bool
    first: Tensor
    first_shift: Tensor
    second: Tensor
    second_shift: Tensor
    gate: tuple[Tensor, ...]


class Folded:
    """`network` in one of FORMS, for batches of `batch` on the GPU where the network is, in its type (FP16, BF16).

    Raises InputError for another form or type.
    """

    def __init__(self, network: SEResNet9, batch: int, form: str = "fused"):
        if form not in FORMS:
            raise InputError(f"there is no form '{form}'; expected one of {', '.join(FORMS)}")
        weight = network.stem.weight
        if weight.dtype not in (torch.float16, torch.bfloat16):
            raise InputError(f"weights are {weight.dtype}; kernels take float16 and bfloat16: network.half()")
        self.form, self.batch, self._network = form, batch, network
        self.stem = torch.empty(weight.shape[1], CHANNELS[0], dtype=weight.dtype, device=weight.device)
        self._blocks = [
            self._empty(block, *place) for block, place in zip(network.each_block(), _places(), strict=True)
        ]
        self.refold()
        rows = [batch * (SIDE // STEP) ** 2] + [batch * (each.side // each.stride) ** 2 for each in self._blocks]
        self._x = [self.stem.new_empty(m, c) for m, c in zip(rows, (CHANNELS[0], *CHANNELS), strict=True)]
        self._steps = [self._stem_step]
        for index, block in enumerate(self._blocks):
            self._steps += self._block_steps(block, self._x[index], self._x[index + 1])

    def __call__(self, image: Float[Tensor, "b c 64 64"]) -> Float[Tensor, "b 512 2 2"]:
        """Features, channels-last; the next call overwrites them."""
        if image.shape[0] != self.batch or image.dtype != self.stem.dtype:
            raise InputError(f"images are {image.dtype} {list(image.shape)}; expected {self.stem.dtype}, {self.batch}")
        self._image = image.contiguous()
        for step in self._steps:
            step()
        return self._x[-1].view(self.batch, 2, 2, CHANNELS[-1]).permute(0, 3, 1, 2)

    @torch.no_grad()
    def refold(self) -> None:
        """Take the network's weights as they are now."""
        self.stem.copy_(self._network.stem.weight.flatten(1).t())
        for block, folded in zip(self._network.each_block(), self._blocks, strict=True):
            weight = block.conv1.weight.float()
            inner = _constant(weight, block.b1a, folded.side, folded.stride) + block.b1b.float()
            if block.downsample is not None:
                pooled = (block.downsample.weight.float() / 9).expand(-1, -1, 3, 3)
                weight = torch.cat([weight, pooled])
                inner = torch.cat([inner, _constant(pooled, block.b1a, folded.side, folded.stride)], 1)
            second = block.conv2.weight.float()
            outer = _constant(second, block.b2a, folded.side // folded.stride, 1)
            folded.first.copy_(_arranged(weight, folded.first))
            folded.first_shift.copy_(inner)
            folded.second.copy_(_arranged(second * block.scale.float(), folded.second))
            folded.second_shift.copy_(outer * block.scale.float() + block.b2b.float())
            for mine, theirs in zip(folded.gate, _gate(block), strict=True):
                mine.copy_(theirs)

    def _empty(self, block: Block, side: int, stride: int) -> _FoldedBlock:
        inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
        wide = outputs if block.downsample is None else 2 * outputs
        positions = (side // stride) ** 2
        fused = self.form in ("fused", "mixed") and positions >= _FUSED_POSITIONS
        of_triton = fused or self.form in ("triton", "fused")
        like = self.stem

        def constant(channels: int) -> Tensor:
            return torch.empty(positions, channels, dtype=torch.float32, device=like.device)

        def weight(o: int, i: int) -> Tensor:
            if of_triton:
                return like.new_empty(9 * i, o)
            return like.new_empty(o, i, 3, 3).to(memory_format=torch.channels_last)

        return _FoldedBlock(
            side, stride, outputs, wide, fused, of_triton, weight(wide, inputs), constant(wide),
            weight(outputs, outputs), constant(outputs), tuple(torch.empty_like(each) for each in _gate(block)),
        )  # fmt: skip

    def _stem_step(self) -> None:
        from zoo.se_resnet9 import convolution

        convolution.stem(self._image, self.stem, self._x[0])

    def _block_steps(self, block: _FoldedBlock, x: Tensor, out: Tensor) -> list[Callable[[], None]]:
        from zoo.se_resnet9 import convolution

        middle = self.stem.new_empty(len(out), block.wide)
        identity = x if block.stride == 1 else middle[:, block.outputs :]
        inner = middle[:, : block.outputs]
        if not block.triton:
            return self._cudnn_steps(block, x, identity, out)

        def first(tile: convolution.Tile) -> None:
            convolution.convolve(
                x, block.first, block.first_shift, middle, block.side, block.stride, block.outputs, tile
            )

        chosen = fastest(first, convolution.tiles(len(out), block.wide, x.shape[1], may_split=False), x)
        steps: list[Callable[[], None]] = [lambda: first(chosen)]
        if block.fused:
            return [
                *steps,
                lambda: convolution.convolve_merge(inner, block.second, block.second_shift, identity, out, block.gate),
            ]
        candidates = convolution.tiles(len(out), block.outputs, block.outputs, may_split=True)
        sums = {tile: convolution.parts(tile, len(out), block.outputs, self.stem) for tile in candidates}
        small = block.side // block.stride

        def second(tile: convolution.Tile) -> None:
            convolution.convolve(inner, block.second, None, sums[tile], small, 1, 0, tile)
            convolution.merge(sums[tile], block.second_shift, identity, out, block.gate)

        best = fastest(second, candidates, x)
        return [*steps, lambda: second(best)]

    def _cudnn_steps(self, block: _FoldedBlock, x: Tensor, identity: Tensor, out: Tensor) -> list[Callable[[], None]]:
        from zoo.se_resnet9 import convolution

        small = block.side // block.stride

        def image(rows: Tensor, side: int) -> Tensor:
            return rows.view(self.batch, side, side, rows.shape[1]).permute(0, 3, 1, 2)

        def both() -> None:
            first = functional.conv2d(image(x, block.side), block.first, stride=block.stride, padding=1)
            flat = first.permute(0, 2, 3, 1).reshape(len(out), block.wide)
            convolution.shift_relu(flat, block.first_shift, block.outputs)
            stream = x if block.stride == 1 else flat[:, block.outputs :]
            inner = flat[:, : block.outputs].view(self.batch, small, small, block.outputs).permute(0, 3, 1, 2)
            second = functional.conv2d(inner, block.second, padding=1)
            rows = second.permute(0, 2, 3, 1).reshape(len(out), block.outputs)
            convolution.merge(rows, block.second_shift, stream, out, block.gate)

        return [both]


def fastest(work: Callable[..., None], candidates: list, like: Tensor):
    """The candidate whose `work` takes the least time, measured on the GPU; elsewhere the first."""
    if not like.is_cuda or len(candidates) == 1:
        return candidates[0]
    times = []
    for candidate in candidates:
        for _ in range(3):
            work(candidate)
        # In a graph, as it will run: else it is launches that are measured.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(_ROUNDS):
                work(candidate)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return candidates[times.index(min(times))]


def _places() -> list[tuple[int, int]]:
    """Side and stride of each block's input."""
    side, places = SIDE // STEP, []
    for stride in STRIDES:
        places.append((side, stride))
        side //= stride
    return places


def _constant(weight: Tensor, scalar: Tensor, side: int, stride: int) -> Tensor:
    """What a scalar before the convolution's padding is after it: FP32 `[positions,channels]`."""
    image = scalar.float().expand(1, weight.shape[1], side, side)
    # cuDNN would do this in TF32.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return functional.conv2d(image, weight.float(), stride=stride, padding=1)[0].flatten(1).t()


def _arranged(weight: Tensor, like: Tensor) -> Tensor:
    """As Triton's kernels take it, `[9C,O]`, or as cuDNN does."""
    return weight if like.dim() == 4 else weight.permute(2, 3, 1, 0).reshape(like.shape)


def _gate(block: Block) -> tuple[Tensor, ...]:
    squeeze, excite = block.se.squeeze, block.se.excite
    return squeeze.weight, squeeze.bias, excite.weight, excite.bias
