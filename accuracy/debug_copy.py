"""A copy of a graph that shows what is inside: values marked as outputs, and values given from outside.

In the copy every FP16 operator computes in FP32 and its result is rounded. ONNX Runtime runs FP16 graphs as they are,
but on a CPU it has FP16 kernels for few operators, and between two without it passes FP32 on: an overflow that every
GPU would have does not happen there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.bf16 import compute_wide, rounded_name
from engines.fused_linear_body import statistics_of
from engines.fused_linear_node import STATISTICS
from engines.graph import sizes_of
from engines.lowering import load
from engines.proxy import beside
from runtime.onnxruntime_runner import OnnxRuntimeRunner

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_GIVEN = ".given"


def run_marked(
    path: Path, feed: Mapping[str, np.ndarray], marks: Collection[str], given: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """What the values `marks` of the graph are, in ONNX Runtime.

    With `given`, everything that reads one of these values reads the given array instead, in the value's own type: then
    each mark shows only the error that arose since the last given values. `path` is a graph that ONNX Runtime runs.
    """
    given = {**(given or {}), **_statistics(path, given or {})}
    with _copy(path, marks, given) as (copy, shown), OnnxRuntimeRunner(copy) as runner:
        outside = {f"{name}{_GIVEN}": array.astype(np.float32) for name, array in given.items()}
        arrays = runner.infer({**feed, **outside})
        return {name: arrays[shown[name]] for name in marks}


@contextmanager
def _copy(path: Path, marks: Collection[str], given: Mapping[str, np.ndarray]) -> Iterator[tuple[Path, dict[str, str]]]:
    """The copy's file, and what each mark is called in it."""
    model = load(path)
    compute_wide(model, ir.DataType.FLOAT16)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    for node in list(model.graph):
        for value in node.outputs:  # of a value that is rounded, the rounded one is meant
            values[str(value.name)] = values.get(rounded_name(value, node), value)
    for name, array in given.items():
        _give(model, name, values[name], array.shape)
    model.graph.outputs[:] = [values[name] for name in marks]
    with beside(path) as copy:
        ir.save(model, copy)
        yield copy, {mark: str(values[mark].name) for mark in marks}


def _statistics(path: Path, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What fused linear layers leave beside the given values, for the norms of the next ones: of those very values."""
    found = {}
    if given:
        values = {str(value.name): value for node in load(path).graph for value in node.outputs}
        for name, array in given.items():
            node = values[name].producer()
            while node is not None and node.op_type in ("Reshape", "Cast") and node.inputs[0] is not None:
                node = node.inputs[0].producer()
            beside = node.outputs[1] if node is not None and len(node.outputs) == 2 else None
            if beside is not None and str(beside.name).endswith(STATISTICS) and (sizes := sizes_of(beside)):
                _, rows, runs, _ = sizes
                assert rows and runs  # only the batch is ever unknown
                found[str(beside.name)] = statistics_of(array.reshape(len(array), rows, -1), runs)
    return found


def _give(model: ir.Model, name: str, value: ir.Value, shape: tuple[int, ...]) -> None:
    outside = ir.Value(name=f"{name}{_GIVEN}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    uses = list(value.uses())
    model.graph.inputs.append(outside)
    if value.dtype != ir.DataType.FLOAT and value.dtype is not None:
        cast = ir.node("Cast", [outside], {"to": int(value.dtype)}, name=f"{outside.name}/Cast")
        first = next(iter(model.graph))
        cast.outputs[0].name = f"{outside.name}.narrow"
        model.graph.insert_before(first, cast)
        outside = cast.outputs[0]
    for use in uses:
        use.node.replace_input_with(use.idx, outside)
