"""Reading and rewriting a graph: how every rewrite of this room looks at nodes and puts others in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from runtime.errors import InputError

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def is_op(node: ir.Node | None, op_type: str) -> bool:
    """Whether the node is ONNX's own operator `op_type`."""
    return node is not None and node.op_type == op_type and node.domain in ("", "ai.onnx")


def made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes the value, where it is ONNX's operator `op_type`."""
    producer = value.producer() if value is not None else None
    return producer if is_op(producer, op_type) else None


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The content of an initializer or of a Constant node's output, or None where it is computed."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = made_by(value, "Constant")
    return node.attributes["value"].as_tensor().numpy() if node is not None and "value" in node.attributes else None


def constant_integers(value: ir.Value | None) -> list[int] | None:
    """A constant list of numbers (axes, sizes, starts), or None."""
    array = constant_array(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


def integer_attribute(node: ir.Node, name: str, otherwise: int) -> int:
    """An INT attribute, or its default."""
    return node.attributes[name].as_int() if name in node.attributes else otherwise


def permutes(node: ir.Node | None, order: Sequence[int]) -> bool:
    """Whether the node is a Transpose into `order`."""
    return (
        node is not None
        and is_op(node, "Transpose")
        and "perm" in node.attributes
        and list(node.attributes["perm"].as_ints()) == list(order)
    )


def sizes_of(value: ir.Value | None) -> list[int | None] | None:
    """The shape, None for a size that is not a number; None where even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else None for size in value.shape]


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds the node. Raises InputError for a node inside a function."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise InputError(f"{node.name}: attention inside a function; export the model again")
    return graph


def new_node(op_type: str, inputs: list, attributes: dict, name: str, dtype: ir.DataType | None) -> ir.Node:
    """A node of ONNX's own domain with one output, `{name}.out`."""
    output = ir.Value(name=f"{name}.out", type=ir.TensorType(dtype) if dtype is not None else None)
    return ir.node(op_type, inputs, attributes, name=name, outputs=[output])


def replace_node(node: ir.Node, *new: ir.Node) -> None:
    """Put `new` where `node` was; the output of the last takes the name, the type and the readers of the old one."""
    graph, old, output = graph_of(node), node.outputs[0], new[-1].outputs[0]
    output.shape, output.type = old.shape, old.type
    graph.insert_before(node, list(new))
    old.replace_all_uses_with(output, replace_graph_outputs=True)
    output.name = old.name
    graph.remove(node, safe=True)


def remove_unread(values: Iterable[ir.Value | None]) -> None:
    """Remove what made these values, and what made its inputs in turn, as far as nothing else reads it."""
    stack = [value for value in values if value is not None]
    while stack:
        value = stack.pop()
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if node is None:
            if value.is_initializer() and isinstance(value.graph, ir.Graph):
                del value.graph.initializers[str(value.name)]
        elif node.graph is not None and not any(output.uses() or output.is_graph_output() for output in node.outputs):
            stack += [read for read in node.inputs if read is not None]
            node.graph.remove(node, safe=True)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads the value, once, or None; nobody outside the graph may read it either."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def take_over(new: ir.Value, old: ir.Value, others: Iterable[ir.Value] = ()) -> None:
    """Give `new` the name and the readers of `old`, and remove what nothing reads then: what made it, and `others`."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    name, old.name = old.name, f"{old.name}.unfused"
    remove_unread([old, *others])
    new.name = name


def through_casts(value: ir.Value, precision: ir.DataType) -> ir.Value:
    """What the value was before casts between FP32 and `precision`: the same number but for rounding."""
    types = (ir.DataType.FLOAT, precision)
    while (cast := made_by(value, "Cast")) is not None and cast.inputs[0] is not None:
        if value.dtype not in types or cast.inputs[0].dtype not in types:
            break
        value = cast.inputs[0]
    return value


def in_precision(value: ir.Value, precision: ir.DataType) -> ir.Value | None:
    """The value itself, or what it was widened to FP32 from, of type `precision`; None where there is no such thing."""
    while value.dtype != precision:
        cast = made_by(value, "Cast")
        if cast is None or cast.inputs[0] is None or value.dtype != ir.DataType.FLOAT:
            return None
        value = cast.inputs[0]
    return value


def constant_operand(node: ir.Node | None) -> tuple[np.ndarray, ir.Value] | None:
    """The constant operand of a node of two, before any cast of it, and the other; None unless one is constant."""
    if node is None or len(node.inputs) != 2 or any(value is None for value in node.inputs):
        return None
    first, second = node.inputs[0], node.inputs[1]
    assert first is not None and second is not None
    arrays = [constant_array(_uncast(value)) for value in (first, second)]
    if (arrays[0] is None) == (arrays[1] is None):
        return None
    return (arrays[0], second) if arrays[0] is not None else (arrays[1], first)  # type: ignore[return-value]


def _uncast(value: ir.Value) -> ir.Value:
    """A constant before the cast that rounds it, so that its precision is not lost."""
    cast = made_by(value, "Cast")
    return cast.inputs[0] if cast is not None and cast.inputs[0] is not None else value
