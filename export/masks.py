"""Masks that hide nothing are taken off attention nodes: libraries add them, and no fused kernel wants them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.attention import DOMAIN

# What these make is made of the values of their first input, and of nothing else.
_KEEPS_VALUES = frozenset("Identity Expand Reshape Unsqueeze Squeeze Transpose Flatten Tile Slice".split())


def drop_empty_masks(model: ir.Model) -> int:
    """Turn each `MaskedAttention` whose mask adds 0 everywhere into `Attention`; returns how many.

    A mask over a dynamic batch is no constant but an expanded one, so it is followed back to what it is made of.
    """
    dropped = 0
    for node in model.graph.all_nodes():
        if node.domain == DOMAIN and node.op_type == "MaskedAttention" and _is_all(node.inputs[3], 0.0):
            node.op_type = "Attention"
            node.replace_input_with(3, None)
            node.resize_inputs(3)
            dropped += 1
    return dropped


def _is_all(value: ir.Value | None, wanted: float) -> bool:
    """Whether every entry is `wanted`; a truth counts as 1."""
    while value is not None:
        if value.const_value is not None:
            return bool(np.all(value.const_value.numpy() == wanted))
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type == "Where":
            condition, chosen, other = node.inputs
            if _is_all(chosen, wanted):
                return _is_all(other, wanted) or _is_all(condition, 1.0)
            return _is_all(other, wanted) and _is_all(condition, 0.0)
        if node.op_type not in _KEEPS_VALUES:
            return False
        value = node.inputs[0]
    return False
