"""Raises a lowered graph's opset, because ONNX `Attention` came with 23 and neutral files are of 17."""

from __future__ import annotations

import onnx_ir as ir

from engines.constants import integers
from runtime.errors import ToolchainError


def raise_opset(model: ir.Model, opset: int) -> None:
    """Bring a graph of opset 17 or newer up to `opset` in place.

    Raises ToolchainError where an operator changed in a way that is not known here.
    """
    have = model.opset_imports.get("", 1)
    if have >= opset:
        return
    if have < 17:
        raise ToolchainError(
            f"a graph of opset {have} cannot be brought to {opset}; export it with --opset 17 or newer"
        )
    if have == 17:
        _to_18(model)
    # The library's converter starts at 18.
    from onnxscript import version_converter

    version_converter.convert_version(model, opset, fallback=False)
    if model.opset_imports.get("") != opset:
        raise ToolchainError(
            f"the graph cannot be brought from opset {have} to {opset}: export it with --opset {opset}"
        )
    model.ir_version = max(model.ir_version, 10)


def _to_18(model: ir.Model) -> None:
    """Opset 18 made the axes of reductions an input, and lets Split divide evenly only when told into how many."""
    for node in list(model.graph.all_nodes()):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type.startswith("Reduce") and "axes" in node.attributes:
            axes = node.attributes.pop("axes").as_ints()
            initializer = integers(model, "cat2dog.axes_" + "_".join(str(axis) for axis in axes), axes)
            node.resize_inputs(2)
            node.replace_input_with(1, initializer)
        elif node.op_type == "Split" and len(node.inputs) == 1:
            node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    model.opset_imports[""] = 18
