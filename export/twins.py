"""Weights that happen to be equal stay two: training may part them, and an engine that takes new weights needs both.

The optimizer joins small initializers with the same bytes, as Fixup's scalars and norms' gains are before training.
"""

from __future__ import annotations

import onnx_ir as ir

_LEARNT = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
Uses = dict[str, tuple[ir.Value, list[tuple[ir.Node, int]]]]


def uses_of_weights(model: ir.Model) -> Uses:
    """Each floating-point initializer by name, and where it goes in; to be asked before the graph is optimized."""
    return {
        name: (value, [(use.node, use.idx) for use in value.uses()])
        for name, value in model.graph.initializers.items()
        if value.dtype in _LEARNT
    }


def part(model: ir.Model, before: Uses) -> int:
    """Undo what joined a weight with an equal one, where its node is still there; returns how many are back."""
    parted = 0
    for name, (value, uses) in before.items():
        if name in model.graph.initializers or value.const_value is None:
            continue
        for node, index in uses:
            other = node.inputs[index] if node.graph is model.graph and index < len(node.inputs) else None
            if other is None or not other.is_initializer() or not _equal(other, value):
                continue
            node.replace_input_with(index, value)
        if value.uses():
            model.graph.register_initializer(value)
            parted += 1
    return parted


def _equal(one: ir.Value, other: ir.Value) -> bool:
    a, b = one.const_value, other.const_value
    if a is None or b is None or a.dtype != b.dtype or list(a.shape) != list(b.shape):
        return False
    return a.tobytes() == b.tobytes()
