"""A network for the bench's tests: 255 - image, as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_inverter(path: Path, side: int = 8, batch: int | str = "B") -> Path:
    shape = [batch, side, side, 3]
    white = numpy_helper.from_array(np.array(255, np.int32), "white")
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["white", "wide"], ["difference"]),
        helper.make_node("Cast", ["difference"], ["dog"], to=TensorProto.UINT8),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("image", "dog")]
    graph = helper.make_graph(nodes, "inverter", ends[:1], ends[1:], [white])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
