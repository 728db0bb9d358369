"""A part of a graph by itself, run in ONNX Runtime: how what was folded is compared with the nodes it stands for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.bf16 import compute_wide
from engines.graph import sizes_of
from runtime.onnxruntime_runner import OnnxRuntimeRunner

_FLOAT = ir.DataType.FLOAT


def cut(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    """The nodes between, as a model of its own; constants stay in the file they lie in. Raises ValueError where the
    outputs need more than the inputs.
    """
    graph = ir.convenience.extract(model.graph, list(inputs), list(dict.fromkeys(outputs)))
    return ir.Model(graph, ir_version=model.ir_version)


def excerpt(
    model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value | None], precision: ir.DataType
) -> ir.Model:
    """The nodes between, as a graph of its own with FP32 inputs and outputs; in BF16 computed in FP32 between casts."""
    wanted = [value for value in outputs if value is not None]
    graph = cut(model, inputs, wanted).graph
    by_name = {value.name: value for value in graph.outputs}
    every = [by_name[value.name] for value in wanted]  # one tensor may be queries and keys at once
    graph.outputs.clear()
    graph.outputs.extend(_cast(graph, value, _FLOAT, f"{index}.wide") for index, value in enumerate(every))
    for index, value in enumerate(list(graph.inputs)):
        assert value.dtype is not None
        wide = ir.Value(name=value.name, type=ir.TensorType(_FLOAT), shape=value.shape)
        uses = list(value.uses())
        narrow = _cast(graph, wide, value.dtype, f"{index}.narrow", first=True)
        for use in uses:
            use.node.replace_input_with(use.idx, narrow)
        value.name = f"{value.name}.replaced"
        graph.inputs[index] = wide
    part = ir.external_data.load_to_model(ir.Model(graph, ir_version=model.ir_version))
    if precision == ir.DataType.BFLOAT16:
        compute_wide(part)
    return part


def _cast(graph: ir.Graph, value: ir.Value, to: ir.DataType, suffix: str, first: bool = False) -> ir.Value:
    output = ir.Value(name=f"{value.name}.{suffix}", type=ir.TensorType(to), shape=value.shape)
    cast = ir.node("Cast", [value], {"to": int(to)}, outputs=[output], name=f"{value.name}.{suffix}")
    start = next(iter(graph), None) if first else None
    graph.append(cast) if start is None else graph.insert_before(start, cast)
    return output


def run_once(model: ir.Model, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model` in ONNX Runtime, in order; of `feed`, what it takes."""
    with tempfile.TemporaryDirectory(prefix="cat2dog-fold-") as folder:
        path = Path(folder) / "part.onnx"
        ir.save(model, path)
        with OnnxRuntimeRunner(path) as runner:
            return list(runner.infer({spec.name: feed[spec.name] for spec in runner.inputs}).values())


def name_of(value: ir.Value) -> str:
    """The name that an excerpt takes the value by."""
    return str(value.name)


def random_rows(value: ir.Value, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of small and large numbers, so that an epsilon counts, representable in the precision of `value`; FP32."""
    _, *rest = sizes_of(value) or []
    shape = (batch, *(int(size or 1) for size in rest))
    array = rng.standard_normal(shape, np.float32) * 10 ** rng.uniform(-3, 1, (*shape[:-1], 1)).astype(np.float32)
    assert value.dtype is not None
    return array.astype(value.dtype.numpy()).astype(np.float32)
