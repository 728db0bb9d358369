"""Rotary position embedding between a projection and attention, recognised so that a fused kernel can do it instead.

Recognised is the half-split form (Su et al., arXiv 2104.09864, as in GPT-NeoX), `x * cos + cat(-x2, x1) * sin`, where
x1 and x2 are the halves of the last axis and the tables are constants that turn both halves by the same angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.graph import constant_integers, constant_operand, integer_attribute, made_by, through_casts


@dataclass(frozen=True, eq=False)
class Rope:
    """What is turned, and the tables it is turned by: cosines and sines `[N, D/2]` FP32."""

    source: ir.Value
    cos: np.ndarray
    sin: np.ndarray

    def same_tables(self, other: Rope) -> bool:
        """Whether both are turned by the same angles."""
        return np.array_equal(self.cos, other.cos) and np.array_equal(self.sin, other.sin)


def match_rope(value: ir.Value, shape: tuple[int, int], tokens_first: bool, precision: ir.DataType) -> Rope | None:
    """The rotation that makes `value`, or None.

    `shape` is (N, D); the value is `[B,N,H,D]` with `tokens_first`, else `[B,H,N,D]`.
    """
    total = made_by(through_casts(value, precision), "Add")
    if total is None:
        return None
    branches = [_scaled(branch, precision) for branch in total.inputs]
    if branches[0] is None or branches[1] is None:
        return None
    for straight, turned in (branches, branches[::-1]):
        assert straight is not None and turned is not None
        source = _turned_source(turned[1], shape[1], precision)
        if source is None or through_casts(source, precision) is not through_casts(straight[1], precision):
            continue
        cos, sin = (_half_table(table, shape, tokens_first) for table in (straight[0], turned[0]))
        if cos is not None and sin is not None:
            return Rope(straight[1], cos, sin)
    return None


def _scaled(value: ir.Value | None, precision: ir.DataType) -> tuple[np.ndarray, ir.Value] | None:
    """The table and the tensor whose product a branch is."""
    return None if value is None else constant_operand(made_by(through_casts(value, precision), "Mul"))


def _turned_source(value: ir.Value, size: int, precision: ir.DataType) -> ir.Value | None:
    """x of `cat(-x2, x1)` over the last axis."""
    joined = made_by(through_casts(value, precision), "Concat")
    if joined is None or len(joined.inputs) != 2 or integer_attribute(joined, "axis", 0) not in (-1, 3):
        return None
    negative, first = joined.inputs
    if negative is None or first is None:
        return None
    opposite = made_by(through_casts(negative, precision), "Neg")
    if opposite is None or opposite.inputs[0] is None:
        return None
    halves = [_half(through_casts(part, precision), size) for part in (first, opposite.inputs[0])]
    if halves[0] is None or halves[1] is None or (halves[0][1], halves[1][1]) != (0, 1):
        return None
    same = through_casts(halves[0][0], precision) is through_casts(halves[1][0], precision)
    return halves[0][0] if same else None


def _half(value: ir.Value, size: int) -> tuple[ir.Value, int] | None:
    """The tensor of which the value is half of the last axis, and which half."""
    split, cut = made_by(value, "Split"), made_by(value, "Slice")
    if split is not None:
        given = split.inputs[1] if len(split.inputs) > 1 else None
        even = given is None or constant_integers(given) == [size // 2, size // 2]
        if len(split.outputs) != 2 or not even or integer_attribute(split, "axis", 0) not in (-1, 3):
            return None
        return (split.inputs[0], int(value.index() or 0)) if split.inputs[0] is not None else None
    if cut is None or len(cut.inputs) < 4 or cut.inputs[0] is None:
        return None
    start, end, axes, *step = [constant_integers(part) for part in cut.inputs[1:]]
    if start is None or end is None or axes not in ([-1], [3]) or step not in ([], [[1]]):
        return None
    if (start[0], end[0]) in ((0, size // 2), (0, size // 2 - size)):
        return cut.inputs[0], 0
    return (cut.inputs[0], 1) if start[0] in (size // 2, size // 2 - size) and end[0] >= size else None


def _half_table(table: np.ndarray, shape: tuple[int, int], tokens_first: bool) -> np.ndarray | None:
    """`[N, D/2]` FP32 of a table that holds the same twice, or None where it is none or not one row a token."""
    tokens, size = shape
    full = (1, tokens, 1, size) if tokens_first else (1, 1, tokens, size)
    if table.ndim > 4 or (1,) * (4 - table.ndim) + table.shape != full or size % 2:
        return None
    rows = table.astype(np.float32).reshape(tokens, size)
    first, second = rows[:, : size // 2], rows[:, size // 2 :]
    return np.ascontiguousarray(first) if np.array_equal(first, second) else None
