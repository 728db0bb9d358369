"""Small graphs written as ONNX text, for what need not be exported to be looked at."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

HEAD = '<ir_version: 8, opset_import: ["" : {opset}, "cat2dog" : 1]>\n'


def graph_of(text: str, opset: int = 17, **constants: np.ndarray) -> ir.Model:
    """The model of a graph in ONNX's textual form, with these initializers and the shapes that inference finds."""
    proto = onnx.parser.parse_model(HEAD.format(opset=opset) + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def value_of(model: ir.Model, name: str) -> ir.Value:
    """The value of that name."""
    values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
    return next(value for value in values if value.name == name)
