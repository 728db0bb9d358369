"""Linear layers of a transformer block as ONNX, plain or with Q/DQ around every product, to time INT8 by.

The scheme: weights per output channel and activations per tensor, symmetric, scaled by their largest magnitude. Weights
are random and no attention is in it: it is made to be timed. What INT8 costs in accuracy is measured on real weights
(`accuracy.quantization`).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Where RMS is 1, a magnitude that few values pass.
_ACTIVATION_MOST = 6.0
_LEVELS = 127


def block_model(width: int, tokens: int, blocks: int, quantized: bool, batch: int = 1) -> onnx.ModelProto:
    """`x` float32 `[batch, tokens, width]` to `y` alike through `blocks` times norm, qkv, out, norm, up, GELU, down.

    Opset 17, weights random and the same with and without Q/DQ. In place of attention V passes through.
    """
    made = _Block(quantized)
    value = "x"
    for index in range(blocks):
        value = made.block(value, width, f"blocks.{index}")
    made.node("Identity", [value], "y")
    shape = [batch, tokens, width]
    graph = helper.make_graph(
        made.nodes, "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        made.initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class _Block:
    """Collects nodes and weights."""

    def __init__(self, quantized: bool):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._quantized = quantized
        self._rng = np.random.default_rng(0)

    def block(self, x: str, width: int, name: str) -> str:
        qkv = self._linear(self._norm(x, f"{name}.norm1"), width, 3 * width, f"{name}.qkv")
        thirds = self._constant(f"{name}.thirds", np.full(3, width, np.int64))
        parts = [f"{name}.{part}" for part in "qkv"]
        self.nodes.append(helper.make_node("Split", [qkv, thirds], parts, f"{name}.split", axis=-1))
        attended = parts[2]
        for other in parts[:2]:  # all three are read, so that no builder drops a part of the product
            attended = self.node("Add", [attended, other], f"{other}.added")
        out = self._linear(attended, width, width, f"{name}.out")
        x = self.node("Add", [x, out], f"{name}.first")
        up = self._linear(self._norm(x, f"{name}.norm2"), width, 4 * width, f"{name}.up")
        down = self._linear(self._gelu(up, f"{name}.gelu"), 4 * width, width, f"{name}.down")
        return self.node("Add", [x, down], f"{name}.second")

    def node(self, kind: str, given: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, given, [output], f"{output}/{kind}", **attributes))
        return output

    def _linear(self, x: str, inner: int, columns: int, name: str) -> str:
        array = (self._rng.standard_normal((inner, columns)) / np.sqrt(inner)).astype(np.float32)
        weight = self._constant(f"{name}.weight", array)
        if self._quantized:
            x = self._rounded(x, np.float32(_ACTIVATION_MOST / _LEVELS), f"{name}.x")
            weight = self._rounded(weight, np.abs(array).max(axis=0) / _LEVELS, f"{name}.w", axis=1)
        product = self.node("MatMul", [x, weight], f"{name}.product")
        return self.node("Add", [product, self._constant(f"{name}.bias", np.zeros(columns, np.float32))], name)

    def _rounded(self, x: str, scale: np.ndarray, name: str, **axis: int) -> str:
        scales = self._constant(f"{name}.scale", np.asarray(scale, np.float32))
        zero = self._constant(f"{name}.zero", np.zeros(np.shape(scale), np.int8))
        narrow = self.node("QuantizeLinear", [x, scales, zero], f"{name}.q", **axis)
        return self.node("DequantizeLinear", [narrow, scales, zero], f"{name}.dq", **axis)

    def _norm(self, x: str, name: str) -> str:
        mean = self.node("ReduceMean", [x], f"{name}.mean", axes=[-1])
        apart = self.node("Sub", [x, mean], f"{name}.apart")
        square = self.node("ReduceMean", [self.node("Mul", [apart, apart], f"{name}.square")], f"{name}.var", axes=[-1])
        least = self._constant(f"{name}.epsilon", np.float32(1e-6))
        root = self.node("Sqrt", [self.node("Add", [square, least], f"{name}.more")], f"{name}.root")
        return self.node("Div", [apart, root], name)

    def _gelu(self, x: str, name: str) -> str:
        scaled = self.node("Mul", [x, self._constant(f"{name}.root", np.float32(0.5**0.5))], f"{name}.scaled")
        one = self._constant(f"{name}.one", np.float32(1))
        share = self.node("Add", [self.node("Erf", [scaled], f"{name}.erf"), one], f"{name}.share")
        half = self.node("Mul", [x, self._constant(f"{name}.half", np.float32(0.5))], f"{name}.halved")
        return self.node("Mul", [half, share], name)

    def _constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name
