"""Activations as exporters write them, recognised so that a fused kernel can compute them instead.

GELU (Hendrycks & Gimpel, arXiv 1606.08415) with erf, `x/2 (1 + erf(x / sqrt(2)))`, with tanh, `x/2 (1 + tanh(sqrt(2/pi)
(x + 0.044715 x^3)))`, or as ONNX's own Gelu of opset 20; and silu, `x / (1 + exp(-x))`, of which SwiGLU is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from engines.graph import constant_array, made_by

# Constants of half precision are rounded: 0.5 % off is another function.
_NEAR = 5e-3


@dataclass(frozen=True, eq=False)
class Activation:
    """`kind` as `LinearProblem` calls it, of `source`."""

    kind: str
    source: ir.Value


def match_gelu(value: ir.Value) -> Activation | None:
    """The GELU that makes the value, or None."""
    operator = made_by(value, "Gelu")
    if operator is not None and operator.inputs[0] is not None:
        approximate = operator.attributes["approximate"].as_string() if "approximate" in operator.attributes else "none"
        return Activation("gelu_tanh" if approximate == "tanh" else "gelu", operator.inputs[0])
    factors, scale = _factors(value)
    if len(factors) != 2 or not _is_near(scale, 0.5):
        return None
    for x, other in (factors, factors[::-1]):
        kind = _one_plus(other, x)
        if kind is not None:
            return Activation(kind, x)
    return None


def match_silu(value: ir.Value) -> ir.Value | None:
    """x of `x * sigmoid(x)`, or None."""
    operator = made_by(value, "Swish")
    if operator is not None:
        alpha = operator.attributes["alpha"].as_float() if "alpha" in operator.attributes else 1.0
        return operator.inputs[0] if alpha == 1.0 else None
    product = made_by(value, "Mul")
    for x, other in _pairs(product):
        sigmoid = made_by(other, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs[0] is x:
            return x
    return None


def _pairs(node: ir.Node | None) -> list[tuple[ir.Value, ir.Value]]:
    """The operands of a node of two, in both orders."""
    if node is None or len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None:
        return []
    first, second = node.inputs[0], node.inputs[1]
    return [(first, second), (second, first)]


def _number(value: ir.Value | None) -> float | None:
    array = constant_array(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _is_near(number: float | None, wanted: float) -> bool:
    return number is not None and math.isclose(number, wanted, rel_tol=_NEAR)


def _factors(value: ir.Value, depth: int = 3) -> tuple[list[ir.Value], float]:
    """What a chain of Mul and Div by numbers multiplies, and the product of these numbers."""
    quotient, product = made_by(value, "Div"), made_by(value, "Mul")
    if quotient is not None and depth and (number := _number(quotient.inputs[1])) and quotient.inputs[0] is not None:
        values, scale = _factors(quotient.inputs[0], depth - 1)
        return values, scale / number
    if product is None or not depth:
        return [value], 1.0
    values, scale = [], 1.0
    for operand in product.inputs:
        number = _number(operand)
        if number is not None:
            scale *= number
        elif operand is not None:
            inner, factor = _factors(operand, depth - 1)
            values, scale = values + inner, scale * factor
    return values, scale


def _one_plus(value: ir.Value, x: ir.Value) -> str | None:
    """Which GELU `1 + erf(...)` or `1 + tanh(...)` of x belongs to."""
    for one, curve in _pairs(made_by(value, "Add")):
        if not _is_near(_number(one), 1.0):
            continue
        erf, tanh = made_by(curve, "Erf"), made_by(curve, "Tanh")
        if erf is not None and erf.inputs[0] is not None:
            factors, scale = _factors(erf.inputs[0])
            return "gelu" if factors == [x] and _is_near(scale, math.sqrt(0.5)) else None
        if tanh is not None and tanh.inputs[0] is not None:
            factors, scale = _factors(tanh.inputs[0])
            near = len(factors) == 1 and _is_near(scale, math.sqrt(2 / math.pi))
            return "gelu_tanh" if near and _is_cubic(factors[0], x) else None
    return None


def _is_cubic(value: ir.Value, x: ir.Value) -> bool:
    """Whether the value is x + 0.044715 x^3."""
    for straight, bent in _pairs(made_by(value, "Add")):
        factors, scale = _factors(bent)
        if straight is x and _is_near(scale, 0.044715):
            power = made_by(factors[0], "Pow") if len(factors) == 1 else None
            if power is not None:
                return power.inputs[0] is x and _number(power.inputs[1]) == 3.0
            return factors == [x, x, x]
    return False
