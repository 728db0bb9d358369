"""Linear layers as other exporters write them: what is folded, and that a wrong fold is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines import fused_linear, fused_linear_activation, fused_linear_body, fused_linear_norm
from engines.batch import BatchProfile
from engines.fused_linear import LinearLowering
from engines.fused_linear_node import linear_problem_of
from runtime.errors import ToolchainError
from tests.engines.graphs import graph_of
from tests.engines.linear_stand_ins import LinearStandIn

N, C, M = 6, 16, 32
X = f"float16[B,{N},{C}] x"
RNG = np.random.default_rng(3)


def half(*shape):
    return RNG.standard_normal(shape).astype(np.float16)


CONSTANTS = {
    "w": half(C, M), "w2": half(C, M), "square": half(C, C), "square2": half(C, C), "turned": half(M, C),
    "down": half(M, C), "b": half(M), "b2": half(1, 1, M), "small": half(C), "table": half(N, M),
    "batched": half(1, N, M), "row": half(N, 1), "gain": RNG.uniform(0.5, 2, C).astype(np.float32),
    "offset": RNG.uniform(-1, 1, C).astype(np.float32),
    "half": np.float16(0.5), "one": np.float16(1), "root2": np.float16(2**0.5), "per_root2": np.float16(0.5**0.5),
    "three": np.float16(3), "cubic": np.float16(0.044715), "root_two_over_pi": np.float16((2 / np.pi) ** 0.5),
    "other_cubic": np.float16(0.06), "epsilon": np.float32(1e-3), "two": np.float32(2),
    "flat": np.array([-1, C]),
}  # fmt: skip

ERF = "d = {}\nr = Erf (d)\no = Add (r, one)"
DIV, MUL = ERF.format("Div (v, root2)"), ERF.format("Mul (per_root2, v)")
LINEAR = "p = MatMul (x, w)\nv = Add (p, b)\n"
TANH = """c = Pow (v, three)
s = Mul ({cubic}, c)
t = Add (v, s)
u = Mul (root_two_over_pi, t)
h = Tanh (u)
o = Add (h, one)
k = Mul (half, o)
y = Mul (v, k)"""
TWO = "q = MatMul (x, w2)\n"
GATE = "g = MatMul (x, w)\n"
SILU = "e = Sigmoid (g)\na = Mul (g, e)\n"
NORM = "wide = Cast <to = 1> (f)\nnorm = LayerNormalization <axis = -1, epsilon = 0.01> (wide, gain, offset)\n"
NORM += "n = Cast <to = 10> (norm)\n"
FIRST = "f = MatMul (x, square)\n"

# Name: (input, output's shape, nodes, opset, what is folded into each layer; None for a layer that stays as it is).
CASES = {
    "nothing": (X, M, "y = MatMul (x, w)", 17, [""]),
    "bias": (X, M, "p = MatMul (x, w)\ny = Add (b, p)", 17, ["bias"]),
    "bias with ones before": (X, M, "p = MatMul (x, w)\ny = Add (p, b2)", 17, ["bias"]),
    "a column is no bias": (X, M, "p = MatMul (x, w)\ny = Add (p, row)", 17, [""]),
    "Gemm": (f"float16[B,{C}] x", M, "y = Gemm (x, w, b)", 17, ["bias"]),
    "Gemm with its matrix turned": (f"float16[B,{C}] x", M, "y = Gemm <transB = 1> (x, turned, b)", 17, ["bias"]),
    "a transposed constant": (X, M, "t = Transpose <perm = [1, 0]> (turned)\ny = MatMul (x, t)", 17, [""]),
    "scaled Gemm": (f"float16[B,{C}] x", M, "y = Gemm <alpha = 0.5> (x, w, b)", 17, []),
    "four dimensions": (f"float16[B,2,3,{C}] x", M, LINEAR + "y = Add (v, v)", 17, ["bias"]),
    "GELU": (X, M, LINEAR + DIV + "\nk = Mul (half, o)\ny = Mul (v, k)", 17, ["bias, gelu"]),
    "GELU, another order": (X, M, LINEAR + MUL + "\nk = Mul (v, o)\ny = Mul (k, half)", 17, ["bias, gelu"]),
    "GELU, half of x": (X, M, LINEAR + MUL + "\nk = Mul (v, half)\ny = Mul (k, o)", 17, ["bias, gelu"]),
    "twice GELU": (X, M, LINEAR + DIV + "\nk = Mul (one, o)\ny = Mul (v, k)", 17, ["bias"]),
    "GELU read inside": (X, M, LINEAR + DIV + "\nk = Mul (half, o)\nm = Mul (v, k)\ny = Add (m, r)", 17, ["bias"]),
    "not quite GELU": (X, M, LINEAR + DIV + "\nk = Mul (half, o)\ny = Mul (p, k)", 17, [""]),
    "GELU with tanh": (X, M, LINEAR + TANH.format(cubic="cubic"), 17, ["bias, gelu_tanh"]),
    "another polynomial": (X, M, LINEAR + TANH.format(cubic="other_cubic"), 17, ["bias"]),
    "Gelu": (X, M, LINEAR + "y = Gelu (v)", 20, ["bias, gelu"]),
    "Gelu with tanh": (X, M, LINEAR + 'y = Gelu <approximate = "tanh"> (v)', 20, ["bias, gelu_tanh"]),
    "SwiGLU": (X, M, GATE + SILU + TWO + "y = Mul (a, q)", 17, ["swiglu"]),
    "SwiGLU, up first": (X, M, TWO + GATE + SILU + "y = Mul (q, a)", 17, ["swiglu"]),
    "SwiGLU of other x": (X, M, "z = Neg (x)\nq = MatMul (z, w2)\n" + GATE + SILU + "y = Mul (q, a)", 17, ["", ""]),
    "gate read twice": (X, M, GATE + SILU + TWO + "m = Mul (a, q)\ny = Add (m, g)", 17, ["", ""]),
    "residual": (X, C, "p = MatMul (x, square)\ny = Add (x, p)", 17, ["residual"]),
    "residual after GELU": (X, C, "p = MatMul (x, square)\ng = Gelu (p)\ny = Add (g, x)", 20, ["gelu, residual"]),
    "table": (X, M, LINEAR + "y = Add (table, v)", 17, ["bias, residual"]),
    "table with a batch of one": (X, M, LINEAR + "y = Add (v, batched)", 17, ["bias, residual"]),
    "two layers added": (X, C, FIRST + "q = MatMul (x, square2)\ny = Add (f, q)", 17, ["", "residual"]),
    "read by two": (X, C, "p = MatMul (x, square)\nz = Add (x, p)\ny = Mul (z, p)", 17, [""]),
    "chain": (
        X, C, LINEAR + "d = MatMul (v, down)\ne = Add (d, small)\ny = Add (e, x)", 17, ["bias", "bias, residual"],
    ),
    "norm": (X, M, FIRST + NORM + "y = MatMul (n, w)", 17, ["statistics", "layer norm, bias"]),
    "norm that two read": (
        X, M, FIRST + NORM + "p = MatMul (n, w)\nq = MatMul (n, w2)\ny = Mul (p, q)", 17,
        ["statistics", "layer norm, bias", "layer norm, bias"],
    ),
    "norm that others read": (
        X, C, FIRST + NORM + "p = MatMul (n, square2)\ny = Add (n, p)", 17,
        ["", "residual; not folded: layer norm (others read it, too)"],
    ),
    "norm of the input": (
        X, M, "f = Neg (x)\n" + NORM + "y = MatMul (n, w)", 17,
        ["; not folded: layer norm (what it is of is made by Neg, not by a linear layer)"],
    ),
    "norm without island": (
        X, M, FIRST + "n = LayerNormalization <axis = 2> (f, small)\ny = MatMul (n, w)", 17,
        ["statistics", "layer norm"],
    ),
    "norm over two axes": (
        X, M, FIRST + "n = LayerNormalization <axis = 1> (f, every)\ny = MatMul (n, w)", 17, ["", ""],
    ),
    "rms norm": (
        X, M,
        FIRST + "wide = Cast <to = 1> (f)\nq = Pow (wide, two)\nm = ReduceMean <axes = [2]> (q)\na = Add (m, epsilon)\n"
        "r = Sqrt (a)\nd = Div (wide, r)\ng = Mul (d, gain)\nn = Cast <to = 10> (g)\ny = MatMul (n, w)", 17,
        ["statistics", "rms norm"],
    ),
    "rms norm of opset 23": (
        X, M, FIRST + "n = RMSNormalization <axis = -1> (f, small)\ny = MatMul (n, w)", 23, ["statistics", "rms norm"],
    ),
    "SwiGLU after a norm": (
        X, M,
        FIRST + NORM.replace("n = ", "z = ") + "g = MatMul (z, w)\n" + SILU + "q = MatMul (z, w2)\ny = Mul (a, q)", 17,
        ["statistics", "layer norm, bias, swiglu"],
    ),
}  # fmt: skip


def model_of(name):
    given, width, text, opset, _ = CASES[name]
    leading = given.split("]")[0].rsplit(",", 1)[0].split("[")[1]
    outputs = f"float16[{leading},{width}] y"
    outputs += f", float16[{leading},{width}] r" if name == "GELU read inside" else ""
    used = {key: value for key, value in CONSTANTS.items() if _names(text) & {key}}
    if name == "norm over two axes":
        used["every"] = half(N, C)
    return graph_of(f"g ({given}) => ({outputs}) {{\n{text}\n}}", opset, **used)


def _names(text):
    return set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())


def lowered_of(name, planner=None):
    model = model_of(name)
    lowering = LinearLowering(planner or LinearStandIn(), BatchProfile(2, 2, 2), {"B"})
    return lowering.lower(model).nodes, model


@pytest.mark.parametrize("name", CASES)
def test_what_is_folded(name):
    """The lowering itself compares every fold with the graph in ONNX Runtime."""
    nodes, model = lowered_of(name)
    expected = CASES[name][4]
    words = [node.why.removeprefix("the only one").removeprefix("; ").removeprefix("folded: ") for node in nodes]
    assert words == [text.removeprefix("; ") for text in expected]
    fused = [node for node in model.graph if node.op_type == "FusedLinear"]
    assert len(fused) == len(expected)
    (given,) = model.graph.inputs
    rows = int(np.prod([size for size in given.shape[1:-1]]))
    assert all(linear_problem_of(node).rows == rows for node in fused)
    output = model.graph.outputs[0]
    assert output.name == "y" and len(output.shape) == len(given.shape)


def _found(room, name, change):
    real = getattr(room, name)
    return room, name, lambda *arguments: change(real(*arguments))


def _norm(**changes):
    return lambda norm: norm and replace(norm, **{key: change(norm) for key, change in changes.items()})


FAULTS = {
    "another epsilon": ("norm", _found(fused_linear_norm, "match_input_norm", _norm(epsilon=lambda n: 1e-6))),
    "other gains": ("norm", _found(fused_linear_norm, "match_input_norm", _norm(gain=lambda n: n.gain[::-1]))),
    "no offset": ("norm", _found(fused_linear_norm, "match_input_norm", _norm(offset=lambda n: None))),
    "another norm": (
        "norm without island", _found(fused_linear_norm, "match_input_norm", _norm(kind=lambda n: "rms")),
    ),
    "another GELU": ("twice GELU", (fused_linear_activation, "_is_near", lambda number, wanted: number is not None)),
    "gate and up swapped": (
        "SwiGLU",
        _found(fused_linear, "find_layers", lambda layers: [_swapped(layer) for layer in layers]),
    ),
    "other sums": (
        "norm", _found(fused_linear, "lay_out", lambda w: w if w.sums is None else replace(w, sums=-w.sums)),
    ),
    "no bias": ("bias", _found(fused_linear, "lay_out", lambda w: replace(w, bias=0 * w.bias))),
    "another residual": (
        "table", _found(fused_linear, "_constants", lambda arrays: {**arrays, "residual": arrays["residual"][::-1]}),
    ),
}  # fmt: skip


def _swapped(layer):
    layer.products = layer.products[::-1]
    return layer


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_fold_is_found(fault, monkeypatch):
    case, change = FAULTS[fault]
    monkeypatch.setattr(*change)
    where = (
        r": the numbers of the fused linear node are \S+ at \(\d, \d, \d+\) where the graph has \S+, expected within"
    )
    with pytest.raises(ToolchainError, match=rf"{where} \S+: build with --linear tensorrt, and report this graph$"):
        lowered_of(case)


def test_wrong_statistics_are_found(monkeypatch):
    real = fused_linear_body.statistics_lines
    squares = ["z = Mul (left_means, left_means)", "statistics_out = Concat <axis: int = 3> (z, left_within)"]
    monkeypatch.setattr(fused_linear_body, "statistics_lines", lambda *given: [*real(*given)[:-1], *squares])
    with pytest.raises(ToolchainError, match=r": the means of the fused linear node are "):
        lowered_of("norm")


def test_a_graph_of_fp32_keeps_its_layers():
    text = f"g (float[B,{N},{C}] x) => (float[B,{N},{M}] y) {{\ny = MatMul (x, wide)\n}}"
    model = graph_of(text, wide=half(C, M).astype(np.float32))
    (node,) = LinearLowering(LinearStandIn(), BatchProfile(1, 1, 1), {"B"}).lower(model).nodes
    assert (node.form, node.why) == ("tensorrt", "a linear layer that is not of FP16 or BF16 has no fused kernel")
