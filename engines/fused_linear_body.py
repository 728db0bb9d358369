"""What `cat2dog::FusedLinear` computes, in plain ONNX, so that a lowered graph can be judged without the plugin.

The body computes as the kernel does: the product of x itself in FP32, the norm applied to it by statistics, and all
that follows in FP32, rounded once. Statistics of the output are those of the numbers before they are rounded.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engines.fused_body import function, integers_text, number_text
from engines.kernels.linear_problem import LinearProblem, Turning

_WIDE = int(ir.DataType.FLOAT)


def linear_inputs(problem: LinearProblem) -> list[str]:
    """Names for the inputs of the node, in their order."""
    p, turning = problem, problem.turning
    names = ["x", "weights"]
    names += ["statistics_in"] if p.norm else []
    names += ["sums"] if p.norm == "layer" else []
    names += ["bias"] if p.bias else []
    names += ["gain_query", "gain_key"] if turning is not None and turning.qk_norm is not None else []
    names += ["cos", "sin"] if turning is not None and turning.rope else []
    return names + (["residual"] if p.residual else [])


def linear_body(problem: LinearProblem, runs: int, name: str, opset: int) -> ir.Function:
    """The local function `cat2dog::{name}`: the inputs of the node to its outputs, statistics of so many runs."""
    p = problem
    lines = [
        f"x_wide = Cast <to: int = {_WIDE}> (x)",
        f"weights_wide = Cast <to: int = {_WIDE}> (weights)",
        "weights_t = Transpose <perm: ints = [1, 0]> (weights_wide)",
        "product = MatMul (x_wide, weights_t)",
    ]
    last = "product"
    if p.norm:
        lines += _norm(p, last)
        last = "normed"
    if p.bias:
        lines.append(f"biased = Add ({last}, bias)")
        last = "biased"
    if p.activation:
        lines += _ACTIVATIONS[p.activation](last)
        last = "active"
    if p.turning is not None:
        lines += _turned(p.turning, p.rows, last)
        last = "turned"
    if p.residual:
        lines += [f"residual_wide = Cast <to: int = {_WIDE}> (residual)", f"summed = Add ({last}, residual_wide)"]
        last = "summed"
    outputs = ["output"]
    if p.statistics:
        lines += statistics_lines(p, runs, last)
        outputs.append("statistics_out")
    # As the first input, not as the precision says: where BF16 cannot be run, everything around is FP32.
    lines.append(f"output = CastLike ({last}, x)")
    return function(name, linear_inputs(p), outputs, lines, opset)


def statistics_of(y: np.ndarray, runs: int) -> np.ndarray:
    """Statistics `[B, rows, runs, 2]` FP32 of `y [B, rows, channels]`, as `LinearProblem` has them."""
    cut = y.astype(np.float64).reshape(*y.shape[:-1], runs, -1)
    means = cut.mean(-1)
    return np.stack([means, ((cut - means[..., None]) ** 2).sum(-1)], axis=-1).astype(np.float32)


def _norm(p: LinearProblem, product: str) -> list[str]:
    """The norm, applied to the product: runs' statistics joined (Chan, Golub & LeVeque 1979), then mean and root."""
    lines = [
        f"pair = {integers_text(1, 1)}",
        "means_apart, within_apart = Split <axis: int = 3> (statistics_in, pair)",
        f"last_axis = {integers_text(3)}",
        "means = Squeeze (means_apart, last_axis)",
        "within = Squeeze (within_apart, last_axis)",
        f"run_axis = {integers_text(2)}",
        "within_sum = ReduceSum <keepdims: int = 1> (within, run_axis)",
        f"inner = Constant <value_float: float = {number_text(p.inner)}> ()",
        "within_mean = Div (within_sum, inner)",
    ]
    if p.norm == "layer":
        lines += [*_mean("mean", "means", 2), "apart = Sub (means, mean)"]
    else:
        lines.append("apart = Identity (means)")
    lines += [
        "apart_squared = Mul (apart, apart)",
        *_mean("between", "apart_squared", 2),
        "variance = Add (within_mean, between)",
        f"epsilon = Constant <value_float: float = {number_text(p.epsilon)}> ()",
        "above = Add (variance, epsilon)",
        "root = Sqrt (above)",
    ]
    if p.norm == "layer":
        lines += ["moved = Mul (mean, sums)", f"centred = Sub ({product}, moved)", "normed = Div (centred, root)"]
    else:
        lines.append(f"normed = Div ({product}, root)")
    return lines


def _mean(name: str, value: str, axis: int) -> list[str]:
    """The mean over one axis, which stays; its size is known only when it runs (S of statistics)."""
    return [
        f"{name}_axis = {integers_text(axis)}",
        f"{name}_sum = ReduceSum <keepdims: int = 1> ({value}, {name}_axis)",
        f"{name}_shape = Shape ({value})",
        f"{name}_count = Gather <axis: int = 0> ({name}_shape, {name}_axis)",
        f"{name}_size = Cast <to: int = {_WIDE}> ({name}_count)",
        f"{name} = Div ({name}_sum, {name}_size)",
    ]


def statistics_lines(p: LinearProblem, runs: int, y: str) -> list[str]:
    """Statements from the output before it is rounded to its statistics."""
    return [
        f"cut_shape = {integers_text(-1, p.rows, runs, p.width // runs)}",
        f"cut = Reshape ({y}, cut_shape)",
        *_mean("left_means", "cut", 3),
        "distances = Sub (cut, left_means)",
        "distances_squared = Mul (distances, distances)",
        f"channel_axis = {integers_text(3)}",
        "left_within = ReduceSum <keepdims: int = 1> (distances_squared, channel_axis)",
        "statistics_out = Concat <axis: int = 3> (left_means, left_within)",
    ]


def _gelu(y: str) -> list[str]:
    return [
        f"root_half = Constant <value_float: float = {number_text(math.sqrt(0.5))}> ()",
        f"bent = Mul ({y}, root_half)",
        "curve = Erf (bent)",
        *_half_of_one_plus(y),
    ]


def _gelu_tanh(y: str) -> list[str]:
    return [
        f"root_two_over_pi = Constant <value_float: float = {number_text(math.sqrt(2 / math.pi))}> ()",
        f"cubic = Constant <value_float: float = {number_text(0.044715)}> ()",
        f"square = Mul ({y}, {y})",
        f"cube = Mul (square, {y})",
        "cube_part = Mul (cube, cubic)",
        f"polynomial = Add ({y}, cube_part)",
        "bent = Mul (polynomial, root_two_over_pi)",
        "curve = Tanh (bent)",
        *_half_of_one_plus(y),
    ]


def _half_of_one_plus(y: str) -> list[str]:
    return [
        f"one = Constant <value_float: float = {number_text(1)}> ()",
        f"half = Constant <value_float: float = {number_text(0.5)}> ()",
        "lifted = Add (curve, one)",
        f"halved = Mul ({y}, half)",
        "active = Mul (halved, lifted)",
    ]


def _swiglu(y: str) -> list[str]:
    """Gate and up take turns in the last axis."""
    return [
        f"pairs_shape = {integers_text(0, 0, -1, 2)}",
        f"pairs = Reshape ({y}, pairs_shape)",
        f"one_each = {integers_text(1, 1)}",
        "gate_apart, up_apart = Split <axis: int = 3> (pairs, one_each)",
        f"pair_axis = {integers_text(3)}",
        "gate = Squeeze (gate_apart, pair_axis)",
        "up = Squeeze (up_apart, pair_axis)",
        "gate_sigmoid = Sigmoid (gate)",
        "silu = Mul (gate, gate_sigmoid)",
        "active = Mul (silu, up)",
    ]


_ACTIVATIONS = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "swiglu": _swiglu}


def _turned(turning: Turning, rows: int, y: str) -> list[str]:
    """Statements that norm and turn queries and keys, `[B, rows, heads, head_size]` each, and join them with values."""
    width, size = turning.heads * turning.head_size, turning.head_size
    lines = [
        f"thirds = {integers_text(width, width, width)}",
        f"query_flat, key_flat, value_flat = Split <axis: int = 2> ({y}, thirds)",
        f"heads_shape = {integers_text(0, 0, turning.heads, size)}",
        f"flat_shape = {integers_text(0, 0, width)}",
    ]
    if turning.rope:
        # One angle a token, the same for every head.
        lines.append(f"table_shape = {integers_text(rows, 1, size // 2)}")
        lines += [f"{table}_apart = Reshape ({table}, table_shape)" for table in ("cos", "sin")]
    for part in ("query", "key"):
        lines.append(f"{part}_0 = Reshape ({part}_flat, heads_shape)")
        last = f"{part}_0"
        if turning.qk_norm is not None:
            lines += [
                f"{part}_square = Mul ({last}, {last})",
                *_mean(f"{part}_mean", f"{part}_square", 3),
                f"{part}_epsilon = Constant <value_float: float = {number_text(turning.qk_norm)}> ()",
                f"{part}_above = Add ({part}_mean, {part}_epsilon)",
                f"{part}_root = Sqrt ({part}_above)",
                f"{part}_unit = Div ({last}, {part}_root)",
                f"{part}_1 = Mul ({part}_unit, gain_{part})",
            ]
            last = f"{part}_1"
        if turning.rope:
            lines += [
                f"{part}_halves = {integers_text(size // 2, size // 2)}",
                f"{part}_a, {part}_b = Split <axis: int = 3> ({last}, {part}_halves)",
                f"{part}_a_cos = Mul ({part}_a, cos_apart)",
                f"{part}_b_sin = Mul ({part}_b, sin_apart)",
                f"{part}_b_cos = Mul ({part}_b, cos_apart)",
                f"{part}_a_sin = Mul ({part}_a, sin_apart)",
                f"{part}_first = Sub ({part}_a_cos, {part}_b_sin)",
                f"{part}_second = Add ({part}_b_cos, {part}_a_sin)",
                f"{part}_2 = Concat <axis: int = 3> ({part}_first, {part}_second)",
            ]
            last = f"{part}_2"
        lines.append(f"{part}_joined = Reshape ({last}, flat_shape)")
    return [*lines, "turned = Concat <axis: int = 2> (query_joined, key_joined, value_flat)"]
