"""Norms before linear layers, recognised so that the layer's kernel can apply them to its product.

A kernel applies a norm by statistics that the kernel which wrote x left, so a norm is folded only where x itself is
what another fused layer makes, and where every reader of the norm folds it: else it has to be computed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.fold_norm import channels, match_norm
from engines.fused_linear_layers import Layer
from engines.graph import constant_array, in_precision, integer_attribute, made_by, sizes_of, through_casts


@dataclass(frozen=True, eq=False)
class InputNorm:
    """`kind` as `LinearProblem` calls it, of x's channels: gain `[inner]` FP32, offset the same or None, epsilon.

    `source` is x in the layer's precision, or None where it is none of it.
    """

    kind: str
    source: ir.Value | None
    gain: np.ndarray
    offset: np.ndarray | None
    epsilon: float


@dataclass(frozen=True, eq=False)
class NormGroup:
    """A norm, the layer whose output it is of, and the layers that alone read it."""

    norm: InputNorm
    producer: Layer
    readers: tuple[Layer, ...]


def find_norms(layers: Sequence[Layer]) -> list[NormGroup]:
    """The norms that can be folded, in the order of their readers; why others cannot is added to these."""
    makers = {layer.output: layer for layer in layers}
    reading: dict[ir.Value, list[Layer]] = {}
    for layer in layers:
        reading.setdefault(layer.x, []).append(layer)
    groups = []
    for value, readers in reading.items():
        norm = match_input_norm(value)
        if norm is None:
            continue
        producer = makers.get(norm.source) if norm.source is not None else None
        why = _obstacle(norm, producer, value, readers)
        if why or producer is None:
            for reader in readers:
                reader.missed.append(f"{norm.kind} norm ({why})")
        else:
            groups.append(NormGroup(norm, producer, tuple(readers)))
    return groups


def _obstacle(norm: InputNorm, producer: Layer | None, value: ir.Value, readers: Sequence[Layer]) -> str:
    if norm.source is None:
        return "what it is of is not in the layer's precision"
    if producer is None:
        maker = norm.source.producer()
        return f"what it is of is made by {maker.op_type if maker is not None else 'nobody'}, not by a linear layer"
    if producer.activation == "swiglu":
        return "SwiGLU leaves no statistics"
    products = {product.node for reader in readers for product in reader.products}
    if value.is_graph_output() or any(use.node not in products for use in value.uses()):
        return "others read it, too"
    return ""


def match_input_norm(value: ir.Value) -> InputNorm | None:
    """The norm over the last axis that makes the value, or None."""
    sizes, dtype = sizes_of(value), value.dtype
    if sizes is None or not isinstance(sizes[-1], int) or dtype is None:
        return None
    size, rank = sizes[-1], len(sizes)
    operator = made_by(through_casts(value, dtype), "LayerNormalization")
    if operator is not None:
        return _layer_norm(operator, size, rank, dtype)
    found = match_norm(value, size, dtype, rank)
    if found is None:
        return None
    return InputNorm("rms", in_precision(found.source, dtype), found.gain, None, float(np.float32(found.epsilon)))


def _layer_norm(node: ir.Node, size: int, rank: int, dtype: ir.DataType) -> InputNorm | None:
    source, *rest = node.inputs
    if source is None or integer_attribute(node, "axis", -1) not in (-1, rank - 1) or len(node.outputs) > 1:
        return None
    arrays = [constant_array(value) for value in rest]
    rows = [channels(array, size) if array is not None else None for array in arrays]
    if any(row is None and value is not None for row, value in zip(rows, rest, strict=True)) or not rows:
        return None
    gain, offset = [*rows, None][:2]
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    return None if gain is None else InputNorm("layer", in_precision(source, dtype), gain, offset, epsilon)
