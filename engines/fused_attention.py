"""The form `plugin`: an attention node and the norm, RoPE and transposes around it become one fused kernel's node."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from engines.batch import BatchProfile
from engines.constants import constant
from engines.fold_check import FoldChecks, check_folds
from engines.fold_layout import Layout, Operand, find_layout, find_output, turned, write_inputs, write_output
from engines.fold_norm import match_norm
from engines.fold_rope import Rope, match_rope
from engines.fused_body import DOMAIN, PRECISIONS
from engines.fused_node import OP_TYPE, attributes_of
from engines.graph import graph_of, in_precision, remove_unread, sizes_of
from engines.kernels.problem import AttentionProblem, FusedKernel, Planner, Unsupported

_PRECISION_OF = {dtype: name for name, dtype in PRECISIONS.items()}
_HEAD_SIZES = range(32, 129)


@dataclass(frozen=True, eq=False)
class Folded:
    """Where queries and keys come from, which gains and tables the kernel takes, and what was not folded and why."""

    query: Operand
    key: Operand
    gains: tuple[np.ndarray, np.ndarray] | None = None
    epsilon: float | None = None
    rope: Rope | None = None
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fused:
    """The kernel that a node was given, and what was folded into it."""

    kernel: FusedKernel
    why: str


@dataclass(frozen=True)
class FusedLowering:
    """Lowers attention nodes to kernels of `planner`, for graphs whose batch is `batch`, called `symbols` in shapes."""

    planner: Planner
    batch: BatchProfile
    symbols: Collection[str] = ()
    checks: FoldChecks = field(default_factory=FoldChecks)

    def lower(self, node: ir.Node, model: ir.Model) -> Fused:
        """Replace the node, in place. Raises Unsupported, the graph unchanged, where no kernel covers it.

        Raises ToolchainError where what was folded does not compute what the graph computed.
        """
        problem = self._problem(node)
        dtype = PRECISIONS[problem.precision]
        folded = fold(node, problem, dtype)
        value = Operand(_input(node, 2))
        value = _narrow(turned(value, dtype), dtype) or value
        layout = find_layout(folded.query, folded.key, value)
        output, tokens = find_output(node)
        problem = replace(
            problem,
            layout=layout.name,
            output="tokens" if tokens else "heads",
            qk_norm=folded.epsilon,
            rope=folded.rope is not None,
        )
        kernel = self.planner(problem)
        fused = _written(node, model, problem, kernel, layout, folded)
        if self.checks.wanted(problem):
            check_folds(node, fused, output, layout.sources, problem, model)
        _take_over(write_output(fused, output, tokens, model), node, output)
        return Fused(kernel, _why(problem, kernel, folded))

    def _problem(self, node: ir.Node) -> AttentionProblem:
        """The node by itself, every tensor in heads. Raises Unsupported."""
        if node.op_type != "Attention":
            raise Unsupported(f"{node.op_type} has no fused kernel")
        query, key, value = (_input(node, index) for index in range(3))
        if query.dtype not in _PRECISION_OF or {key.dtype, value.dtype} != {query.dtype}:
            raise Unsupported("attention that is not of FP16 or BF16 has no fused kernel")
        shapes = [sizes_of(tensor) for tensor in (query, key, value)]
        if any(shape is None or len(shape) != 4 or None in shape[1:] for shape in shapes):
            raise Unsupported("heads, tokens or head size are not known when the engine is built")
        (_, heads, queries, size), (_, key_heads, keys, _), (_, value_heads, _, value_size) = shapes  # type: ignore[misc]
        if value_size != size:
            raise Unsupported(f"head sizes of queries and values differ ({size} and {value_size})")
        if {key_heads, value_heads} != {heads}:
            raise Unsupported(f"{heads} heads of queries and {key_heads} of keys have no fused kernel")
        assert heads is not None and queries is not None and keys is not None and size is not None
        if size not in _HEAD_SIZES:
            raise Unsupported(f"head size {size} is outside {_HEAD_SIZES[0]}..{_HEAD_SIZES[-1]}")
        return AttentionProblem(
            precision=_PRECISION_OF[ir.DataType(query.dtype)],
            heads=heads,
            head_size=size,
            queries=queries,
            keys=keys,
            scale=float(np.float32(node.attributes["scale"].as_float())),
            batch=self._batch(query),
            layout="heads",
            output="heads",
        )

    def _batch(self, query: ir.Value) -> tuple[int, int, int]:
        """(least, tuned, most) of the first axis: a number, the graph's batch, or a multiple of it (windows)."""
        first = query.shape[0] if query.shape is not None else None
        if isinstance(first, int):
            return first, first, first
        text = str(getattr(first, "value", first)).replace(" ", "")
        match = re.fullmatch(r"(?:(\d+)\*)?([^*\d][^*]*)(?:\*(\d+))?", text)
        if match is None or match[2] not in self.symbols:
            raise Unsupported("the batch of the attention is not known when the engine is built")
        factor = int(match[1] or 1) * int(match[3] or 1)
        return factor * self.batch.least, factor * self.batch.tuned, factor * self.batch.most


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Unsupported(f"the node lacks input {index}")
    return value


def fold(node: ir.Node, problem: AttentionProblem, dtype: ir.DataType) -> Folded:
    """Follow queries and keys back through RoPE and norm, as far as both have the same and come from `dtype`."""
    folded = best = Folded(Operand(_input(node, 0)), Operand(_input(node, 1)))
    for step in (_turned, _without_rope, _turned, _without_norm, _turned):
        folded = step(folded, problem, dtype)
        query, key = _narrow(folded.query, dtype), _narrow(folded.key, dtype)
        if query is not None and key is not None:
            best = replace(folded, query=query, key=key)
    if best.rope is not folded.rope or best.gains is not folded.gains:
        wide = f"what is computed from other types than {problem.precision.upper()}"
        best = replace(best, missed=(*folded.missed, wide))
    return best


def _narrow(operand: Operand, dtype: ir.DataType) -> Operand | None:
    """The operand as a tensor of the precision, before it is widened; None where it never was."""
    value = in_precision(operand.value, dtype)
    return None if value is None else replace(operand, value=value)


def _turned(folded: Folded, problem: AttentionProblem, dtype: ir.DataType) -> Folded:
    return replace(folded, query=turned(folded.query, dtype), key=turned(folded.key, dtype))


def _without_rope(folded: Folded, problem: AttentionProblem, dtype: ir.DataType) -> Folded:
    query, key = (
        match_rope(operand.value, (tokens, problem.head_size), operand.tokens_first, dtype)
        for operand, tokens in ((folded.query, problem.queries), (folded.key, problem.keys))
    )
    if query is None or key is None or not query.same_tables(key):
        return _missed(folded, "RoPE", query, key, "its tables")
    return replace(_moved(folded, query.source, key.source), rope=query)


def _without_norm(folded: Folded, problem: AttentionProblem, dtype: ir.DataType) -> Folded:
    query, key = (match_norm(operand.value, problem.head_size, dtype) for operand in (folded.query, folded.key))
    if query is None or key is None or query.epsilon != key.epsilon:
        return _missed(folded, "RMSNorm", query, key, "its epsilon")
    gains = (query.gain, key.gain)
    return replace(_moved(folded, query.source, key.source), gains=gains, epsilon=float(np.float32(query.epsilon)))


def _moved(folded: Folded, query: ir.Value, key: ir.Value) -> Folded:
    return replace(folded, query=replace(folded.query, value=query), key=replace(folded.key, value=key))


def _missed(folded: Folded, what: str, query: object, key: object, where: str) -> Folded:
    """Note why two matches, of queries and of keys, are not one."""
    if query is None and key is None:
        return folded
    only = "of keys only" if query is None else "of queries only" if key is None else ""
    return replace(folded, missed=(*folded.missed, f"{what} ({only or f'queries and keys differ in {where}'})"))


def _written(
    node: ir.Node, model: ir.Model, problem: AttentionProblem, kernel: FusedKernel, layout: Layout, folded: Folded
) -> ir.Node:
    """The fused node before the old one, read by nobody yet."""
    inputs = write_inputs(layout, node, model)
    for name, array in _arrays(folded):
        # Named after its content, so that one initializer serves every node that has the same.
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        shape = "x".join(str(size) for size in array.shape)
        inputs.append(constant(model, f"cat2dog.{name}_{shape}_{digest}", array, ir.DataType.FLOAT))
    attributes = attributes_of(problem, kernel, DOMAIN)
    output = ir.Value(name=f"{node.name}.fused")
    fused = ir.Node(DOMAIN, OP_TYPE, inputs, attributes, outputs=[output], name=node.name)
    graph_of(node).insert_before(node, fused)
    return fused


def _arrays(folded: Folded) -> list[tuple[str, np.ndarray]]:
    """Gains and tables, in the order of `AttentionProblem`."""
    arrays = [] if folded.gains is None else [("gain", gain) for gain in folded.gains]
    return arrays + ([] if folded.rope is None else [("cos", folded.rope.cos), ("sin", folded.rope.sin)])


def _take_over(new: ir.Value, node: ir.Node, output: ir.Value) -> None:
    """Give `new` the name and the readers of `output`, and remove what nothing reads any more."""
    output.replace_all_uses_with(new, replace_graph_outputs=True)
    name, output.name = output.name, f"{output.name}.unfused"
    remove_unread([output, *node.outputs])
    new.name = name


def _why(problem: AttentionProblem, kernel: FusedKernel, folded: Folded) -> str:
    inside = [f"{problem.layout} to {problem.output}"]
    inside += ["RMSNorm"] if folded.gains is not None else []
    inside += ["RoPE"] if folded.rope is not None else []
    parts = [kernel.why, f"folded: {', '.join(inside)}"]
    parts += [f"not folded: {', '.join(folded.missed)}"] if folded.missed else []
    return "; ".join(part for part in parts if part)
