"""RMSNorm over a head is recognised however it is written, and nothing that only looks like it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from engines.fold_norm import match_norm
from tests.engines.graphs import graph_of, value_of

D = 4
GAIN = np.array([0.5, 1, 2, 4], np.float32)
EPSILON = 2.0**-10
SQUARES = {"pow": "s = Pow (w, two)", "product": "s = Mul (w, w)"}
ROOTS = {
    "reciprocal": "r = Sqrt (p)\ni = Reciprocal (r)\nu = Mul (w, i)",
    "quotient": "r = Sqrt (p)\nu = Div (w, r)",
    "one over": "r = Sqrt (p)\ni = Div (one, r)\nu = Mul (i, w)",
    "power": "i = Pow (p, minus_half)\nu = Mul (w, i)",
}
MEAN = "m = ReduceMean <axes = [-1], keepdims = 1> (s)\np = Add (m, epsilon)"
GAINED = "g = Mul (u, gain)\ny = Cast <to = 10> (g)"


def norm_of(*lines, opset=17, gain=GAIN, shape=f"b,2,3,{D}"):
    numbers = {"two": 2.0, "one": 1.0, "minus_half": -0.5, "epsilon": EPSILON}
    constants = {name: np.array(value, np.float32) for name, value in numbers.items()}
    constants |= {"gain": gain, "last": np.array([-1])}
    body = "\n".join(["w = Cast <to = 1> (x)", *lines])
    model = graph_of(f"g (float16[{shape}] x) => (float16[{shape}] y)\n{{\n{body}\n}}", opset, **constants)
    return match_norm(value_of(model, "y"), D, ir.DataType.FLOAT16), model


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("square", SQUARES)
def test_every_way_to_write_it(square, root):
    found, model = norm_of(SQUARES[square], MEAN, ROOTS[root], GAINED)
    assert found.source is value_of(model, "w") and found.epsilon == EPSILON
    assert np.array_equal(found.gain, GAIN) and found.gain.dtype == np.float32


def test_axes_as_an_input():
    mean = "m = ReduceMean <keepdims = 1> (s, last)\np = Add (epsilon, m)"
    assert norm_of(SQUARES["pow"], mean, ROOTS["quotient"], GAINED, opset=18)[0].epsilon == EPSILON


def test_without_a_gain_it_is_one():
    found, _ = norm_of(SQUARES["pow"], MEAN, ROOTS["reciprocal"], "y = Cast <to = 10> (u)")
    assert np.array_equal(found.gain, np.ones(D))


def test_a_gain_in_half_precision():
    half = GAINED.replace("g = Mul (u, gain)\ny = Cast <to = 10> (g)", "h = Cast <to = 10> (u)\ny = Mul (h, gain)")
    found, _ = norm_of(SQUARES["pow"], MEAN, ROOTS["reciprocal"], half, gain=GAIN.astype(np.float16))
    assert np.array_equal(found.gain, GAIN)


@pytest.mark.parametrize(("attributes", "epsilon"), [("", 1e-5), (", epsilon = 0.25, stash_type = 1", 0.25)])
def test_as_one_operator(attributes, epsilon):
    operator = f"g = RMSNormalization <axis = -1{attributes}> (w, gain)\ny = Cast <to = 10> (g)"
    found, model = norm_of(operator, opset=23)
    assert found.source is value_of(model, "w") and found.epsilon == pytest.approx(epsilon)
    assert np.array_equal(found.gain, GAIN)
    assert norm_of(operator.replace("axis = -1", "axis = 2"), opset=23)[0] is None


OTHER = {
    "cube": (SQUARES["pow"].replace("two", "one"), MEAN, ROOTS["quotient"], GAINED),
    "sum": (SQUARES["pow"], MEAN.replace("ReduceMean <axes = [-1], keepdims = 1> (s)", "ReduceSum (s, last)"),
            ROOTS["quotient"], GAINED),
    "other axis": (SQUARES["pow"], MEAN.replace("[-1]", "[-2]"), ROOTS["quotient"], GAINED),
    "no epsilon": (SQUARES["pow"], MEAN.replace("p = Add (m, epsilon)", "p = Identity (m)"), ROOTS["quotient"], GAINED),
    "epsilons by channel": (SQUARES["pow"], MEAN.replace("epsilon)", "gain)"), ROOTS["quotient"], GAINED),
    "of another": (SQUARES["pow"], MEAN, ROOTS["quotient"].replace("(w, r)", "(s, r)"), GAINED),
    "the wrong way up": (SQUARES["pow"], MEAN, ROOTS["quotient"].replace("(w, r)", "(r, w)"), GAINED),
    "no root": (SQUARES["pow"], MEAN, "u = Div (w, p)", GAINED),
    "another power": (SQUARES["pow"], MEAN, ROOTS["power"].replace("minus_half", "one"), GAINED),
    "centred": ("c = ReduceMean <axes = [-1], keepdims = 1> (w)\nd = Sub (w, c)\ns = Mul (d, d)", MEAN,
                ROOTS["quotient"], GAINED),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHER)
def test_what_looks_alike_is_not_taken(other):
    assert norm_of(*OTHER[other])[0] is None


@pytest.mark.parametrize(
    "gain", [np.ones((3, 1), np.float32), np.ones((2, 1, 1), np.float32), np.float32(2).reshape(1)]
)
def test_a_gain_that_is_not_one_a_channel_is_not_taken(gain):
    assert norm_of(SQUARES["pow"], MEAN, ROOTS["reciprocal"], GAINED, gain=gain)[0] is None
