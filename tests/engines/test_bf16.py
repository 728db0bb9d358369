"""BF16 graphs computed in FP32 between roundings."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from engines.bf16 import compute_wide, has_bf16
from tests.engines.graphs import graph_of
from tests.export.micro import run_onnx


def test_each_operator_rounds_what_it_computed(tmp_path):
    """Also one that reads a value twice, and a constant."""
    text = """g (float[3] x) => (float[3] y)
    {
        a = Cast <to = 16> (x)
        b = Mul (a, a)
        c = Add (b, third)
        y = Cast <to = 1> (c)
    }"""
    third = np.array(1 / 3).astype(ml_dtypes.bfloat16)
    model = graph_of(text)
    tensor = ir.Tensor(third, dtype=ir.DataType.BFLOAT16, name="third")
    value = ir.Value(name="third", type=ir.TensorType(ir.DataType.BFLOAT16), shape=ir.Shape([]), const_value=tensor)
    model.graph.register_initializer(value)
    add = next(node for node in model.graph if node.op_type == "Add")
    add.replace_input_with(1, value)
    for node in model.graph:
        if node.op_type != "Cast" or node.outputs[0].name == "a":
            node.outputs[0].type = ir.TensorType(ir.DataType.BFLOAT16)
    assert has_bf16(model)
    compute_wide(model)
    ir.save(model, tmp_path / "wide.onnx")
    onnx.checker.check_model(str(tmp_path / "wide.onnx"), full_check=True)
    x = np.array([0.1, 1.3, -7.7], np.float32)
    a = x.astype(ml_dtypes.bfloat16).astype(np.float32)
    b = (a * a).astype(ml_dtypes.bfloat16).astype(np.float32)
    c = (b + third.astype(np.float32)).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(run_onnx(tmp_path / "wide.onnx", {"x": x})["y"], c)
