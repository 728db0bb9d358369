"""The forms an attention node can take before TensorRT sees it.

`plugin` is a fused kernel of ours with the norm, RoPE and transposes around the node (`engines.fused_attention`);
`native` is ONNX `Attention` (opset 23), which TensorRT >= 10.14 and TensorRT-RTX import as one fused layer;
`decomposed` is MatMul, Softmax, MatMul, which every flavor reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx_ir as ir

from engines.constants import constant
from engines.graph import graph_of, new_node, replace_node
from engines.kernels.problem import Unsupported
from runtime.errors import InputError

if TYPE_CHECKING:
    from engines.fused_attention import FusedLowering

DOMAIN = "cat2dog"
FORMS = ("plugin", "native", "decomposed")
NEUTRAL = ("Attention", "MaskedAttention", "CausalAttention")
NATIVE_OPSET = 23
_NUMPY = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class LoweredNode:
    """What became of one attention node or linear layer, and why, for the manifest.

    Of a fused one also which kernel it got, and how many milliseconds that took when it was tuned. `measured` are the
    milliseconds of each form where the choice was made by them.
    """

    node: str
    form: str
    why: str
    variant: str = ""
    milliseconds: float | None = None
    measured: Mapping[str, float] = field(default_factory=dict)


def attention_nodes(model: ir.Model) -> list[ir.Node]:
    """The neutral attention nodes of a graph, in order."""
    return [node for node in model.graph.all_nodes() if node.domain == DOMAIN and node.op_type in NEUTRAL]


def lower_attention(
    model: ir.Model, form: str, fused: FusedLowering | None = None, fallback: str = "decomposed"
) -> list[LoweredNode]:
    """Replace every attention node of `model` in place by `form`, or by another where the node does not fit.

    `plugin` needs `fused`, and gives way to `fallback`, as `native` does to `decomposed`. Removes the function bodies;
    raises InputError for an unknown form.
    """
    if form not in FORMS:
        raise InputError(f"attention form '{form}' is not one of {', '.join(FORMS)}")
    if form == "plugin" and fused is None:
        raise InputError("attention form 'plugin' needs kernels; there is no planner to take them from")
    lowered = []
    for node in attention_nodes(model):
        name = node.name or ""
        if form == "plugin" and fused is not None:
            try:
                done = fused.lower(node, model)
                kernel = done.kernel
                lowered.append(LoweredNode(name, form, done.why, kernel.variant, kernel.milliseconds))
            except Unsupported as reason:
                lowered.append(LoweredNode(name, *_plain(node, model, fallback, str(reason))))
        else:
            lowered.append(LoweredNode(name, *_plain(node, model, form)))
    for identifier in [identifier for identifier in model.functions if identifier[0] == DOMAIN]:
        del model.functions[identifier]
    if not any(node.form == "plugin" for node in lowered):
        model.opset_imports.pop(DOMAIN, None)
    return lowered


def _plain(node: ir.Node, model: ir.Model, form: str, why: str = "") -> tuple[str, str]:
    """Write the node in ONNX's own operators; returns the form taken and why."""
    obstacle = native_obstacle(node) if form == "native" else ""
    taken = "decomposed" if obstacle else form
    writer: Callable[[ir.Node, ir.Model], None] = write_native if taken == "native" else write_decomposed
    writer(node, model)
    return taken, "; ".join(filter(None, (why, obstacle))) or "as asked"


def native_obstacle(node: ir.Node) -> str:
    """Why the fused layer does not take this node, or "" where it does.

    IAttention's documented limits: head sizes 16 to 256, and multiples of 8 in half precision; keys and values alike.
    """
    query, key, value = node.inputs[:3]
    sizes = [
        tensor.shape[3] if tensor is not None and tensor.shape is not None else None for tensor in (query, key, value)
    ]
    if not all(isinstance(size, int) for size in sizes):
        return "the head size is not known when the engine is built"
    if len(set(sizes)) != 1:
        return f"head sizes of queries and values differ ({sizes[0]} and {sizes[2]})"
    size = int(sizes[0])  # type: ignore[arg-type]
    if not 16 <= size <= 256:
        return f"head size {size} is outside 16..256"
    if query is not None and query.dtype != ir.DataType.FLOAT and size % 8:
        return f"head size {size} is not a multiple of 8"
    return ""


def write_native(node: ir.Node, model: ir.Model) -> None:
    """ONNX `Attention` with Q scaled beforehand.

    IAttention has no scale, and the operator's own default is 1/sqrt(D): the importer would have to undo it. Scaling
    both by sqrt(scale), as the operator's definition does, costs a second pass; so Q takes all of it.
    """
    query, key, value, *mask = _inputs(node)
    scaled = _scale_queries(node, model)
    attributes = {"scale": 1.0, "is_causal": int(node.op_type == "CausalAttention")}
    replace_node(
        node, new_node("Attention", [scaled, key, value, *mask], attributes, node.name or "Attention", _type(query))
    )


def write_decomposed(node: ir.Node, model: ir.Model) -> None:
    """MatMul, Softmax in FP32, MatMul: the arithmetic of the neutral node's function body, with types written out."""
    query, key, value, *mask = _inputs(node)
    dtype, name = _type(query), node.name or "Attention"
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: list, attributes: dict | None = None, to: ir.DataType = dtype) -> ir.Value:
        new = new_node(op_type, inputs, attributes or {}, f"{name}.{op_type}_{len(nodes)}", to)
        nodes.append(new)
        return new.outputs[0]

    scaled = _scale_queries(node, model)
    logits = add("MatMul", [scaled, add("Transpose", [key], {"perm": [0, 1, 3, 2]})])
    wide = _cast(add, logits, ir.DataType.FLOAT)
    if node.op_type == "MaskedAttention":
        wide = add("Add", [wide, _cast(add, mask[0], ir.DataType.FLOAT)], to=ir.DataType.FLOAT)
    elif node.op_type == "CausalAttention":
        wide = add("Add", [wide, _causal_mask(node, model)], to=ir.DataType.FLOAT)
    weights = add("Softmax", [wide], {"axis": -1}, to=ir.DataType.FLOAT)
    add("MatMul", [_cast(add, weights, dtype), value])
    replace_node(node, *nodes)


def _cast(add: Callable[..., ir.Value], value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return value if value.dtype == dtype else add("Cast", [value], {"to": int(dtype)}, to=dtype)


def _inputs(node: ir.Node) -> list[ir.Value]:
    """Q, K, V and, of a masked node, the mask. Raises InputError where one is missing."""
    count = 4 if node.op_type == "MaskedAttention" else 3
    given = [value for value in node.inputs if value is not None]
    if len(given) != count or len(node.inputs) != count:
        raise InputError(
            f"{node.name}: {node.op_type} has {len(given)} inputs, expected {count}: export the model again"
        )
    return given


def _type(value: ir.Value) -> ir.DataType:
    if value.dtype not in _NUMPY:
        raise InputError(f"attention over '{value.name}' of type {value.dtype}; expected FP32, FP16 or BF16")
    return ir.DataType(value.dtype)


def _scale_queries(node: ir.Node, model: ir.Model) -> ir.Value:
    query = _inputs(node)[0]
    dtype, scale = _type(query), node.attributes["scale"].as_float()
    if not math.isfinite(scale):
        raise InputError(f"{node.name}: attention scale {scale} is not a number: export the model again")
    # One constant a value and type: heads of one size share it.
    rounded = np.array(scale, np.float32).astype(_NUMPY[dtype])
    scale_value = constant(model, f"cat2dog.scale_{float(rounded)!r}_{dtype.name.lower()}", rounded, dtype)
    product = new_node("Mul", [query, scale_value], {}, f"{node.name}.scale_queries", dtype)
    product.outputs[0].shape = query.shape
    graph_of(node).insert_before(node, product)
    return product.outputs[0]


def _causal_mask(node: ir.Node, model: ir.Model) -> ir.Value:
    rows, columns = (value.shape[2] if value.shape is not None else None for value in _inputs(node)[:2])
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise InputError(f"{node.name}: causal attention over a length that is not known when the engine is built")
    if rows * columns > 1 << 26:
        raise InputError(
            f"{node.name}: a causal mask of {rows} by {columns} would be stored in the engine; at most 8192 by 8192"
        )
    mask = np.where(np.tril(np.ones((rows, columns), bool)), 0, np.finfo(np.float32).min).astype(np.float32)
    return constant(model, f"cat2dog.causal_{rows}x{columns}", mask, ir.DataType.FLOAT)
