"""Follows numbers through nodes that move them or compute with each by itself: where each went, and what became of it.

Moving is done, not reasoned about: a tensor of the source's numbers in order goes through the same reshapes and
transposes, so whatever a graph writes between pixels and patches, it is known which pixel lies where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.graph import FLOATS, constant_array, constant_integers, integer_attribute
from engines.kernels.pixels_problem import Step

# Two samples, so that what mixes them shows.
SAMPLES = 2
_BINARY = {"Mul": "mul", "Add": "add", "Sub": "sub", "Div": "div", "Max": "max", "Min": "min"}
OPERATORS = (*_BINARY, "Clip", "Round", "Cast", "Identity", "Reshape", "Transpose")
_NARROW = {ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


@dataclass(frozen=True, eq=False)
class RawStep:
    """A step whose values are those of each number of the source, or one for all."""

    op: str
    values: np.ndarray | None = None


class Walk:
    """`where`: for each number of the tensor at hand, its place in the source, of `shape` and two samples.

    `batch` is how many samples the graph's own shapes say, None where that is not a number.
    """

    def __init__(self, shape: Sequence[int], batch: int | None):
        self.where = np.arange(SAMPLES * int(np.prod(shape)), dtype=np.int32).reshape(SAMPLES, *shape)
        self.steps: list[RawStep] = []
        self._batch = batch

    def take(self, node: ir.Node, value: ir.Value) -> bool:
        """Go from `value` through `node`, which reads it; False, and nothing changed, where that is something else."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS or len(node.outputs) != 1:
            return False
        if node.op_type in _BINARY:
            return self._binary(node, value)
        if node.inputs[0] is not value:
            return False
        if node.op_type in ("Reshape", "Transpose"):
            return self._moved(node)
        if node.op_type == "Clip":
            return self._clipped(node)
        if node.op_type == "Round":
            self.steps.append(RawStep("round"))
        return self._cast(value.dtype, node.outputs[0].dtype) if node.op_type == "Cast" else True

    def _binary(self, node: ir.Node, value: ir.Value) -> bool:
        if len(node.inputs) != 2 or value.dtype not in FLOATS or node.inputs[0] is node.inputs[1]:
            return False
        second = node.inputs[1] is not value
        array = constant_array(node.inputs[1 if second else 0])
        op = _BINARY[node.op_type]
        if not second and op in ("sub", "div"):
            op = {"sub": "rsub"}.get(op, "")
        if array is None or not op:
            return False
        return self._computed(op, array, value.dtype)

    def _clipped(self, node: ir.Node) -> bool:
        before = list(self.steps)
        for index, op in ((1, "max"), (2, "min")):
            if len(node.inputs) > index and node.inputs[index] is not None:
                array = constant_array(node.inputs[index])
                if array is None or array.size != 1 or not self._computed(op, array, None):
                    self.steps = before
                    return False
        return not node.attributes  # of opset 6 they are attributes

    def _computed(self, op: str, array: np.ndarray, dtype: ir.DataType | None) -> bool:
        try:
            spread = np.broadcast_to(array.astype(np.float32), self.where.shape)
        except ValueError:
            return False
        values = array.reshape(-1)[:1].astype(np.float32)
        if (array != array.reshape(-1)[0]).any():
            values = np.empty(self.where.size, np.float32)
            values[self.where.reshape(-1)] = spread.reshape(-1)
        self.steps.append(RawStep(op, values))
        # FP32 has more than twice the digits, so that computing in it and rounding is the operation of half precision.
        if dtype in _NARROW and op not in ("max", "min"):
            self.steps.append(RawStep(_NARROW[dtype]))
        return True

    def _cast(self, old: ir.DataType | None, new: ir.DataType | None) -> bool:
        if old not in (*FLOATS, ir.DataType.UINT8) or new not in FLOATS:
            return False
        if new in _NARROW and old != ir.DataType.UINT8 and old != new:
            self.steps.append(RawStep(_NARROW[new]))
        return True

    def _moved(self, node: ir.Node) -> bool:
        if node.op_type == "Transpose":
            order = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
            self.where = self.where.transpose(order)
            return True
        target = constant_integers(node.inputs[1]) if len(node.inputs) > 1 else None
        if not target or integer_attribute(node, "allowzero", 0):
            return False
        if target[0] == self._batch:
            target[0] = SAMPLES
        old = self.where.shape
        try:
            sizes = [old[axis] if size == 0 else size for axis, size in enumerate(target)]
            self.where = self.where.reshape(sizes)
        except (ValueError, IndexError):
            return False
        return True


def steps_of(raw: Sequence[RawStep], image: np.ndarray) -> tuple[Step, ...] | None:
    """The steps, their values by the channels of the image; None where they differ within a channel.

    `image` `[B,H,W,C]` says where in the source each of the image's numbers lies.
    """
    steps = []
    for each in raw:
        if each.values is None or each.values.size == 1:
            steps.append(Step(each.op, () if each.values is None else (float(each.values[0]),)))
            continue
        channels = each.values[image].reshape(-1, image.shape[-1])
        if not (channels == channels[0]).all():
            return None
        one = bool((channels[0] == channels[0][0]).all())
        steps.append(Step(each.op, tuple(float(value) for value in channels[0][: 1 if one else None])))
    return tuple(steps)
