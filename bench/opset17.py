"""A newer ONNX graph in the words of opset 17, the newest that TensorRT 8.6's parser knows."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto, helper, numpy_helper

from runtime.errors import InputError

OPSET = 17
# Since 18 their axes are an input; the parser would not look at it, and reduce over everything.
_REDUCTIONS = {
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


def write_opset17(model: ModelProto, path: Path) -> None:
    """Write `model`, whose weights are loaded, as opset 17 with its weights in a file beside it; `model` is changed.

    Raises InputError where it has nodes that opset 17 does not.
    """
    known = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for node in model.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2 and node.input[1]:
            if node.input[1] not in known:
                raise InputError(
                    f"{path.name}: the axes of {node.name} are computed, which opset {OPSET} does not know"
                )
            node.attribute.append(helper.make_attribute("axes", known[node.input[1]].reshape(-1).tolist()))
            del node.input[1]
    for each in model.opset_import:
        each.version = each.version if each.domain else OPSET
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise InputError(f"{path.name} cannot be opset {OPSET}: {' '.join(str(error).split())[:300]}") from error
