"""One attention over packed queries, keys and values, as plain ONNX, in the two ways to take the three apart.

`unbind`: Reshape to `[B,N,3,H,D]`, Transpose to `[3,B,H,N,D]`, then Slice and Squeeze, as PyTorch's exporter writes
`qkv.reshape(...).permute(2, 0, 3, 1, 4).unbind(0)`. `split`: Split of the last axis, then Reshape and Transpose.
The same numbers, but TensorRT 8.6 computes the first wrongly (`engines/qkv_split.py` has the story).
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FORMS = ("unbind", "split")


def weights(heads: int, size: int, seed: int = 0) -> NDArray[np.float32]:
    """The projection `[H·D, 3·H·D]`; such that scores spread over about -3 to 3."""
    width = heads * size
    return (np.random.default_rng(seed).normal(size=(width, 3 * width)) / math.sqrt(width)).astype(np.float32)


def inputs(tokens: int, heads: int, size: int, seed: int = 1) -> NDArray[np.float32]:
    """`[1, N, H·D]`."""
    return np.random.default_rng(seed).normal(size=(1, tokens, heads * size)).astype(np.float32)


def answer(x: NDArray[np.float32], projection: NDArray[np.float32], heads: int) -> NDArray[np.float64]:
    """What it computes, in float64."""
    batch, tokens, width = x.shape
    packed = (x.astype(np.float64) @ projection).reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = packed.transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(width // heads)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return (shares / shares.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(x.shape)


def packed_attention(form: str, tokens: int, heads: int, size: int, seed: int = 0) -> onnx.ModelProto:
    """`x` to `y`, both float32 `[1, N, H·D]`, opset 17."""
    width = heads * size
    constants = {
        "projection": weights(heads, size, seed),
        "scale": np.float32(1 / math.sqrt(size)),
        "together": np.array([1, tokens, width]),
    }
    nodes = [helper.make_node("MatMul", ["x", "projection"], ["packed"])]
    if form == "unbind":
        constants["folded_shape"] = np.array([1, tokens, 3, heads, size])
        constants["first"] = np.array([0])
        nodes.append(helper.make_node("Reshape", ["packed", "folded_shape"], ["folded"]))
        nodes.append(helper.make_node("Transpose", ["folded"], ["turned"], perm=[2, 0, 3, 1, 4]))
        for index, name in enumerate("qkv"):
            constants[f"{name}_start"], constants[f"{name}_end"] = np.array([index]), np.array([index + 1])
            nodes.append(helper.make_node("Slice", ["turned", f"{name}_start", f"{name}_end", "first"], [f"{name}_1"]))
            nodes.append(helper.make_node("Squeeze", [f"{name}_1", "first"], [name]))
    elif form == "split":
        constants["thirds"] = np.array([width] * 3)
        constants["heads_shape"] = np.array([1, tokens, heads, size])
        nodes.append(helper.make_node("Split", ["packed", "thirds"], ["q_part", "k_part", "v_part"], axis=2))
        for name in "qkv":
            nodes.append(helper.make_node("Reshape", [f"{name}_part", "heads_shape"], [f"{name}_heads"]))
            nodes.append(helper.make_node("Transpose", [f"{name}_heads"], [name], perm=[0, 2, 1, 3]))
    else:
        raise ValueError(f"form '{form}' is not one of {', '.join(FORMS)}")
    nodes += [
        helper.make_node("Transpose", ["k"], ["k_turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "k_turned"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["by_token"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["by_token", "together"], ["y"]),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, tokens, width]) for name in "xy"]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, f"packed_attention_{form}", info[:1], info[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
