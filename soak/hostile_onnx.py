"""ONNX files that ask for other files, for more memory than there is, or for time without end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Write = Callable[[Path], None]


def _model(
    nodes: Sequence[NodeProto] = (), constants: Sequence[TensorProto] = (), functions: Sequence[FunctionProto] = ()
) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    nodes = nodes or [helper.make_node("Relu", ["x"], ["y"])]
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(constants))
    return helper.make_model(graph, functions=list(functions), opset_imports=opsets, ir_version=8)


def _written(model: ModelProto) -> Write:
    return lambda path: path.write_bytes(model.SerializeToString()) and None


def _external(location: str, link: str = "") -> Write:
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)

    def write(path: Path) -> None:
        if link:
            (path.parent / location).symlink_to(link)
        path.write_bytes(_model(constants=[tensor]).SerializeToString())

    return write


def _bomb(op: str, *numbers: object) -> Write:
    names = [f"c{index}" for index in range(len(numbers))]
    arrays = [
        numpy_helper.from_array(np.array(each, np.int64), name) for each, name in zip(numbers, names, strict=True)
    ]
    return _written(_model([helper.make_node(op, names, ["y"], "n")], arrays))


def _growing() -> Write:
    size = numpy_helper.from_array(np.array([1024], np.int64), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["v0"], "n0")]
    nodes += [helper.make_node("Tile", [f"v{i}", "size"], [f"v{i + 1}"], f"n{i + 1}") for i in range(4)]
    return _written(_model(nodes, [size]))


def _loop() -> Write:
    counts = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("c", 9))]
    again = helper.make_node("Identity", ["c"], ["again"])
    body = helper.make_graph([again], "body", counts, [helper.make_tensor_value_info("again", TensorProto.BOOL, [])])
    forever = [numpy_helper.from_array(np.array((1 << 63) - 1), "most"), numpy_helper.from_array(np.array(True), "yes")]
    return _written(_model([helper.make_node("Loop", ["most", "yes"], [], "endless", body=body)], forever))


def _nested(depth: int) -> Write:
    """Graphs in graphs, as bytes: packages refuse to write what is nested so deeply."""
    inner = b""
    for _ in range(depth):
        node = b"\x22\x02If" + _field(0x2A, _field(0x32, inner))  # op_type, attribute with a graph
        inner = _field(0x0A, node)
    return lambda path: path.write_bytes(b"\x08\x08" + _field(0x3A, inner)) and None


def _field(tag: int, content: bytes) -> bytes:
    size, number = bytearray(), len(content)
    while number > 127:
        size.append(number & 127 | 128)
        number >>= 7
    return bytes([tag, *size, number]) + content


def _laughing() -> Write:
    """Functions that each call the next ten times: 10^12 nodes."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    functions = [
        helper.make_function(
            "d", f"f{i}", ["a"], ["b"], [helper.make_node(f"f{i + 1}", ["a"], ["b"], domain="d")] * 10, opset
        )
        for i in range(12)
    ]
    functions.append(helper.make_function("d", "f12", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset))
    return _written(_model([helper.make_node("f0", ["x"], ["y"], domain="d")], functions=functions))


def _many(count: int) -> Write:
    """Empty nodes, three bytes each."""
    return lambda path: path.write_bytes(b"\x08\x08" + _field(0x3A, b"\x0a\x00" * count)) and None


FILES: dict[str, Write] = {
    "data of another folder": _external("/etc/hostname"),
    "data above its folder": _external("../../../../etc/hostname"),
    "data behind a link": _external("w.data", "/etc/hostname"),
    "data that never ends": _external("w.data", "/dev/zero"),
    "a tensor of 4 EB without data": _written(_model(constants=[TensorProto(name="w", data_type=1, dims=[1 << 60])])),
    "a constant of 4 TB": _bomb("ConstantOfShape", [1 << 20, 1 << 20]),
    "a constant spread to 4 TB": _bomb("Expand", [1], [1 << 40]),
    "a constant repeated to 8 TB": _bomb("Tile", [1], [1 << 40]),
    "a constant that grows step by step": _growing(),
    "a range of 10^12 numbers": _bomb("Range", 0, 1 << 40, 1),
    "an endless loop": _loop(),
    "graphs nested 100 deep": _nested(100),
    "graphs nested 5000 deep": _nested(5000),
    "functions of 10^12 nodes": _laughing(),
    "ten million nodes": _many(10_000_000),
}
