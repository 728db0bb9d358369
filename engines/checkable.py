"""A lowered graph that ONNX Runtime runs: every fused node has a body of plain ONNX instead of its kernel.

Bodies stand in a copy of the graph: the file for TensorRT holds none, because the parser of 8.6 knows no local
functions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import onnx_ir as ir

from engines.attention import DOMAIN
from engines.fused_body import fused_body
from engines.fused_linear_body import linear_body
from engines.fused_linear_node import linear_problem_of
from engines.fused_node import FUSED, OP_TYPE, PIXELS, problem_of
from engines.fused_pixels_body import pixels_body
from engines.fused_pixels_node import pixels_problem_of
from engines.graph import sizes_of


def checkable(model: ir.Model) -> ir.Model:
    """Give each fused node of `model` a body, in place, and take its kernel away; returns `model`.

    Nodes that compute the same share a body, which is named after the first of them.
    """
    opset = model.opset_imports.get("", 17)
    bodies: dict[Hashable, str] = {}
    for node in list(model.graph.all_nodes()):
        if node.domain != DOMAIN or node.op_type not in FUSED:
            continue
        what, write = _body(node, opset)
        if what not in bodies:
            bodies[what] = f"{node.op_type}_{len(bodies)}"
            body = write(bodies[what])
            model.functions[body.identifier()] = body
        node.op_type = bodies[what]
        node.attributes.clear()
    return model


def _body(node: ir.Node, opset: int) -> tuple[Hashable, Callable[[str], ir.Function]]:
    """What the node computes, and what writes a body for that under a name."""
    if node.op_type == OP_TYPE:
        attention = problem_of(node)
        return attention, lambda name: fused_body(attention, name, opset)
    if node.op_type == PIXELS:
        pixels = pixels_problem_of(node)
        return pixels, lambda name: pixels_body(pixels, name, opset)
    linear, runs = linear_problem_of(node), 1
    if linear.statistics:
        sizes = sizes_of(node.outputs[1])
        runs = int(sizes[2] or 1) if sizes is not None and len(sizes) == 4 else 1
    return (linear, runs), lambda name: linear_body(linear, runs, name, opset)
