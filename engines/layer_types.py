"""Which precision each layer of a half-precision graph computes in, by the name of its node: what TensorRT 8.6 is told.

From 10 on TensorRT takes types from the graph. 8.6 does not: while a network is made, the type of every tensor between
layers reads as FP32, so it cannot say itself which layers the precision policy left in FP32.
"""

from __future__ import annotations

import onnx_ir as ir

_PRECISIONS = {ir.DataType.FLOAT: "fp32", ir.DataType.FLOAT16: "fp16"}


def layer_types(model: ir.Model) -> dict[str, str]:
    """Node name to `fp32` or `fp16`, from the type of its first output; nodes of other types are left out."""
    types = {}
    for node in model.graph.all_nodes():
        dtype = node.outputs[0].dtype if node.outputs else None
        precision = _PRECISIONS.get(dtype) if dtype is not None else None
        if node.name and precision is not None:
            types[node.name] = precision
    return types
