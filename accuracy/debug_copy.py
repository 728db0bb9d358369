"""A copy of a graph that shows what is inside: values marked as outputs, and values given from outside."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.lowering import load
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
    given = given or {}
    with _copy(path, marks, given) as copy, OnnxRuntimeRunner(copy) as runner:
        outside = {f"{name}{_GIVEN}": array.astype(np.float32) for name, array in given.items()}
        return runner.infer({**feed, **outside})


@contextmanager
def _copy(path: Path, marks: Collection[str], given: Collection[str]) -> Iterator[Path]:
    model = load(path)
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name in given:
        _give(model, values[name])
    model.graph.outputs[:] = [values[name] for name in marks]
    # Beside the original, because it shares its external data by relative name.
    descriptor, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", suffix=".onnx", dir=path.parent)
    os.close(descriptor)
    try:
        ir.save(model, name)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _give(model: ir.Model, value: ir.Value) -> None:
    outside = ir.Value(name=f"{value.name}{_GIVEN}", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
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
