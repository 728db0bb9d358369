"""The model this project started from, exported in every precision and run as it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.export import export
from runtime.judge import scores
from tests.export.micro import assert_sound, attention_ops, micro_answers, micro_export, micro_recipe, run_onnx

BLOCKS = ("network.blocks.0", "network.blocks.1")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_file_is_sound(precision):
    file = micro_export(precision)
    assert_sound(file)
    assert attention_ops(file.path) == ["Attention"] * 2
    model = onnx.load(file.path, load_external_data=False)
    (image,), (dog,) = model.graph.input, model.graph.output
    for value, name in ((image, "image"), (dog, "dog")):
        assert value.name == name and value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        sizes = [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        assert sizes == ["batch", 64, 64, 3]


@pytest.mark.parametrize(("precision", "least"), [("fp32", 50), ("fp16", 45)])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_runtime_agrees_with_pytorch_at_every_batch(precision, least, batch):
    feed, expected = micro_answers()
    got = run_onnx(micro_export(precision).path, {"image": feed["image"][:batch]})
    assert got["dog"].shape == (batch, 64, 64, 3) and got["dog"].dtype == np.uint8
    assert min(scores("psnr", got, {"dog": expected["dog"][:batch]})) >= least


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_islands_compute_in_fp32_and_the_rest_does_not(precision):
    narrow = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}[precision]
    graph = onnx.load(micro_export(precision).path, load_external_data=False).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.input, *graph.output]}
    types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    of = {
        op: [node for node in graph.node if node.op_type == op] for op in ("LayerNormalization", "MatMul", "Attention")
    }
    assert len(of["LayerNormalization"]) == 5 and len(of["MatMul"]) == 2 + 4 * 2 and len(of["Attention"]) == 2
    for node in of["LayerNormalization"]:
        assert {types[name] for name in (*node.input, *node.output)} == {onnx.TensorProto.FLOAT}, node.name
    for node in of["MatMul"] + of["Attention"]:
        assert {types[name] for name in (*node.input, *node.output)} == {narrow}, node.name
    qk_norms = [node for node in graph.node if "_norm/" in node.name and node.op_type in ("Pow", "ReduceMean", "Sqrt")]
    assert qk_norms, "the norms of queries and keys are made of these"
    for node in qk_norms:
        assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.name
    residual = [
        n for n in graph.node if n.op_type == "Add" and n.name.startswith("network.blocks") and n.name.count(".") == 2
    ]
    wide = {types[node.output[0]] for node in residual}
    assert residual and wide == ({onnx.TensorProto.FLOAT} if precision == "bf16" else {narrow})


def test_nodes_are_named_after_modules_and_weights_after_parameters():
    graph = onnx.load(micro_export("fp32").path, load_external_data=False).graph
    names = {node.name for node in graph.node}
    assert {"network.blocks.0.norm1/LayerNormalization", "network.blocks.1.attention/Attention"} <= names
    assert {"pixels_in", "pixels_out"} <= {name.split("/")[0] for name in names}
    weights = {tensor.name for tensor in graph.initializer}
    parameters = {f"network.{name}" for name in micro_recipe().module().state_dict()}
    assert {name.removesuffix(".t") for name in weights} >= parameters


def test_half_precision_halves_the_weights():
    whole, half, brain = (micro_export(precision).path for precision in ("fp32", "fp16", "bf16"))
    sizes = [path.with_name(f"{path.name}.data").stat().st_size for path in (whole, half, brain)]
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.6 * sizes[0]


@pytest.mark.parametrize("opset", [*(pytest.param(opset, marks=pytest.mark.slow) for opset in (18, 20)), 23])
def test_every_opset_gives_the_same_pictures(opset, tmp_path):
    feed, expected = micro_answers()
    file = export(micro_recipe(), tmp_path / "m.onnx", "fp16", opset=opset)
    assert_sound(file, opset)
    assert attention_ops(file.path) == ["Attention"] * 2
    assert min(scores("psnr", run_onnx(file.path, feed), expected)) >= 45


def test_a_static_batch_is_in_every_shape(tmp_path):
    feed, expected = micro_answers()
    file = export(micro_recipe(), tmp_path / "m.onnx", "fp32", batch=3)
    assert_sound(file)
    graph = onnx.load(file.path, load_external_data=False).graph
    for value in [*graph.input, *graph.output, *graph.value_info]:
        assert not any(size.dim_param for size in value.type.tensor_type.shape.dim), value.name
    got = run_onnx(file.path, {"image": feed["image"][:3]})
    assert min(scores("psnr", got, {"dog": expected["dog"][:3]})) >= 50
