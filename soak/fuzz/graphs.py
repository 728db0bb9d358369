"""Parsers of graphs and of what travels in them: launch plans, sizes, ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx.parser

from engines.batch import BatchProfile
from engines.kernels.launch import Image, Launch, LaunchPlan, Number, Pointer, Tensor, TensorMap
from engines.kernels.read_plan import read_plan
from engines.kernels.sizes import check_size, evaluate
from engines.lowering import fix_batch, load
from soak.fuzz.targets import REFUSED, Target, by_path


def _plan(data: bytes) -> None:
    text, _, images = data.partition(b"\0")
    plan = read_plan(text.decode(), images)
    plan.text()  # what was read can be written


def _plans() -> list[bytes]:
    pointer = Pointer("input", 0, "B*16")
    table = TensorMap(pointer, "fp16", ("64", "B*16"), ("128",), (64, 16), "128B")
    launch = Launch(0, "k", ("B*4", 1, 1), 128, 0, (pointer, Pointer("output"), Number("i32", "B"), table))
    tensor = Tensor("fp16", ("B", 16, 64))
    plan = LaunchPlan("9.0", (tensor,), (tensor,), (launch,), (Image(b"\x7fELF"),), "B*64")
    return [plan.text().encode() + b"\0" + plan.data]


def _size(data: bytes) -> None:
    text = data.decode()
    check_size(text)
    if not 0 <= evaluate(text, {"B": 3, "N": 1 << 20}) < 1 << 63:
        raise AssertionError("a size is out of range")


def _graph(path: Path) -> None:
    fix_batch(load(path), BatchProfile(1, 1, 1), path)


_TEXT = """<ir_version: 8, opset_import: ["" : 17, "d" : 1]>
g (float[B, 4] x, bool c) => (float[B, 4] y)
<float[4, 4] w = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}, int64[2] shape = {-1, 4}>
{
  flat = Reshape (x, shape)
  up = MatMul (flat, w)
  half = Cast <to = 10> (up)
  whole = Cast <to = 1> (half)
  twice = d.double (whole)
  y = If (c) <then_branch = one () => (float[B, 4] a) { a = Relu (twice) },
              else_branch = two () => (float[B, 4] b) { b = Tanh (twice) }>
}
<domain: "d", opset_import: ["" : 17]>
double (a) => (b) { b = Add (a, a) }
"""


def _graphs() -> list[bytes]:
    """One with constants, a function and graphs inside a node."""
    return [onnx.parser.parse_model(_TEXT).SerializeToString()]


TARGETS = (
    Target(
        "launch_plan", ("engines.kernels.read_plan", "engines.kernels.launch", "engines.kernels.sizes"), _plan,
        (ValueError,), _plans,
    ),
    Target("size", ("engines.kernels.sizes",), _size, (ValueError,), lambda: [b"cdiv(B*4,64)+min(N,8)", b"(B-1)*2/3"]),
    Target(
        "graph", ("runtime.onnx_guard", "runtime.onnx_wire", "engines.lowering", "onnx_ir"),
        by_path(_graph, "x.onnx"), REFUSED, _graphs,
    ),
)  # fmt: skip
