"""The constants of a fused linear node, laid out as its kernel reads them.

The matrices of a large network are gigabytes: each is made when it is written, from the graph's own, and not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.fused_linear_layers import Layer, Product
from engines.fused_linear_norm import InputNorm
from engines.graph import constant_array


@dataclass(frozen=True, eq=False)
class Weights:
    """W `[columns, inner]` of `dtype`, made anew by each call of `matrix`; its row sums and the bias `[columns]` FP32.

    `sums` is None but before a layer norm, `bias` where there is neither a bias nor an offset of the norm.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, int]
    matrix: Callable[[], np.ndarray]
    sums: np.ndarray | None
    bias: np.ndarray | None


def lay_out(layer: Layer, norm: InputNorm | None) -> Weights:
    """W and bias of a layer with the norm's gain and offset multiplied in.

    The gain is multiplied in FP32 and rounded once; sums and offsets are summed in FP64 and rounded to FP32. Of SwiGLU,
    rows of gate and up take turns.
    """
    products = layer.products
    dtype = layer.x.dtype
    assert dtype is not None
    gain = norm.gain if norm is not None else None

    def matrix() -> np.ndarray:
        # A copy in any case: the graph's own array may be a view of a file that is closed in between.
        return np.array(_by_turns([_scaled(product, gain) for product in products]), order="C")

    sums = None
    if norm is not None and norm.kind == "layer":
        sums = _by_turns([_row_sums(product, gain) for product in products])
    biases = [_bias(product, norm) for product in products]
    bias = None
    if any(each is not None for each in biases):
        zeros = np.zeros(products[0].columns, np.float32)
        bias = _by_turns([zeros if each is None else each for each in biases])
    name = "+".join(str(product.weights.name) for product in products)
    shape = (sum(product.columns for product in products), products[0].inner)
    return Weights(f"{name}.{'normed' if norm is not None else 'rows'}", dtype, shape, matrix, sums, bias)


def _rows(product: Product) -> np.ndarray:
    """W `[columns, inner]` as the graph has it, a view."""
    array = constant_array(product.weights)
    assert array is not None
    return array if product.turned else array.T


def _scaled(product: Product, gain: np.ndarray | None) -> np.ndarray:
    rows = _rows(product)
    return rows if gain is None else (rows.astype(np.float32) * gain).astype(rows.dtype)


def _row_sums(product: Product, gain: np.ndarray | None) -> np.ndarray:
    return _scaled(product, gain).astype(np.float32).sum(axis=1, dtype=np.float64).astype(np.float32)


def _bias(product: Product, norm: InputNorm | None) -> np.ndarray | None:
    if norm is None or norm.offset is None or not norm.offset.any():
        return product.bias
    moved = _rows(product).astype(np.float32) @ norm.offset.astype(np.float64)
    return (moved + (0 if product.bias is None else product.bias)).astype(np.float32)


def _by_turns(arrays: list[np.ndarray]) -> np.ndarray:
    """Rows of several arrays of one shape, the first of each, then the second of each."""
    if len(arrays) == 1:
        return arrays[0]
    return np.stack(arrays, axis=1).reshape(-1, *arrays[0].shape[1:])
