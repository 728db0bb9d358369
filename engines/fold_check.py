"""Runs what was folded into a fused node against the nodes it stands for, in ONNX Runtime, while the graph is lowered.

Attention itself is not folded, so it is not run, and the cost does not grow with the square of the tokens: what is
compared is everything before it (from the tensors that the fused node reads to queries, keys and values, through split,
transposes, norm and RoPE) and everything after it (from heads to the output). The first node of each problem is
checked, and of the others, which differ in gains and tables, as many as a budget allows: all of a network of 256
tokens, two of one with 4096, which take a second each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.bf16 import compute_wide
from engines.fused_body import calling, heads_body, input_names, output_body
from engines.fused_node import PRECISIONS, main_inputs
from engines.graph import constant_array, sizes_of
from engines.kernels.problem import AttentionProblem
from runtime.errors import ToolchainError
from runtime.onnxruntime_runner import OnnxRuntimeRunner

_FLOAT = ir.DataType.FLOAT
# Rounding of one operation, relative, and the step of the smallest numbers.
_ROUNDING = {"fp16": (2.0**-11, 2.0**-24), "bf16": (2.0**-8, 0.0)}
# How many roundings the graph may be away from the kernel, which rounds once: norm, gain, two products and a sum.
_ROUNDINGS = 8


class FoldChecks:
    """Which nodes of a graph to check: one of each problem, then as many as `budget` allows, in numbers put through."""

    def __init__(self, budget: int = 1 << 25):
        self._left, self._seen = budget, set[AttentionProblem]()

    def wanted(self, problem: AttentionProblem) -> bool:
        """Whether to check the next node, which computes `problem`; asked once a node."""
        size = problem.batch[0] * (problem.queries + 2 * problem.keys) * problem.heads * problem.head_size
        if problem in self._seen and size > self._left:
            return False
        self._seen.add(problem)
        self._left -= size
        return True


def check_folds(
    node: ir.Node,
    fused: ir.Node,
    output: ir.Value,
    sources: Sequence[ir.Value],
    problem: AttentionProblem,
    model: ir.Model,
) -> None:
    """Compare `fused`, not yet read by anyone, with the nodes around `node` from `sources` to `output`.

    Raises ToolchainError, with the numbers, where they differ by more than rounding.
    """
    opset, main = model.opset_imports.get("", 17), main_inputs(problem)
    rng = np.random.default_rng(0)
    feed = {_name(source): _random(source, problem.batch[0], rng) for source in sources}
    parts = ("queries", "keys", "values")
    if [*fused.inputs] != [*node.inputs]:
        old = _run(_excerpt(model, sources, list(node.inputs), problem), feed)
        adapted = _run(_excerpt(model, sources, list(fused.inputs[:main]), problem), feed)
        extras = [array for value in fused.inputs[main:] if (array := constant_array(value)) is not None]
        names = input_names(problem)
        ranks = dict(zip(names, (array.ndim for array in (*adapted, *extras)), strict=True))
        body = calling(heads_body(problem, "Heads", opset), ranks, opset)
        new = _run(body, dict(zip(names, [*adapted, *extras], strict=True)))
        for part, expected, got in zip(parts, old, new, strict=True):
            _compare(node, part, expected, got, problem)
    if output is not node.outputs[0]:
        heads = _random(node.outputs[0], problem.batch[0], rng)
        (expected,) = _run(_excerpt(model, node.outputs, [output], problem), {_name(node.outputs[0]): heads})
        (got,) = _run(calling(output_body(problem, "Output", opset), {"answer": 4}, opset), {"answer": heads})
        # The output may be `[B,N,H,D]` of tokens first, which is `[B,N,H*D]` reshaped.
        _compare(node, "output", expected, got.reshape(expected.shape), problem)


def _name(value: ir.Value) -> str:
    return str(value.name)


def _random(value: ir.Value, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of small and large numbers, so that an epsilon counts, representable in the precision of `value`."""
    _, *rest = sizes_of(value) or []
    shape = (batch, *(int(size or 1) for size in rest))
    array = rng.standard_normal(shape, np.float32) * 10 ** rng.uniform(-3, 1, (*shape[:-1], 1)).astype(np.float32)
    assert value.dtype is not None
    return array.astype(value.dtype.numpy()).astype(np.float32)


def _excerpt(
    model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value | None], problem: AttentionProblem
) -> ir.Model:
    """The nodes between, as a graph of its own with FP32 inputs and outputs."""
    wanted = [value for value in outputs if value is not None]
    graph = ir.convenience.extract(model.graph, list(inputs), list(dict.fromkeys(wanted)))
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
    cut = ir.external_data.load_to_model(ir.Model(graph, ir_version=model.ir_version))
    if PRECISIONS[problem.precision] == ir.DataType.BFLOAT16:
        compute_wide(cut)
    return cut


def _cast(graph: ir.Graph, value: ir.Value, to: ir.DataType, suffix: str, first: bool = False) -> ir.Value:
    output = ir.Value(name=f"{value.name}.{suffix}", type=ir.TensorType(to), shape=value.shape)
    cast = ir.node("Cast", [value], {"to": int(to)}, outputs=[output], name=f"{value.name}.{suffix}")
    start = next(iter(graph), None) if first else None
    graph.append(cast) if start is None else graph.insert_before(start, cast)
    return output


def _run(model: ir.Model, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="cat2dog-fold-") as folder:
        path = Path(folder) / "part.onnx"
        ir.save(model, path)
        with OnnxRuntimeRunner(path) as runner:
            return list(runner.infer({spec.name: feed[spec.name] for spec in runner.inputs}).values())


def _compare(node: ir.Node, part: str, expected: np.ndarray, got: np.ndarray, problem: AttentionProblem) -> None:
    relative, smallest = _ROUNDING[problem.precision]
    what = f"{node.name}: the {part} of the fused attention node"
    if got.shape != expected.shape:
        raise ToolchainError(f"{what} have shape {got.shape}, the graph's {expected.shape}: build another --attention")
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    allowed = _ROUNDINGS * (relative * largest + smallest)
    off = np.abs(got - expected) - allowed
    if not np.isfinite(off).all() or off.max() > 0:
        place = tuple(int(index) for index in np.unravel_index(np.argmax(np.nan_to_num(off, nan=np.inf)), off.shape))
        bound = float(np.broadcast_to(allowed, off.shape)[place])
        raise ToolchainError(
            f"{what} are {got[place]:.6g} at {place} where the graph has {expected[place]:.6g}, expected within "
            f"{bound:.2g}: build with --attention decomposed, and report this graph"
        )
