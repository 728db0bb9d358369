"""Follows the queries and keys of an attention node back through what a fused kernel can do itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from engines.fold_layout import Operand, turned
from engines.fold_norm import match_norm
from engines.fold_rope import Rope, match_rope
from engines.graph import in_precision, sizes_of
from engines.kernels.problem import AttentionProblem


@dataclass(frozen=True, eq=False)
class Folded:
    """Where the three come from, which gains and tables the kernel takes, and what was not folded and why."""

    query: Operand
    key: Operand
    value: Operand
    gains: tuple[np.ndarray, np.ndarray] | None = None
    epsilon: float | None = None
    rope: Rope | None = None
    missed: tuple[str, ...] = ()


def fold(node: ir.Node, problem: AttentionProblem, dtype: ir.DataType) -> Folded:
    """Follow queries and keys back through RoPE and norm, as far as both have the same and come from `dtype`."""
    given = [Operand(value) for value in node.inputs if value is not None]
    heads, size = problem.heads, problem.head_size
    queries, keys = (heads, problem.queries, size), (heads, problem.keys, size)
    value = narrow(turned(given[2], dtype), dtype, keys) or given[2]
    folded = best = Folded(given[0], given[1], value)
    for step in (_turned, _without_rope, _turned, _without_norm, _turned):
        folded = step(folded, problem, dtype)
        query, key = narrow(folded.query, dtype, queries), narrow(folded.key, dtype, keys)
        if query is not None and key is not None:
            best = replace(folded, query=query, key=key)
    if best.rope is not folded.rope or best.gains is not folded.gains:
        wide = f"what is computed from other types or shapes than {problem.precision.upper()} of all tokens"
        best = replace(best, missed=(*folded.missed, wide))
    return best


def narrow(operand: Operand, dtype: ir.DataType, shape: tuple[int, int, int]) -> Operand | None:
    """The operand as a tensor of the precision, before it is widened; None where it never was.

    Nor where it is not known to be of `shape`, (H, N, D): a table may stretch what it is multiplied with.
    """
    value = in_precision(operand.value, dtype)
    heads, tokens, size = shape
    rest = [tokens, heads, size] if operand.tokens_first else [heads, tokens, size]
    sizes = sizes_of(value)
    if value is None or sizes is None or len(sizes) != 4 or sizes[1:] != rest:
        return None
    return replace(operand, value=value)


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
