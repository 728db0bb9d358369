"""Where a half-precision graph leaves its range: the first layer that does, and how large the number was.

A GPU rounds what every operator computes; what is over FP16's 65504 becomes infinite, and infinities become NaN in the
next norm or softmax. Here each operator computes in FP32 and the largest number is taken *before* it is rounded, so
that its true size is known. Needs ONNX Runtime only, so it can be asked before minutes are spent on an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from engines.bf16 import compute_wide
from engines.checkable import checkable
from engines.graph import new_node
from engines.lowering import load
from engines.proxy import saved_beside
from engines.validation import Validation
from runtime.errors import AccuracyError
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner

_NAMES = {ir.DataType.FLOAT16: "FP16", ir.DataType.BFLOAT16: "BF16"}
# The largest finite number of each, and the magnitude from which on rounding gives infinity: half a step more.
_LARGEST = {
    ir.DataType.FLOAT16: 65504.0,
    ir.DataType.BFLOAT16: float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
}
_INFINITE_FROM = {ir.DataType.FLOAT16: 65520.0, ir.DataType.BFLOAT16: _LARGEST[ir.DataType.BFLOAT16] * (1 + 2.0**-9)}


@dataclass(frozen=True)
class Overflow:
    """The first layer whose result does not fit: its node, operator, the largest finite magnitude before rounding.

    `not_a_number` where it made NaN without anything having been too large before it.
    """

    node: str
    op: str
    precision: str
    magnitude: float
    limit: float
    not_a_number: bool

    def __str__(self) -> str:
        if self.not_a_number:
            return f"{self.node} ({self.op}) makes NaN, of numbers up to {self.magnitude:.4g} in {self.precision}"
        return f"{self.node} ({self.op}) reaches {self.magnitude:.4g}, and {self.precision} ends at {self.limit:.5g}"


def check_range(lowered: Path, validation: Validation, what: str) -> tuple[str, ...]:
    """Run the first validation sample and refuse a graph that overflows and is wrong for it, before it is built.

    Returns a note where a layer overflows and the answer is still good enough. Raises AccuracyError, naming the layer
    and its magnitude; `what` is what then did not happen ("X.engine was not built").
    """
    feed = {name: np.repeat(array[:1], fixed_batch(lowered) or 1, axis=0) for name, array in validation.feed.items()}
    outputs, overflow = run_watched(lowered, feed)
    if overflow is None:
        return ()
    got = {name: outputs[name][:1] for name in validation.expected}
    (score,) = scores(validation.metric, got, {name: array[:1] for name, array in validation.expected.items()})
    if score >= validation.threshold:
        return (f"{overflow}; the first sample has {validation.metric} {score:.4g} nevertheless",)
    raise AccuracyError(
        f"{what}: {overflow}; the first sample has {validation.metric} {score:.3g}, expected at least "
        f"{validation.threshold:g}: keep that layer FP32 (`cat2dog accuracy --search` finds the fewest to keep and "
        "writes the policy) or take --precision bf16"
    )


def fixed_batch(path: Path) -> int | None:
    """The batch of a graph that takes no other, None where it takes any. Raises InputError as `load` does."""
    shapes = [value.shape for value in load(path).graph.inputs]
    return next((shape[0] for shape in shapes if shape is not None and len(shape) and isinstance(shape[0], int)), None)


@dataclass(frozen=True)
class _Watched:
    node: str
    op: str
    dtype: ir.DataType


def run_watched(lowered: Path, feed: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Overflow | None]:
    """The outputs of a lowered graph with every operator's result rounded, and the first layer that overflows, if any.

    `feed` is one sample or a batch that the graph takes. Infinities that the graph itself holds (masks) are none.
    Raises InputError for a file that is no ONNX or a feed that does not fit.
    """
    model = checkable(load(lowered))
    outputs = [str(value.name) for value in model.graph.outputs]
    watched = _watch(model)
    with saved_beside(model, lowered) as copy:
        # In the order of the file: else ONNX Runtime takes the numbers last, and keeps every value until then.
        with OnnxRuntimeRunner(copy, optimize=False) as runner:
            arrays = runner.infer(feed)
    return {name: arrays[name] for name in outputs}, _first(watched, arrays)


def _watch(model: ir.Model) -> list[_Watched]:
    """Make operators compute wide, and add two outputs for each narrow value: its largest number, and 1 for NaN."""
    found: list[tuple[ir.Node, ir.Value, ir.Node, ir.DataType]] = []
    for node in model.graph:
        for output in node.outputs:
            if output.dtype not in _NAMES:
                continue
            if node.domain == "" and node.op_type == "Cast":
                source = node.inputs[0]  # the end of an island: what is too large is so before the cast
                if source is not None and source.dtype == ir.DataType.FLOAT:
                    found.append((node, source, source.producer() or node, output.dtype))
            else:
                found.append((node, output, node, output.dtype))
    for dtype in _NAMES:
        compute_wide(model, dtype)  # from here on the outputs of what was found are FP32, before rounding
    watched = []
    for index, (node, value, layer, dtype) in enumerate(found):
        _add_numbers(model.graph, node, value, index)
        watched.append(_Watched(layer.name or layer.op_type, layer.op_type, dtype))
    return watched


def _add_numbers(graph: ir.Graph, node: ir.Node, value: ir.Value, index: int) -> None:
    """Right behind the node: what is reduced as soon as it is there need not be kept."""
    wide, truth = ir.DataType.FLOAT, ir.DataType.BOOL
    infinity, zero = _constant(graph, "watch.infinity", np.inf), _constant(graph, "watch.zero", 0.0)
    name = f"watch.{index}"
    size = new_node("Abs", [value], {}, f"{name}.abs", wide)
    finite = new_node("Less", [size.outputs[0], infinity], {}, f"{name}.finite", truth)  # false for NaN
    kept = new_node("Where", [finite.outputs[0], size.outputs[0], zero], {}, f"{name}.kept", wide)
    largest = new_node("ReduceMax", [kept.outputs[0]], {"keepdims": 0}, f"{name}.largest", wide)
    nan = new_node("IsNaN", [value], {}, f"{name}.is_nan", truth)
    number = new_node("Cast", [nan.outputs[0]], {"to": int(wide)}, f"{name}.number", wide)
    any_nan = new_node("ReduceMax", [number.outputs[0]], {"keepdims": 0}, f"{name}.nan", wide)
    graph.insert_after(node, [size, finite, kept, largest, nan, number, any_nan])
    for reduced in (largest, any_nan):
        reduced.outputs[0].shape = ir.Shape([])
        graph.outputs.append(reduced.outputs[0])


def _constant(graph: ir.Graph, name: str, number: float) -> ir.Value:
    if name not in graph.initializers:
        tensor = ir.Tensor(np.array(number, np.float32), name=name)
        graph.register_initializer(
            ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        )
    return graph.initializers[name]


def _first(watched: list[_Watched], arrays: Mapping[str, np.ndarray]) -> Overflow | None:
    for index, each in enumerate(watched):
        magnitude = float(arrays[f"watch.{index}.largest.out"])
        nan = bool(arrays[f"watch.{index}.nan.out"])
        if nan or magnitude >= _INFINITE_FROM[each.dtype]:
            limit = _LARGEST[each.dtype]
            too_large = magnitude >= _INFINITE_FROM[each.dtype]
            return Overflow(each.node, each.op, _NAMES[each.dtype], magnitude, limit, not_a_number=not too_large)
    return None
