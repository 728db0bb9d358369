"""Every `scaled_dot_product_attention` call of a module becomes one `cat2dog::*Attention` node with a function body.

The body makes the file run as it is in ONNX Runtime and Polygraphy; `engines/` replaces the node by the form that wins.
Inputs are Q `[B,H,L,D]`, K `[B,H,S,D]`, V `[B,H,S,E]`; the output is `[B,H,L,E]`. Three op types share the attribute
`scale`: `Attention`, `MaskedAttention` (a fourth input, added to the logits, broadcastable to `[B,H,L,S]`) and
`CausalAttention` (row i sees columns 0..i).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx.parser
import onnx_ir as ir

from runtime.errors import InputError

DOMAIN = "cat2dog"
_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]

# Q is scaled before the product, so that FP16 logits overflow only where the scaled ones would; softmax is FP32 in
# every precision, because exp and its sum lose the small weights of long rows in half precision.
_BODY = """
<domain: "cat2dog", opset_import: ["" : {opset}]>
{name} <scale> ({inputs}) => (output)
{{
    scale = Constant <value_float: float = @scale> ()
    scale_like = CastLike (scale, query)
    scaled = Mul (query, scale_like)
    key_t = Transpose <perm: ints = [0, 1, 3, 2]> (key)
    logits = MatMul (scaled, key_t)
    wide = Cast <to: int = 1> (logits){mask}
    weights = Softmax <axis: int = -1> ({masked})
    narrow = CastLike (weights, value)
    output = MatMul (narrow, value)
}}
"""
_ADD_MASK = """
    wide_mask = Cast <to: int = 1> (mask)
    masked = Add (wide, wide_mask)"""
_CAUSAL_MASK = """
    shape = Shape <start: int = -2> (wide)
    one = Constant <value: tensor = bool[1] {1}> ()
    ones = Expand (one, shape)
    seen = Trilu <upper: int = 0> (ones)
    never = Constant <value_float: float = -inf> ()
    masked = Where (seen, wide, never)"""
_FORMS = {
    "Attention": ("query, key, value", "", "wide"),
    "MaskedAttention": ("query, key, value, mask", _ADD_MASK, "masked"),
    "CausalAttention": ("query, key, value", _CAUSAL_MASK, "masked"),
}
OP_TYPES = tuple(_FORMS)


def function_body(name: str, opset: int) -> ir.Function:
    """The local function `cat2dog::{name}` written in plain ONNX of version `opset` (17 or newer)."""
    inputs, mask, masked = _FORMS[name]
    text = _BODY.format(name=name, opset=opset, inputs=inputs, mask=mask, masked=masked)
    # The parser has no literal for minus infinity; the most negative FP32 gives the same softmax, exactly 0.
    text = text.replace("-inf", "-3.4028234663852886e38")
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def add_function_bodies(model: ir.Model, opset: int) -> int:
    """Give `model` the bodies of the attention nodes it has; returns how many such nodes there are."""
    nodes = [node for node in model.graph.all_nodes() if node.domain == DOMAIN]
    for name in sorted({node.op_type for node in nodes}):
        body = function_body(name, opset)
        model.functions[body.identifier()] = body
    if nodes:
        model.opset_imports[DOMAIN] = 1
    return len(nodes)


def _schema(name: str) -> onnx.defs.OpSchema:
    parameter, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
    return onnx.defs.OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[parameter(part.strip(), "T") for part in _FORMS[name][0].split(",")],
        outputs=[parameter("output", "T")],
        type_constraints=[("T", _FLOATS, "")],
        attributes=[attribute("scale", onnx.defs.OpSchema.AttrType.FLOAT, "multiplies QK^T", required=True)],
    )


def translation_table() -> dict[Any, Callable[..., Any]]:
    """For `torch.onnx.export(custom_translation_table=…)`: how attention is written."""
    import onnxscript
    import torch
    from onnxscript import opset18 as op

    opset = onnxscript.values.Opset(DOMAIN, 1)
    ops = {name: onnxscript.values.Op(opset, name, _schema(name)) for name in _FORMS}

    def attention(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ) -> Any:
        # Signature of aten::scaled_dot_product_attention.
        if dropout_p:
            raise InputError(f"attention has dropout {dropout_p}; export a module in eval mode, where it is 0")
        rank, size = len(query.shape), query.shape[-1]
        if rank not in (3, 4):
            raise InputError(f"attention over tensors of rank {rank}; expected [B,H,L,D] or [B,L,D]")
        dtype, shape = query.type, [*query.shape[:-1], value.shape[-1]]
        if rank == 3:
            shape.insert(1, 1)
        attributes = {"scale": float(scale) if scale is not None else float(size) ** -0.5}
        axis = op.Constant(value_ints=[1])
        if rank == 3:
            query, key, value = (op.Unsqueeze(tensor, axis) for tensor in (query, key, value))
            attn_mask = (
                op.Unsqueeze(attn_mask, axis) if attn_mask is not None and len(attn_mask.shape) == 3 else attn_mask
            )
        elif enable_gqa and query.shape[1] != key.shape[1]:
            key, value = (_repeat_heads(op, tensor, query.shape[1]) for tensor in (key, value))
        if attn_mask is not None:
            if attn_mask.dtype == ir.DataType.BOOL:
                zero, never = op.Constant(value_float=0.0), op.Constant(value_float=float("-inf"))
                attn_mask = op.Where(attn_mask, op.CastLike(zero, query), op.CastLike(never, query))
            output = ops["MaskedAttention"](query, key, value, attn_mask, **attributes)
        else:
            output = ops["CausalAttention" if is_causal else "Attention"](query, key, value, **attributes)
        # Shape inference knows nothing of this node; what the policy does not know the type of it cannot round.
        output.type, output.shape = dtype, ir.Shape(shape)
        return op.Squeeze(output, axis) if rank == 3 else output

    return {torch.ops.aten.scaled_dot_product_attention.default: attention}


def _repeat_heads(op: Any, tensor: Any, heads: int) -> Any:
    """Grouped-query attention: `[B,G,S,D]` to `[B,heads,S,D]`, each head repeated in place."""
    groups, size = tensor.shape[1], tensor.shape[-1]
    if not isinstance(groups, int) or not isinstance(size, int) or heads % groups:
        raise InputError(f"grouped attention with {heads} query heads over {groups} key heads: not a whole multiple")
    wide = op.Expand(
        op.Unsqueeze(tensor, op.Constant(value_ints=[2])), op.Constant(value_ints=[1, 1, heads // groups, 1, 1])
    )
    return op.Reshape(wide, op.Constant(value_ints=[0, heads, -1, size]))
