"""ONNX files that ask for too much, or for what is not theirs: refused before any package reads them."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import InputError
from runtime.onnx_guard import check_onnx


def model_of(nodes=(), constants=(), functions=(), inputs=None, outputs=None):
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])]
    outputs = outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(constants))
    return helper.make_model(graph, functions=list(functions), opset_imports=[helper.make_opsetid("", 17)])


def written(tmp_path, model):
    path = tmp_path / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def refused(tmp_path, model) -> str:
    with pytest.raises(InputError) as error:
        check_onnx(written(tmp_path, model))
    assert "\n" not in str(error.value)
    return str(error.value)


def external(location, size=16, **told):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "length": size, **told}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 5), dtype)
        for dtype in ("f4", "f8", "f2", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "c8", "c16")
    ],
    ids=lambda array: array.dtype.name,
)
@pytest.mark.parametrize("raw", [True, False])
def test_constants_of_every_type_are_taken(array, raw, tmp_path):
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.reshape(-1).tolist()
    check_onnx(written(tmp_path, model_of(constants=[helper.make_tensor("w", dtype, array.shape, values, raw)])))


def test_texts_negative_numbers_and_external_data_are_taken(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/w.data").write_bytes(bytes(32))
    constants = [
        helper.make_tensor("t", TensorProto.STRING, [2], [b"a", b"b"]),
        helper.make_tensor("n", TensorProto.INT64, [3], [-1, 1 << 40, -(1 << 62)]),
        external("sub/w.data", offset=16),
        numpy_helper.from_array(np.zeros((0, 4), np.float32), "empty"),
    ]
    check_onnx(written(tmp_path, model_of(constants=constants)))


@pytest.mark.parametrize(
    ("location", "told", "said"),
    [
        ("/etc/hostname", {}, "expected a file beside it"),
        ("../w.data", {}, "expected a file beside it"),
        ("a/../../w.data", {}, "expected a file beside it"),
        ("..\\w.data", {}, "expected a file beside it"),
        ("", {}, "expected a file beside it"),
        ("none.data", {}, "there is no such file"),
        (".", {}, "there is no such file"),
        ("link.data", {}, "a link out of its folder"),
        ("out/secret.data", {}, "a link out of its folder"),
        ("w.data", {"offset": 1}, "which has 16"),
        ("w.data", {"offset": -8}, "which has 16"),
        ("w.data", {"size": 15}, "needs 16 bytes and is said to be 15"),
        ("w.data", {"size": 1 << 62}, "needs 16 bytes"),
        ("w.data", {"offset": "many"}, "no number"),
    ],
)
def test_external_data_stays_in_its_folder(location, told, said, tmp_path):
    folder = tmp_path / "model"
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.data").write_bytes(bytes(16))
    folder.mkdir()
    (folder / "w.data").write_bytes(bytes(16))
    (folder / "link.data").symlink_to(tmp_path / "outside/secret.data")
    (folder / "out").symlink_to(tmp_path / "outside")
    message = refused(folder, model_of(constants=[external(location, **told)]))
    assert said in message and "'w'" in message


def test_a_model_behind_a_link_finds_its_data_beside_the_real_file(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/w.data").write_bytes(bytes(16))
    written(tmp_path / "real", model_of(constants=[external("w.data")]))
    os.symlink(tmp_path / "real", tmp_path / "link")
    check_onnx(tmp_path / "link/m.onnx")


def bomb(op, *numbers, **attributes):
    names = [f"c{index}" for index in range(len(numbers))]
    constants = [
        numpy_helper.from_array(np.array(each, np.int64), name) for each, name in zip(numbers, names, strict=True)
    ]
    return [helper.make_node(op, names, ["y"], "n", **attributes)], constants


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        bomb("ConstantOfShape", [1 << 20, 1 << 20]),
        bomb("Expand", [1], [1 << 40]),
        bomb("Tile", [1, 2], [1 << 30]),
        bomb("Range", 0, 1 << 40, 1),
        bomb("Range", 0, 1 << 40, 0),
        ([helper.make_node("RandomNormal", [], ["y"], "n", shape=[1 << 30, 4])], []),
    ],
    ids=lambda each: each[0].op_type if each and hasattr(each[0], "op_type") else "",
)
def test_constants_that_fill_the_memory(nodes, constants, tmp_path):
    assert f"'n' ({nodes[0].op_type}) makes a constant of" in refused(tmp_path, model_of(nodes, constants))


def test_constants_that_grow_step_by_step(tmp_path):
    start = numpy_helper.from_array(np.array([1 << 10], np.int64), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["v0"], "n0")]
    times = numpy_helper.from_array(np.array([1 << 10], np.int64), "times")
    nodes += [helper.make_node("Tile", [f"v{i}", "times"], [f"v{i + 1}"], f"n{i + 1}") for i in range(3)]
    assert "'n2' (Tile) makes a constant of 1073741824" in refused(tmp_path, model_of(nodes, [start, times]))


@pytest.mark.parametrize("op", ["Loop", "Scan", "SequenceMap"])
def test_loops(op, tmp_path):
    body = helper.make_graph([], "body", [], [])
    node = helper.make_node(op, ["x"], ["y"], "endless", body=body)
    assert f"node 'endless' is a {op}" in refused(tmp_path, model_of([node]))


def test_graphs_in_graphs(tmp_path):
    graph = helper.make_graph([], "inner", [], [])
    for _ in range(6):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    message = refused(tmp_path, helper.make_model(graph))
    assert "graphs lie over 4 deep" in message


def test_messages_without_end(tmp_path):
    data = b""
    for _ in range(3000):  # types in types, which are no graphs
        data = b"\x0a" + varint(len(data)) + data
        data = b"\x22" + varint(len(data)) + data
    for tag in (b"\x12", b"\x5a", b"\x3a"):  # of a value, of an input, of the graph
        data = tag + varint(len(data)) + data
    assert "deep in one another" in refused(tmp_path, data)


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def function(name, *calls):
    nodes = [helper.make_node(call, ["a"], ["b"], domain="d") for call in calls] or [
        helper.make_node("Relu", ["a"], ["b"])
    ]
    return helper.make_function("d", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def test_functions_that_call_themselves(tmp_path):
    call = helper.make_node("f", ["x"], ["y"], domain="d")
    assert "'f' calls itself" in refused(tmp_path, model_of([call], functions=[function("f", "g"), function("g", "f")]))


def test_functions_that_multiply(tmp_path):
    functions = [function(f"f{i}", *[f"f{i + 1}"] * 10) for i in range(12)] + [function("f12")]
    call = helper.make_node("f0", ["x"], ["y"], domain="d")
    assert "it has over 100000 nodes" in refused(tmp_path, model_of([call], functions=functions))


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (TensorProto(name="w", data_type=1, dims=[1 << 40]), "expected at most 68719476736 elements"),
        (TensorProto(name="w", data_type=1, dims=[1 << 20]), "has 0 bytes or numbers, its shape [1048576]"),
        (TensorProto(name="w", data_type=1, dims=[-4], raw_data=bytes(16)), "has the shape [-4]"),
        (TensorProto(name="w", data_type=1, dims=[4], raw_data=bytes(15)), "has 15 bytes or numbers"),
        (TensorProto(name="w", data_type=1, dims=[4], float_data=[1.0] * 3), "its shape [4] needs 4"),
        (TensorProto(name="w", data_type=7, dims=[4], int64_data=[1 << 50] * 5), "has 5 bytes or numbers"),
        (TensorProto(name="w", data_type=99, dims=[4], raw_data=bytes(16)), "is of no type that is known (99)"),
        (TensorProto(name="w", data_type=8, dims=[1 << 30], string_data=[b"a"]), "has 1 bytes or numbers"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_as_large_as_they_say(tensor, said, tmp_path):
    assert said in refused(tmp_path, model_of(constants=[tensor]))


def test_values_of_impossible_shapes(tmp_path):
    huge = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1 << 40])
    assert "value 'x' has the shape" in refused(tmp_path, model_of(inputs=[huge]))


@pytest.mark.slow
def test_too_many_nodes(tmp_path):
    relus = [helper.make_node("Relu", ["x"], ["x"]) for _ in range(101_000)]
    assert "100000 nodes" in refused(tmp_path, model_of(relus)) or "too many" in refused(tmp_path, model_of(relus))


@pytest.mark.parametrize("content", [b"", b"\x3a", b"hello", b"\x08" + b"\xff" * 20, b"\x3a\x02\x12\xff", b"\x38\x01"])
def test_what_is_no_model(content, tmp_path):
    assert "is not an ONNX file (" in refused(tmp_path, content)


def test_a_file_that_changes_is_looked_at_again(tmp_path):
    path = written(tmp_path, model_of())
    check_onnx(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError):
        check_onnx(path)
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        check_onnx(tmp_path / "none.onnx")
    onnx.save(model_of(), path)
    check_onnx(path)
