"""Pixels lowered to fused nodes: what is followed, what is left alone and why; no number changes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from engines import fused_pixels, fused_pixels_match
from engines.batch import BatchProfile
from engines.bf16 import compute_wide
from engines.checkable import checkable
from engines.fused_pixels import PixelsLowering
from engines.fused_pixels_body import pixels_body
from engines.kernels.pixels_problem import Step
from runtime.errors import InputError, ToolchainError
from tests.engines.graphs import graph_of
from tests.engines.pixels_stand_ins import PixelsStandIn
from tests.export.micro import run_onnx

BATCH = BatchProfile(1, 2, 4)
IMAGE = "uint8[B,8,12,3] image"
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CONSTANTS = {
    "scale": np.full(3, 1 / 127.5, np.float32), "shift": np.float32(-1), "mean": np.array(MEAN, np.float32),
    "deviation": np.array(DEVIATION, np.float32), "mean_first": np.array(MEAN, np.float16).reshape(1, 3, 1, 1),
    "deviation_first": np.array(DEVIATION, np.float16).reshape(3, 1, 1), "half": np.float32(127.5),
    "half16": np.float16(127.5), "one16": np.float16(1), "zero": np.float32(0), "most": np.float32(255),
    "least16": np.float16(-1), "columns": np.arange(12, dtype=np.float32).reshape(12, 1),
    "axes_last": np.array([-1, 2, 4, 3, 4, 3]), "axes_first": np.array([-1, 3, 2, 4, 3, 4]),
    "grid": np.array([-1, 2, 3, 4, 4, 3]), "tokens": np.array([0, 6, -1]), "mixed": np.array([-1, 12, 24]),
    "image_first": np.array([-1, 3, 8, 12]), "image_last": np.array([-1, 8, 12, 3]),
    "w": np.random.default_rng(2).standard_normal((48, 3, 4, 4)).astype(np.float16),
}  # fmt: skip
# Rows and columns in turns, as a grid of patches has them.
LAST = "r = Reshape (v, axes_last)\nt = Transpose <perm = [0, 1, 3, 2, 4, 5]> (r)\ny = Reshape (t, tokens)"
FIRST = "n = Transpose <perm = [0, 3, 1, 2]> (v)\nr = Reshape (n, axes_first)\n{}\ny = Reshape (t, tokens)"
PQC = FIRST.format("t = Transpose <perm = [0, 2, 4, 3, 5, 1]> (r)")
CPQ = FIRST.format("t = Transpose <perm = [0, 2, 4, 1, 3, 5]> (r)")
SCALED = "a = Cast <to = 1> (image)\nb = Mul (a, scale)\nc = Add (b, shift)\nv = Cast <to = 10> (c)\n"
WAYS_IN = {
    "channels last": (SCALED + LAST, "pqc", ["mul", "add"]),
    "as cat2dog has it": (SCALED + PQC, "pqc", ["mul", "add"]),
    "channels before rows": (SCALED + CPQ, "cpq", ["mul", "add"]),
    "computed at last": (
        "n = Transpose <perm = [0, 3, 1, 2]> (image)\nr = Reshape (n, axes_first)\n"
        "t = Transpose <perm = [0, 2, 4, 3, 5, 1]> (r)\nz = Reshape (t, tokens)\nw0 = Cast <to = 1> (z)\n"
        "d = Div (w0, most)\nw1 = Sub (shift, d)\ny = Cast <to = 10> (w1)",
        "pqc", ["div", "rsub"],
    ),
    "in half precision, of each channel": (
        "a = Cast <to = 10> (image)\nn = Transpose <perm = [0, 3, 1, 2]> (a)\ns = Sub (n, mean_first)\n"
        "d = Div (s, deviation_first)\nr = Reshape (d, axes_first)\nt = Transpose <perm = [0, 2, 4, 3, 5, 1]> (r)\n"
        "y = Reshape (t, tokens)",
        "pqc", ["sub", "fp16", "div"],
    ),
    "of each channel": (
        "a = Cast <to = 1> (image)\ni = Identity (a)\nb = Sub (i, mean)\nc = Div (b, deviation)\n"
        "v = Cast <to = 10> (c)\n" + LAST,
        "pqc", ["sub", "div"],
    ),
    "more afterwards": (SCALED + LAST.replace("y =", "z =") + "\nz2 = Mul (z, half16)\ny = Sigmoid (z2)", "pqc",
                        ["mul", "add", "fp16", "mul"]),
}  # fmt: skip
LEFT_IN = {
    "of a convolution": (
        SCALED + "n = Transpose <perm = [0, 3, 1, 2]> (v)\ny = Conv <strides = [4, 4]> (n, w)",
        "'n.*'",
    ),
    "read twice": (SCALED + LAST + "\nother = Shape (image)", "there"),
    "scaled by where they are": (SCALED.replace("shift", "columns") + LAST, "'t'|'y'"),
    "of two samples in one": (SCALED + LAST.replace("tokens", "mixed"), "'y'"),
    "in FP32": (SCALED.replace("to = 10", "to = 1") + LAST, "'y'"),
}
PATCHES = "float16[B,6,48] x"
UNPATCHED = "r = Reshape (x, grid)\nt = Transpose <perm = [0, 5, 1, 3, 2, 4]> (r)\nn = Reshape (t, image_first)\n"
UNPATCHED += "v = Transpose <perm = [0, 2, 3, 1]> (n)\na = Cast <to = 1> (v)\n"
ROUNDED = "d = Round (c)\ne = Clip (d, zero, most)\ndog = Cast <to = 2> (e)"
WAYS_OUT = {
    "as cat2dog has it": (UNPATCHED + "b = Mul (a, half)\nc = Add (b, half)\n" + ROUNDED, "pqc",
                          ["mul", "add", "round", "max", "min"]),
    "of each channel": (UNPATCHED + "b = Mul (deviation, a)\nc = Add (mean, b)\nd = Round (c)\ne = Max (d, zero)\n"
                        "f = Min (most, e)\ndog = Cast <to = 2> (f)", "pqc", ["mul", "add", "round", "max", "min"]),
    "in half precision": (
        "k = Clip (x, least16, one16)\no = Add (k, one16)\nh = Mul (o, half16)\nd = Round (h)\n"
        "r = Reshape (d, grid)\nt = Transpose <perm = [0, 1, 3, 2, 4, 5]> (r)\nn = Reshape (t, image_last)\n"
        "dog = Cast <to = 2> (n)", "pqc", ["max", "min", "add", "fp16", "mul", "fp16", "round"],
    ),
    "more before": ("s = Sigmoid (x)\n" + UNPATCHED.replace("(x,", "(s,") + "c = Mul (a, most)\n" + ROUNDED, "pqc",
                    ["mul", "round", "max", "min"]),
}  # fmt: skip
LEFT_OUT = {
    "cut off, not rounded": (UNPATCHED + "c = Mul (a, half)\ne = Clip (c, zero, most)\ndog = Cast <to = 2> (e)", "'x'"),
    "not clamped": (UNPATCHED + "c = Mul (a, half)\nd = Round (c)\ndog = Cast <to = 2> (d)", "'x'"),
    "read on the way": (UNPATCHED + "b = Mul (a, half)\nc = Add (b, half)\n" + ROUNDED + "\nother = Shape (v)", "'a'"),
    "no cast": ("dog = Identity (x)", "no cast"),
}


def model_in(nodes, **constants):
    outputs = "float16[B,6,48] y" if "Conv" not in nodes else "float16[B,48,2,3] y"
    outputs = outputs.replace("6,48", "12,24") if "mixed" in nodes else outputs
    outputs = outputs.replace("16[", "[") if "to = 10" not in nodes else outputs
    outputs += ", int64[4] other" if "other" in nodes else ""
    return _model(f"g ({IMAGE}) => ({outputs}) {{\n{nodes}\n}}", constants)


def model_out(nodes, **constants):
    source = PATCHES if "dog = Identity" not in nodes else "uint8[B,8,12,3] x"
    outputs = "uint8[B,8,12,3] dog" + (", int64[4] other" if "other" in nodes else "")
    return _model(f"g ({source}) => ({outputs}) {{\n{nodes}\n}}", constants)


def _model(text, constants):
    words = set(re.findall(r"\w+", text))
    return graph_of(text, **{name: array for name, array in {**CONSTANTS, **constants}.items() if name in words})


def lowering(planner=None, batch=BATCH):
    return PixelsLowering(planner or PixelsStandIn(), batch, {"B"})


def run(model, feed, path: Path):
    """In ONNX Runtime, which leaves out FP16 roundings unless they are written; `model` stays as it is."""
    rounded = ir.serde.deserialize_model(ir.serde.serialize_model(model))
    compute_wide(rounded, ir.DataType.FLOAT16)
    ir.save(rounded, path)
    return run_onnx(path, feed)


@pytest.mark.parametrize("name", WAYS_IN)
def test_a_way_in(name, tmp_path):
    nodes, order, steps = WAYS_IN[name]
    model, planner = model_in(nodes), PixelsStandIn()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 12, 3)).astype(np.uint8)
    expected = run(model, {"image": pixels}, tmp_path / "before.onnx")["y"]
    (lowered,) = lowering(planner).lower(model)
    (problem,) = planner.asked
    assert (lowered.node, lowered.form) == ("image", "plugin")
    assert lowered.why == f"the only one; folded: {', '.join([*steps, 'patches of 4x4x3'])}"
    assert (problem.order, problem.batch, [step.op for step in problem.steps]) == (order, (1, 2, 4), steps)
    kinds = [node.op_type for node in model.graph]
    assert kinds == ["Cast", "FusedPixels", *(["Sigmoid"] if name == "more afterwards" else [])]
    assert np.array_equal(run(checkable(model), {"image": pixels}, tmp_path / "after.onnx")["y"], expected)


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_way_out(name, tmp_path):
    nodes, order, steps = WAYS_OUT[name]
    model, planner = model_out(nodes), PixelsStandIn()
    x = np.random.default_rng(1).uniform(-1.2, 1.2, (3, 6, 48)).astype(np.float16)
    expected = run(model, {"x": x}, tmp_path / "before.onnx")["dog"]
    (lowered,) = lowering(planner).lower(model)
    (problem,) = planner.asked
    assert lowered.why == f"the only one; folded: {', '.join(['patches of 4x4x3', *steps])}"
    assert (problem.order, [step.op for step in problem.steps]) == (order, steps)
    kinds = [node.op_type for node in model.graph]
    assert kinds == [*(["Sigmoid"] if name == "more before" else []), "FusedPixels", "Cast"]
    got = run(checkable(model), {"x": x}, tmp_path / "after.onnx")["dog"]
    assert got.dtype == np.uint8 and np.array_equal(got, expected)
    assert name == "more before" or len(np.unique(got)) > 150


@pytest.mark.parametrize(("make", "cases"), [(model_in, LEFT_IN), (model_out, LEFT_OUT)], ids=["in", "out"])
def test_what_is_left_alone_says_why(make, cases):
    for nodes, reached in cases.values():
        model, planner = make(nodes), PixelsStandIn()
        before = [node.op_type for node in model.graph]
        (lowered,) = [each for each in lowering(planner).lower(model) if make is model_in or each.node == "dog"]
        assert lowered.form == "tensorrt" and not planner.asked
        assert [node.op_type for node in model.graph] == before
        assert re.search(reached, lowered.why), lowered.why


def test_what_the_planner_refuses_is_left_alone():
    model = model_in(WAYS_IN["channels last"][0])
    (lowered,) = lowering(PixelsStandIn(lambda problem: "no kernel of that")).lower(model)
    assert (lowered.form, lowered.why) == ("tensorrt", "no kernel of that")
    assert all(node.domain == "" for node in model.graph)

    def uncompiled(problem):
        raise InputError("this kernel has to be compiled and there is no compiler")

    assert "has to be compiled" in lowering(uncompiled).lower(model)[0].why


@pytest.mark.parametrize("batch", [1, 6])
def test_a_fixed_batch_in_the_graphs_own_shapes(batch):
    """Sizes that exporters write for a batch that is known, and one that is as large as a side of the grid."""
    model = model_in(WAYS_IN["as cat2dog has it"][0], axes_first=np.array([batch, 3, 2, 4, 3, 4]))
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        value.shape = ir.Shape([batch, *value.shape[1:]])
    planner = PixelsStandIn()
    (lowered,) = lowering(planner, BatchProfile(batch, batch, batch)).lower(model)
    assert lowered.form == "plugin" and planner.asked[0].batch == (batch, batch, batch)


def test_a_huge_image_is_not_followed():
    text = "g (uint8[B,20000,20000,3] image) => (float[B,20000,20000,3] y) { y = Cast <to = 1> (image) }"
    (lowered,) = lowering().lower(graph_of(text))
    assert lowered.why == "an image of 20000 x 20000 x 3 numbers is not followed; of at most 2^26 it is"


def test_a_wrong_match_is_found(monkeypatch):
    steps_of = fused_pixels_match.steps_of
    monkeypatch.setattr(fused_pixels_match, "steps_of", lambda *given: (*steps_of(*given), Step("add", (1e-3,))))
    with pytest.raises(ToolchainError, match=r"^y: \d+ numbers .* differ, .*: build with --linear tensorrt, and"):
        lowering().lower(model_in(WAYS_IN["channels last"][0]))
    monkeypatch.undo()
    monkeypatch.setattr(fused_pixels, "pixels_body", lambda p, *rest: pixels_body(replace(p, order="qpc"), *rest))
    with pytest.raises(ToolchainError, match=r"^dog: \d+ numbers of the fused pixels node differ"):
        lowering().lower(model_out(WAYS_OUT["of each channel"][0]))
