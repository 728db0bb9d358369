"""What an attention node computes, in the words of the kernel library, or why no fused kernel computes it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from engines.batch import BatchProfile
from engines.fused_node import PRECISIONS
from engines.graph import sizes_of
from engines.kernels.problem import AttentionProblem, Unsupported

_PRECISION_OF = {dtype: name for name, dtype in PRECISIONS.items()}


def attention_problem(
    node: ir.Node, model: ir.Model, batch: BatchProfile, symbols: Collection[str]
) -> AttentionProblem:
    """The node by itself, every tensor in heads, in a graph whose batch is `batch`, called `symbols` in shapes.

    Raises Unsupported for what no `AttentionProblem` says; which of those have a kernel, the planner knows.
    """
    if node.op_type != "Attention":
        raise Unsupported(f"{node.op_type} has no fused kernel")
    if node.graph is not model.graph:
        raise Unsupported("attention inside a branch or a loop has no fused kernel")
    scale = float(np.float32(node.attributes["scale"].as_float()))
    tensors = [value for value in node.inputs if value is not None]
    if len(tensors) != 3 or not math.isfinite(scale):
        raise Unsupported(f"{len(tensors)} inputs and a scale of {scale} are not what a fused kernel takes")
    heads, queries, keys, size = _sizes(tensors)
    return AttentionProblem(
        precision=_precision(tensors),
        heads=heads,
        head_size=size,
        queries=queries,
        keys=keys,
        scale=scale,
        batch=batch_of(tensors, batch, symbols),
        layout="heads",
        output="heads",
    )


def _precision(tensors: list[ir.Value]) -> str:
    types = {tensor.dtype for tensor in tensors}
    for dtype, name in _PRECISION_OF.items():
        if types == {dtype}:
            return name
    raise Unsupported("attention that is not of FP16 or BF16 has no fused kernel")


def _sizes(tensors: list[ir.Value]) -> tuple[int, int, int, int]:
    """Heads, queries, keys and head size."""
    shapes = [sizes_of(tensor) for tensor in tensors]
    known = [[size for size in shape[1:] if size is not None] for shape in shapes if shape is not None]
    if [len(shape) for shape in known] != [3, 3, 3]:
        raise Unsupported("heads, tokens or head size are not known when the engine is built")
    (heads, queries, size), (key_heads, keys, _), (value_heads, _, value_size) = known
    if value_size != size:
        raise Unsupported(f"head sizes of queries and values differ ({size} and {value_size})")
    if {key_heads, value_heads} != {heads}:
        raise Unsupported(f"{heads} heads of queries, {key_heads} of keys and {value_heads} of values differ")
    return heads, queries, keys, size


def batch_of(tensors: list[ir.Value], batch: BatchProfile, symbols: Collection[str]) -> tuple[int, int, int]:
    """(least, tuned, most) of the first axis: a number, the graph's batch, or a multiple of it (windows).

    Raises Unsupported where it is none of these.
    """
    firsts = [tensor.shape[0] for tensor in tensors if tensor.shape is not None]
    texts = [str(getattr(first, "value", first)).replace(" ", "") for first in firsts]
    if len(set(texts)) != 1:
        raise Unsupported(f"batches of its inputs differ ({', '.join(texts)})")
    match = re.fullmatch(r"(?:(\d+)\*)?([^*\d][^*]*)(?:\*(\d+))?", texts[0])
    if isinstance(firsts[0], int):
        return firsts[0], firsts[0], firsts[0]
    if match is None or match[2] not in symbols:
        raise Unsupported("the batch is not known when the engine is built")
    factor = int(match[1] or 1) * int(match[3] or 1)
    return factor * batch.least, factor * batch.tuned, factor * batch.most
