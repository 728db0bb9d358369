"""Blocks of graphs of other makes: convolutional stages, plain sequences, nothing numbered, shared modules."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from accuracy.blocks import find_blocks, module_of


def chain(*names: str) -> ir.Model:
    """A graph of one Relu after the other, each named so."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    value = first = ir.Value(name="x", type=floats, shape=ir.Shape([1, 4]))
    nodes = []
    for index, name in enumerate(names):
        node = ir.node("Relu", [value], name=name)
        value = node.outputs[0]
        value.name, value.type, value.shape = f"v{index}", floats, ir.Shape([1, 4])
        nodes.append(node)
    return ir.Model(ir.Graph([first], [value], nodes=nodes, opset_imports={"": 17}), ir_version=10)


def blocks(model: ir.Model) -> list[tuple[str, str, int]]:
    known = [str(node.outputs[0].name) for node in model.graph]
    return [(block.name, block.output, len(block.nodes)) for block in find_blocks(model, known)]


def test_stages():
    model = chain(
        "stem.conv/Conv", "layer1.0.conv1/Conv", "layer1.0/Add", "layer1.1.conv1/Conv", "layer2.0/Add", "fc/Gemm"
    )
    assert blocks(model) == [
        ("stem.conv", "v0", 1),
        ("layer1.0", "v2", 2),
        ("layer1.1", "v3", 1),
        ("layer2.0", "v4", 1),
        ("fc", "v5", 1),
    ]


def test_a_plain_sequence():
    assert blocks(chain("0/Conv", "1/Relu", "1/Relu_2", "2/Gemm")) == [("0", "v0", 1), ("1", "v2", 2), ("2", "v3", 1)]


def test_nothing_numbered():
    model = chain("net.down/Conv", "net.middle.conv/Conv", "net.middle/Relu", "net.up/Conv")
    assert blocks(model) == [("net.down", "v0", 1), ("net.middle", "v2", 2), ("net.up", "v3", 1)]


def test_a_module_that_runs_within_others_is_none():
    model = chain("blocks.0/Add", "rope/Mul", "blocks.0/Add_2", "blocks.1/Add", "rope/Mul_2", "blocks.1/Add_2")
    assert blocks(model) == [("blocks.0", "v2", 3), ("blocks.1", "v5", 3)]


@pytest.mark.parametrize("name", ["graph/Split", "Relu_3", "", "x y/Cast"])
def test_nodes_of_no_module(name):
    assert module_of(ir.node("Relu", [], name=name)) == ""


def test_a_graph_without_modules_has_no_blocks():
    assert blocks(chain("Relu_0", "Relu_1")) == []
