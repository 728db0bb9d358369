"""Finds the ways of pixels in a graph: from a UINT8 image to patches of half precision, and from patches to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.fused_node import PRECISIONS
from engines.fused_pixels_walk import OPERATORS, SAMPLES, Walk, steps_of
from engines.graph import constant_array, made_by, only_reader, sizes_of
from engines.kernels.pixels_problem import ORDERS, PixelsProblem, Step, ends_grey
from engines.kernels.problem import Unsupported

_PRECISION_OF = {dtype: name for name, dtype in PRECISIONS.items()}
# What following an image may cost in memory: numbers of one sample.
_MOST_NUMBERS = 1 << 26


@dataclass(frozen=True, eq=False)
class Way:
    """From `source` to `end`, of which one is the image and one the patches; `problem` is of batch 1."""

    source: ir.Value
    end: ir.Value
    problem: PixelsProblem


def images_of(model: ir.Model) -> list[tuple[str, ir.Value]]:
    """The inputs and outputs of the graph that are UINT8 `[B, height, width, channels]`: `in` or `out`, and which."""
    found = [("in", value) for value in model.graph.inputs] + [("out", value) for value in model.graph.outputs]
    return [(way, value) for way, value in found if value.dtype == ir.DataType.UINT8 and _rest(value, 3)]


def way_in(image: ir.Value) -> Way:
    """As far as the image's pixels can be followed. Raises Unsupported where that leads to no patches."""
    shape = _shape_of(image)
    walk, value, best = Walk(shape, _fixed(image)), image, None
    while (node := only_reader(value)) is not None and walk.take(node, value):
        value = node.outputs[0]
        cut = _cut(walk.where, shape) if _precision(value) and walk.where.ndim == 3 else None
        steps = steps_of(walk.steps, _images(shape)) if cut is not None else None
        if cut is not None and steps is not None:
            best = Way(image, value, PixelsProblem("in", _precision(value), *shape, *cut, _rounded(steps, value)))
    if best is None:
        raise Unsupported(f"what is made of its pixels, up to {_reached(value, image)}, is no patches of FP16 or BF16")
    return best


def way_out(image: ir.Value) -> Way:
    """As far back as the image's pixels come from patches alone. Raises Unsupported where they do not."""
    shape = _shape_of(image)
    cast = made_by(image, "Cast")
    value = cast.inputs[0] if cast is not None else None
    if cast is None or value is None or image.uses():
        raise Unsupported("it is no cast of other numbers, or it is read again")
    nodes, best, reached = [cast], None, value
    while only_reader(value) is nodes[-1]:
        reached = value
        if _precision(value) and _rest(value, 2):
            best = _way_back(value, list(reversed(nodes)), shape, image) or best
        node = value.producer()
        if node is None or node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            break
        read = [each for each in node.inputs if each is not None and constant_array(each) is None]
        if len(read) != 1:
            break
        value = read[0]
        nodes.append(node)
    if best is None:
        where = _reached(reached, image)
        raise Unsupported(
            f"what its pixels are made of, from {where} on, is no patches of FP16 or BF16 rounded to 0..255"
        )
    return best


def _way_back(value: ir.Value, nodes: list[ir.Node], shape: tuple[int, int, int], image: ir.Value) -> Way | None:
    rest = _rest(value, 2)
    assert rest is not None
    source, walk = value, Walk(rest, _fixed(image))
    *between, last = nodes
    for node in between:
        if not walk.take(node, value):
            return None
        value = node.outputs[0]
    if walk.where.shape != (SAMPLES, *shape) or last.inputs[0] is not value:
        return None
    # Which pixel each number of the patches becomes.
    back = np.empty(walk.where.size, np.int32)
    back[walk.where.reshape(-1)] = np.arange(walk.where.size, dtype=np.int32)
    cut, steps = _cut(back.reshape(SAMPLES, *rest), shape), steps_of(walk.steps, walk.where)
    if cut is None or steps is None or not ends_grey(steps):
        return None
    return Way(source, image, PixelsProblem("out", _precision(source), *shape, *cut, steps))


def _cut(where: np.ndarray, shape: tuple[int, int, int]) -> tuple[int, int, str] | None:
    """Patch height, patch width and order of patches `where` of an image of `shape`; None where they are no patches."""
    height, width, channels = shape
    # The first patch begins in the first corner, and its last row and column tell its size.
    first = where[0, 0]
    if first.max() >= height * width * channels:
        return None
    tall, wide = int(first.max()) // (width * channels) + 1, int(first.max()) // channels % width + 1
    if height % tall or width % wide or first.size != tall * wide * channels:
        return None
    if where.shape != (SAMPLES, height // tall * (width // wide), first.size):
        return None
    grid = _images(shape).reshape(SAMPLES, height // tall, tall, width // wide, wide, channels)
    axes = {"p": 2, "q": 4, "c": 5}
    for order in ORDERS:
        if np.array_equal(where, grid.transpose(0, 1, 3, *(axes[axis] for axis in order)).reshape(where.shape)):
            return tall, wide, order
    return None


def _images(shape: tuple[int, int, int]) -> np.ndarray:
    """The places of an image's own numbers, `[samples, height, width, channels]`."""
    return np.arange(SAMPLES * int(np.prod(shape)), dtype=np.int32).reshape(SAMPLES, *shape)


def _rounded(steps: tuple[Step, ...], value: ir.Value) -> tuple[Step, ...]:
    """Without a last rounding to the type that the patches have anyway."""
    return steps[:-1] if steps and steps[-1] == Step(_precision(value)) else steps


def _precision(value: ir.Value) -> str:
    return _PRECISION_OF.get(value.dtype, "") if value.dtype is not None else ""


def _rest(value: ir.Value, rank: int) -> tuple[int, ...] | None:
    """The sizes behind the batch, `rank` of them, where all are known."""
    sizes = sizes_of(value)
    if sizes is None or len(sizes) != rank + 1 or any(size is None for size in sizes[1:]):
        return None
    return tuple(int(size or 0) for size in sizes[1:])


def _shape_of(image: ir.Value) -> tuple[int, int, int]:
    height, width, channels = _rest(image, 3) or (0, 0, 0)
    if not 0 < height * width * channels <= _MOST_NUMBERS:
        raise Unsupported(f"an image of {height} x {width} x {channels} numbers is not followed; of at most 2^26 it is")
    return height, width, channels


def _fixed(image: ir.Value) -> int | None:
    sizes = sizes_of(image)
    return sizes[0] if sizes else None


def _reached(value: ir.Value, image: ir.Value) -> str:
    return "there" if value is image else f"'{value.name}'"
