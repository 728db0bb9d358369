"""The linear layers of a graph, each with what follows it that a fused kernel can do: bias, activation, residual.

A layer is a MatMul or Gemm with a constant matrix. What follows is folded only where nothing else reads what lies in
between, since the fused kernel does not leave it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from engines.fold_norm import channels
from engines.fused_linear_activation import match_gelu, match_silu
from engines.graph import (
    constant_array,
    constant_operand,
    integer_attribute,
    is_op,
    made_by,
    only_reader,
    permutes,
    sizes_of,
)


@dataclass(frozen=True, eq=False)
class Product:
    """`x W^T + bias`: the nodes' own node, x, the constant that holds W, and its output after the bias.

    `turned`: the constant lies as W `[columns, inner]`, else as `[inner, columns]`. The bias is `[columns]` FP32.
    """

    node: ir.Node
    x: ir.Value
    weights: ir.Value
    turned: bool
    bias: np.ndarray | None
    output: ir.Value

    @property
    def inner(self) -> int:
        """Channels in."""
        return int(_shape(self.weights)[1 if self.turned else 0])

    @property
    def columns(self) -> int:
        """Channels out."""
        return int(_shape(self.weights)[0 if self.turned else 1])


@dataclass(eq=False)
class Layer:
    """One product, or gate and up of SwiGLU, and what follows, up to `output`.

    `residual` is (`sample` or `shared`, what is added). `missed`: what was not folded, and why.
    """

    products: tuple[Product, ...]
    output: ir.Value
    activation: str | None = None
    residual: tuple[str, ir.Value] | None = None
    missed: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the node that multiplies."""
        return self.products[0].node.name or str(self.output.name)

    @property
    def x(self) -> ir.Value:
        """What the graph multiplies."""
        return self.products[0].x

    @property
    def last(self) -> ir.Node:
        """The node that makes `output`."""
        node = self.output.producer()
        assert node is not None
        return node


def find_layers(model: ir.Model) -> list[Layer]:
    """Every linear layer of the main graph, in the order in which their outputs are made."""
    products = [product for node in model.graph if (product := match_product(node)) is not None]
    by_output = {product.output: product for product in products}
    layers = _gated(model, by_output)
    taken = {product for layer in layers for product in layer.products}
    claimed = {layer.output for layer in layers}
    gelus = {found.source: (found.kind, value) for value in _made(model) if (found := match_gelu(value)) is not None}
    # From the last to the first: of two layers that are added to each other, the later one adds the earlier.
    for product in reversed(products):
        if product in taken:
            continue
        layer = Layer((product,), product.output)
        kind, value = gelus.get(layer.output, ("", layer.output))
        if kind and is_enclosed([layer.output], value):
            layer.activation, layer.output = kind, value
        added = _residual(layer.output)
        if added is not None and added[1] not in claimed:
            layer.residual, layer.output = added[0], added[1]
        claimed.add(layer.output)
        layers.append(layer)
    order = {node: index for index, node in enumerate(model.graph)}
    return sorted(layers, key=lambda layer: order[layer.last])


def match_product(node: ir.Node) -> Product | None:
    """The node as a product with a constant matrix, and the bias after it; None where it is something else."""
    if not (is_op(node, "MatMul") or is_op(node, "Gemm")) or len(node.inputs) < 2:
        return None
    x, weights, turned = node.inputs[0], node.inputs[1], False
    if x is None or weights is None or constant_array(x) is not None:
        return None
    turn = made_by(weights, "Transpose")
    if turn is not None and permutes(turn, (1, 0)) and turn.inputs[0] is not None:
        weights, turned = turn.inputs[0], True
    if not _is_matrix(weights) or node.outputs[0].dtype != x.dtype or weights.dtype != x.dtype:
        return None
    output, bias = node.outputs[0], None
    columns = int(_shape(weights)[0 if turned else 1])
    if node.op_type == "Gemm":
        plain = (_real(node, "alpha"), _real(node, "beta"), integer_attribute(node, "transA", 0)) == (1.0, 1.0, 0)
        if not plain:
            return None
        if integer_attribute(node, "transB", 0):
            turned = not turned
            columns = int(_shape(weights)[0 if turned else 1])
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            array = constant_array(node.inputs[2])
            bias = channels(array, columns) if array is not None else None
            if bias is None:
                return None
    if bias is None:
        adder = _adder(output)
        total = constant_operand(adder)
        row = channels(total[0], columns) if total is not None else None
        if adder is not None and total is not None and row is not None and total[1] is output:
            bias, output = row, adder.outputs[0]
    return Product(node, x, weights, turned, bias, output)


def is_enclosed(sources: Iterable[ir.Value], output: ir.Value) -> bool:
    """Whether all that is made of the sources is read on the way to `output` alone."""
    sources = list(sources)
    inside: set[ir.Node] = set()
    values: list[ir.Value] = [output]
    between: list[ir.Value] = list(sources)
    while values:
        value = values.pop()
        node = value.producer()
        # A constant's node has no inputs, and others may read it.
        if value in sources or node is None or not node.inputs or node in inside:
            continue
        inside.add(node)
        between += [made for made in node.outputs if made is not output]
        values += [read for read in node.inputs if read is not None]
    read_here = all(use.node in inside for value in between for use in value.uses())
    return read_here and not any(value.is_graph_output() for value in between)


def _made(model: ir.Model) -> list[ir.Value]:
    return [node.outputs[0] for node in model.graph if node.op_type in ("Mul", "Gelu", "Div") and node.outputs]


def _gated(model: ir.Model, by_output: dict[ir.Value, Product]) -> list[Layer]:
    """SwiGLU (Shazeer, arXiv 2002.05202): silu of one product times another, of one x and as wide."""
    layers = []
    for node in model.graph:
        if not is_op(node, "Mul") or node.inputs[0] is None or node.inputs[1] is None:
            continue
        for gate, up in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
            source = match_silu(gate)
            pair = (by_output.get(source), by_output.get(up)) if source is not None else (None, None)
            if pair[0] is None or pair[1] is None or source is None:
                continue
            alike = pair[0].x is pair[1].x and pair[0].columns == pair[1].columns and pair[0] is not pair[1]
            if alike and is_enclosed([source, up], node.outputs[0]):
                layers.append(Layer((pair[0], pair[1]), node.outputs[0], "swiglu"))
                break
    return layers


def _adder(value: ir.Value) -> ir.Node | None:
    node = only_reader(value)
    return node if is_op(node, "Add") else None


def _residual(value: ir.Value) -> tuple[tuple[str, ir.Value], ir.Value] | None:
    """What is added to the value, and the sum."""
    node = _adder(value)
    if node is None or node.outputs[0].dtype != value.dtype:
        return None
    (other,) = [read for read in node.inputs if read is not value] or [None]
    sizes = sizes_of(value)
    if other is None or other.dtype != value.dtype or sizes is None or None in sizes[1:]:
        return None
    array = constant_array(other)
    if array is not None:
        shape = list(array.shape[1:]) if array.ndim == len(sizes) and array.shape[0] == 1 else list(array.shape)
        return (("shared", other), node.outputs[0]) if shape == sizes[1:] and len(shape) > 1 else None
    same = other.shape is not None and value.shape is not None and list(other.shape) == list(value.shape)
    return (("sample", other), node.outputs[0]) if same else None


def _is_matrix(value: ir.Value) -> bool:
    return constant_array(value) is not None and len(_shape(value)) == 2


def _shape(value: ir.Value) -> tuple[int, ...]:
    array = constant_array(value)
    assert array is not None
    return array.shape


def _real(node: ir.Node, name: str) -> float:
    return node.attributes[name].as_float() if name in node.attributes else 1.0
