"""Masks that hide nothing are taken off; those that hide something stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from export.masks import drop_empty_masks

SHOWS = np.zeros((1, 1, 3, 3), np.float32)
HIDES = np.triu(np.full((1, 1, 3, 3), -np.inf, np.float32), 1)
TRUE, FALSE = np.ones((1, 1, 3, 3), bool), np.zeros((1, 1, 3, 3), bool)


def constant(array: np.ndarray, name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)


def masked(mask: ir.Value, nodes: list[ir.Node], constants: list[ir.Value]) -> ir.Model:
    inputs = [ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT)) for name in "qkv"]
    attention = ir.node("MaskedAttention", [*inputs, mask], {"scale": 1.0}, domain="cat2dog")
    graph = ir.Graph(
        inputs,
        attention.outputs,
        nodes=[*nodes, attention],
        initializers=constants,
        opset_imports={"": 17, "cat2dog": 1},
    )
    return ir.Model(graph, ir_version=8)


def expanded(value: ir.Value) -> ir.Node:
    return ir.node("Expand", [value, ir.Value(name="batch_shape")])


@pytest.mark.parametrize(
    ("condition", "chosen", "other", "empty"),
    [
        (TRUE, SHOWS, HIDES, True),
        (FALSE, HIDES, SHOWS, True),
        (FALSE, SHOWS, HIDES, False),
        (TRUE, SHOWS, SHOWS, True),
        (np.tri(3, dtype=bool)[None, None], SHOWS, np.float32(-np.inf), False),
        (np.tri(3, dtype=bool)[None, None], SHOWS, np.float32(0), True),
    ],
)
def test_a_mask_chosen_from_constants(condition, chosen, other, empty):
    constants = [constant(np.asarray(a), name) for a, name in ((condition, "c"), (chosen, "a"), (other, "b"))]
    wide = expanded(constants[0])
    where = ir.node("Where", [wide.outputs[0], *constants[1:]])
    model = masked(where.outputs[0], [wide, where], constants)
    assert drop_empty_masks(model) == empty
    (node,) = [node for node in model.graph if node.domain == "cat2dog"]
    assert (node.op_type, len(node.inputs)) == (("Attention", 3) if empty else ("MaskedAttention", 4))


@pytest.mark.parametrize(("array", "empty"), [(SHOWS, True), (HIDES, False)])
def test_a_constant_mask(array, empty):
    mask = constant(array, "mask")
    assert drop_empty_masks(masked(mask, [], [mask])) == empty


def test_a_mask_that_is_computed_stays():
    mask = ir.Value(name="given", type=ir.TensorType(ir.DataType.FLOAT))
    double = ir.node("Mul", [mask, mask])
    assert drop_empty_masks(masked(double.outputs[0], [double], [])) == 0
    assert drop_empty_masks(masked(mask, [], [])) == 0
