"""Brings a graph of opset 18, the oldest that PyTorch writes, down to 17, the newest that TensorRT 8.6 reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from runtime.errors import InputError

OLDEST, NEWEST = 17, 23
_TORCH_OLDEST = 18


def torch_opset(opset: int) -> int:
    """The opset to ask PyTorch's exporter for. Raises InputError outside 17..23."""
    if not OLDEST <= opset <= NEWEST:
        raise InputError(
            f"opset {opset} is not supported; choose one from {OLDEST} (TensorRT 8.6 reads it) to {NEWEST}"
        )
    return max(opset, _TORCH_OLDEST)


def downgrade_to_17(model: ir.Model) -> None:
    """Change an opset-18 `model` in place to opset 17.

    Between the two, reductions took their axes from an attribute to an input and Split got `num_outputs`; operators
    that changed in another way, or are new in 18, raise InputError with their names.
    """
    foreign = set()
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum":
            _axes_to_attribute(node)
        elif node.op_type == "Split":
            _explicit_split(node, model)
        elif node.op_type == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None:
            foreign.add("Pad with axes")
        elif node.op_type == "Resize" and {"antialias", "axes", "keep_aspect_ratio_policy"} & set(node.attributes):
            _plain_resize(node, foreign)
        elif not _known_in_17(node.op_type):
            foreign.add(node.op_type)
    if foreign:
        raise InputError(
            f"the graph uses {', '.join(sorted(foreign))}, which opset 17 has not: export with --opset 18 or newer"
        )
    model.opset_imports[""] = 17


def _known_in_17(op_type: str) -> bool:
    try:
        onnx.defs.get_schema(op_type, 17, "")
    except onnx.defs.SchemaError:
        return False
    return True


def _constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _axes_to_attribute(node: ir.Node) -> None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = _constant(node.inputs[1])
        if axes is None:
            raise InputError(
                f"{node.name}: opset 17 cannot reduce over axes computed at run time: use --opset 18 or newer"
            )
        node.replace_input_with(1, None)
        node.resize_inputs(1)
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in axes.reshape(-1)])
    node.attributes.pop("noop_with_empty_axes", None)


def _explicit_split(node: ir.Node, model: ir.Model) -> None:
    if node.attributes.pop("num_outputs", None) is None:
        return
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    value = node.inputs[0]
    size: Any = value.shape[axis] if value is not None and value.shape is not None else None
    if not isinstance(size, int):
        return  # without sizes opset 17 splits evenly, which is what num_outputs means where it divides
    count = len(node.outputs)
    each = -(-size // count)
    sizes = [each] * (count - 1) + [size - each * (count - 1)]
    name = f"{node.name}.sizes"
    tensor = ir.tensor(np.array(sizes, np.int64), name=name)
    initializer = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    model.graph.register_initializer(initializer)
    node.resize_inputs(2)
    node.replace_input_with(1, initializer)


def _plain_resize(node: ir.Node, foreign: set[str]) -> None:
    antialias = node.attributes.pop("antialias", None)
    policy = node.attributes.pop("keep_aspect_ratio_policy", None)
    if "axes" in node.attributes or (antialias is not None and antialias.as_int()):
        foreign.add("Resize with axes or antialias")
    if policy is not None and policy.as_string() != "stretch":
        foreign.add("Resize with keep_aspect_ratio_policy")
