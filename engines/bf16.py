"""BF16 graphs where there is no BF16 arithmetic: every operator computes in FP32 between casts."""

from __future__ import annotations

import onnx_ir as ir

BF16 = ir.DataType.BFLOAT16


def compute_wide(model: ir.Model, dtype: ir.DataType = BF16) -> None:
    """Rewrite a graph, in place, so that every BF16 operator computes in FP32, as ONNX Runtime's CPU needs.

    Values between operators are still rounded to BF16, so the result has the errors of the BF16 graph. `dtype` may be
    FLOAT16: ONNX Runtime runs such a graph as it is, but leaves rounding out between operators it has no kernel for.
    """
    for node in list(model.graph.all_nodes()):
        if node.domain == "" and node.op_type == "Cast":
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == dtype:
                wide = _inserted_cast(value, ir.DataType.FLOAT, node, True, f"wide_{index}")
                node.replace_input_with(index, wide)
        for output in node.outputs:
            if output.dtype == dtype:
                _round_output(output, node, dtype)


def _inserted_cast(value: ir.Value, to: ir.DataType, node: ir.Node, before: bool, suffix: str) -> ir.Value:
    name = f"{value.name}.{node.name}.{suffix}"
    output = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
    cast = ir.node("Cast", [value], {"to": int(to)}, outputs=[output], name=f"{name}.cast")
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(node, cast) if before else graph.insert_after(node, cast)
    return output


def rounded_name(output: ir.Value, node: ir.Node) -> str:
    """What `compute_wide` calls the rounded value of an output."""
    return f"{output.name}.{node.name}.rounded"


def _round_output(output: ir.Value, node: ir.Node, dtype: ir.DataType) -> None:
    uses = list(output.uses())
    output.type = ir.TensorType(ir.DataType.FLOAT)
    rounded = _inserted_cast(output, dtype, node, False, "rounded")
    assert rounded.name == rounded_name(output, node)
    for use in uses:
        use.node.replace_input_with(use.idx, rounded)


def has_bf16(model: ir.Model) -> bool:
    """Whether any value of the graph is BF16."""
    return any(output.dtype == BF16 for node in model.graph.all_nodes() for output in node.outputs)
