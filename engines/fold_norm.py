"""RMSNorm over the last axis, recognised so that a fused kernel can do it instead.

Recognised is `x / sqrt(mean(x^2) + epsilon) * gain` over the last axis (Zhang & Sennrich, arXiv 1910.07467) with a
constant gain or none, written out as exporters do below opset 23, or as that opset's RMSNormalization.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.graph import constant_array, constant_integers, constant_operand, integer_attribute, made_by, through_casts


@dataclass(frozen=True, eq=False)
class Norm:
    """What is normalised, its gain `[D]` FP32, and epsilon."""

    source: ir.Value
    gain: np.ndarray
    epsilon: float


def match_norm(value: ir.Value, size: int, precision: ir.DataType, rank: int = 4) -> Norm | None:
    """The norm over the last axis, of `size`, that makes `value` of `rank`, or None."""
    value = through_casts(value, precision)
    operator = made_by(value, "RMSNormalization")
    if operator is not None:
        return _operator(operator, size, rank)
    product = constant_operand(made_by(value, "Mul"))
    gain, unit = product if product is not None else (np.ones(size, np.float32), value)
    found = _unit(through_casts(unit, precision), precision, rank)
    row = channels(gain, size)
    return None if found is None or row is None else Norm(found[0], row, found[1])


def _operator(node: ir.Node, size: int, rank: int) -> Norm | None:
    source, gain = node.inputs[0], constant_array(node.inputs[1])
    row = channels(gain, size) if gain is not None else None
    if source is None or row is None or integer_attribute(node, "axis", -1) not in (-1, rank - 1):
        return None
    return Norm(source, row, node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5)


def channels(gain: np.ndarray, size: int) -> np.ndarray | None:
    """The gain as `[size]` FP32, or None where it is not one number a channel."""
    if gain.size != size or gain.shape[-1:] != (size,):
        return None
    return np.ascontiguousarray(gain.astype(np.float32).reshape(size))


def _unit(value: ir.Value, precision: ir.DataType, rank: int) -> tuple[ir.Value, float] | None:
    """x and epsilon of `x / sqrt(mean(x^2) + epsilon)`, also as a product with the root's reciprocal."""
    quotient, product = made_by(value, "Div"), made_by(value, "Mul")
    if quotient is not None:
        pairs = [(quotient.inputs[0], _under_root(quotient.inputs[1], precision))]
    elif product is not None:
        first, second = product.inputs
        pairs = [(x, _under_reciprocal(root, precision)) for x, root in ((first, second), (second, first))]
    else:
        return None
    for x, under in pairs:
        squared = _mean_square(under, precision, rank) if x is not None else None
        if x is not None and squared is not None and through_casts(x, precision) is squared[0]:
            return x, squared[1]
    return None


def _under_root(value: ir.Value | None, precision: ir.DataType) -> ir.Value | None:
    root = made_by(through_casts(value, precision), "Sqrt") if value is not None else None
    return root.inputs[0] if root is not None else None


def _under_reciprocal(value: ir.Value | None, precision: ir.DataType) -> ir.Value | None:
    """y of `1 / sqrt(y)`, however it is written."""
    if value is None:
        return None
    value = through_casts(value, precision)
    reciprocal = made_by(value, "Reciprocal")
    if reciprocal is not None:
        return _under_root(reciprocal.inputs[0], precision)
    quotient, power = made_by(value, "Div"), made_by(value, "Pow")
    if quotient is not None and _is_number(quotient.inputs[0], 1.0):
        return _under_root(quotient.inputs[1], precision)
    return power.inputs[0] if power is not None and _is_number(power.inputs[1], -0.5) else None


def _mean_square(value: ir.Value | None, precision: ir.DataType, rank: int) -> tuple[ir.Value, float] | None:
    """x, before casts, and epsilon of `mean(x^2) + epsilon` over the last axis."""
    total = constant_operand(made_by(through_casts(value, precision), "Add")) if value is not None else None
    if total is None or total[0].size != 1:
        return None
    mean = made_by(through_casts(total[1], precision), "ReduceMean")
    if mean is None or integer_attribute(mean, "keepdims", 1) != 1 or mean.inputs[0] is None:
        return None
    axes = list(mean.attributes["axes"].as_ints()) if "axes" in mean.attributes else None
    axes = constant_integers(mean.inputs[1]) if len(mean.inputs) > 1 else axes
    square = through_casts(mean.inputs[0], precision)
    power, product = made_by(square, "Pow"), made_by(square, "Mul")
    if axes not in ([-1], [rank - 1]):
        return None
    x = None
    if power is not None and _is_number(power.inputs[1], 2.0):
        x = power.inputs[0]
    elif product is not None and product.inputs[0] is product.inputs[1]:
        x = product.inputs[0]
    return (through_casts(x, precision), float(total[0].reshape(-1)[0])) if x is not None else None


def _is_number(value: ir.Value | None, number: float) -> bool:
    array = constant_array(value)
    return array is not None and array.size == 1 and float(array.reshape(-1)[0]) == number
