"""Fused launches without TensorRT: the chain read from a lowered graph, and what is measured of it."""

from __future__ import annotations

import shutil

import onnx_ir as ir
import pytest

from bench import launches
from engines.fused_node import FUSED, LINEAR
from engines.lowering import load
from runtime.errors import InputError
from tests.engines.test_fused_linear import exported, lowered_of


def test_the_chain_is_the_graph():
    path = lowered_of("gelu")[0].path
    chain = launches.read_chain(path)
    nodes = [node for node in load(path).graph if node.op_type in FUSED]
    assert [node.name for node in chain.nodes] == [node.name for node in nodes]
    assert [node.plan.text() for node in chain.nodes] == [node.attributes["launch"].as_string() for node in nodes]
    assert chain.launches == sum(node.attributes["launch"].as_string().count("\nkernel ") for node in nodes)
    written = {name for node in chain.nodes for name in node.outputs}
    for node in chain.nodes[1:]:
        assert set(node.inputs) <= written | set(chain.constants)
        assert len(node.inputs) == len(node.plan.inputs)
    assert [name for name in chain.nodes[0].inputs if name not in chain.constants] == [nodes[0].inputs[0].name]


def test_nodes_that_launch_the_same_are_one_kind():
    chain = launches.read_chain(lowered_of("gelu")[0].path)
    kinds = launches._kinds(chain)
    assert sorted(index for kind in kinds for index in kind) == list(range(len(chain.nodes)))
    for kind in kinds:
        assert len({chain.nodes[index].plan.text() for index in kind}) == 1


def test_a_graph_without_fused_nodes_is_refused():
    with pytest.raises(InputError, match="has no fused nodes"):
        launches.read_chain(exported("gelu"))


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    assert launches.main(["--onnx", str(tmp_path / "none.onnx"), "--output", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.startswith(f"error: there is no ONNX file {tmp_path}/none.onnx")
    assert not (tmp_path / "x.json").exists()
    assert launches.main(["--onnx", "x.onnx", "--output", str(tmp_path / "x.json"), "--repeats", "0"]) == 2
    assert capsys.readouterr().err == "error: expected a batch size and repeats of 1 and more\n"


@pytest.mark.parametrize(("field", "value"), [("launch", "cat2dog-launch 0\nend\n"), ("images", None)])
def test_a_node_that_holds_no_plan_is_refused_in_one_line(tmp_path, capsys, field, value):
    whole = lowered_of("gelu")[0].path
    model = load(whole)
    node = next(node for node in model.graph if node.op_type == LINEAR)
    if value is None:
        del node.attributes[field]
    else:
        node.attributes[field] = ir.AttrString(field, value)
    path = tmp_path / "changed.onnx"
    ir.save(model, path)
    assert launches.main(["--onnx", str(path), "--output", str(tmp_path / "x.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} cannot be loaded: the data of ") and said.count("\n") == 1
    for data in whole.parent.glob("*.data"):
        shutil.copy(data, tmp_path)
    assert launches.main(["--onnx", str(path), "--output", str(tmp_path / "x.json")]) == 2
    said = capsys.readouterr().err
    assert f"node {node.name}: " in said and said.count("\n") == 1
