"""What `cat2dog::FusedAttention` computes, in plain ONNX, so that a lowered graph can be judged without the plugin.

The bodies compute as the kernels do: inputs widened to FP32; norm and RoPE in FP32, rounded once to the precision;
logits and softmax in FP32; the weights rounded before they meet the values. (The kernels round them before they are
divided by their sum, which is as far from the truth.) They stand in a copy of the graph, made by `engines.checkable`.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.parser
import onnx_ir as ir

from engines.attention import DOMAIN
from engines.fused_node import PRECISIONS
from engines.kernels.problem import AttentionProblem

_WIDE = int(ir.DataType.FLOAT)


def fused_body(problem: AttentionProblem, name: str, opset: int) -> ir.Function:
    """The local function `cat2dog::{name}`: the inputs of the node to its output."""
    narrow = int(PRECISIONS[problem.precision])
    lines = [
        *_heads(problem),
        f"query_wide = Cast <to: int = {_WIDE}> (query)",
        f"key_wide = Cast <to: int = {_WIDE}> (key)",
        f"value_wide = Cast <to: int = {_WIDE}> (value)",
        f"scale = Constant <value_float: float = {number_text(problem.scale)}> ()",
        "scaled = Mul (query_wide, scale)",
        "key_t = Transpose <perm: ints = [0, 1, 3, 2]> (key_wide)",
        "logits = MatMul (scaled, key_t)",
        "weights = Softmax <axis: int = -1> (logits)",
        f"weights_narrow = Cast <to: int = {narrow}> (weights)",
        f"weights_wide = Cast <to: int = {_WIDE}> (weights_narrow)",
        "product = MatMul (weights_wide, value_wide)",
        # As the first input, not as the precision says: where BF16 cannot be run, everything around is FP32.
        f"answer = CastLike (product, {input_names(problem)[0]})",
        *joining(problem, "answer", "output"),
    ]
    return function(name, input_names(problem), ["output"], lines, opset)


def heads_body(problem: AttentionProblem, name: str, opset: int) -> ir.Function:
    """The part of `fused_body` before the first product: the inputs of the node to Q, K and V `[B,H,N,D]`.

    Q and K are FP32 that hold numbers of the precision where a norm or RoPE was computed; else all are as given.
    """
    return function(name, input_names(problem), ["query", "key", "value"], _heads(problem), opset)


def output_body(problem: AttentionProblem, name: str, opset: int) -> ir.Function:
    """The part of `fused_body` after the last product: heads `[B,H,N,D]` to the node's output."""
    return function(name, ["answer"], ["output"], joining(problem, "answer", "output"), opset)


def calling(body: ir.Function, ranks: Mapping[str, int], opset: int) -> ir.Model:
    """A model that does nothing but call `body` on FP32 inputs of these names and ranks."""
    wide = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=name, type=wide, shape=ir.Shape([None] * rank)) for name, rank in ranks.items()]
    outputs = [ir.Value(name=value.name, type=wide) for value in body.outputs]
    call = ir.Node(DOMAIN, body.name, inputs, outputs=outputs, name="call")
    graph = ir.Graph(inputs, outputs, nodes=[call], opset_imports={"": opset, DOMAIN: 1}, name="call")
    return ir.Model(graph, ir_version=10, functions=[body])


def input_names(problem: AttentionProblem) -> list[str]:
    """Names for the inputs of the node, in their order."""
    names = ["qkv"] if problem.layout == "packed" else ["query_in", "key_in", "value_in"]
    names += ["gain_query", "gain_key"] if problem.qk_norm is not None else []
    return names + (["cos", "sin"] if problem.rope else [])


def joining(problem: AttentionProblem, heads: str, output: str) -> list[str]:
    """Statements from heads `[B,H,N,D]` to the output's layout."""
    if problem.output == "heads":
        return [f"{output} = Identity ({heads})"]
    return [
        f"{output}_apart = Transpose <perm: ints = [0, 2, 1, 3]> ({heads})",
        f"{output}_shape = {integers_text(-1, problem.queries, problem.heads * problem.head_size)}",
        f"{output} = Reshape ({output}_apart, {output}_shape)",
    ]


def _heads(problem: AttentionProblem) -> list[str]:
    """Statements from the inputs of the node to `query`, `key` and `value`."""
    lines, parts = [], ["query", "key", "value"]
    width = problem.heads * problem.head_size
    if problem.layout == "packed":
        lines += [
            f"thirds = {integers_text(width, width, width)}",
            "query_in, key_in, value_in = Split <axis: int = 2> (qkv, thirds)",
        ]
    changed = problem.qk_norm is not None or problem.rope
    for part, tokens in zip(parts, (problem.queries, problem.keys, problem.keys), strict=True):
        raw = f"{part}_raw" if changed and part != "value" else part
        if problem.layout == "heads":
            lines.append(f"{raw} = Identity ({part}_in)")
        else:
            lines += [
                f"{part}_shape = {integers_text(-1, tokens, problem.heads, problem.head_size)}",
                f"{part}_apart = Reshape ({part}_in, {part}_shape)",
                f"{raw} = Transpose <perm: ints = [0, 2, 1, 3]> ({part}_apart)",
            ]
        if raw != part:
            lines += _changed(problem, part)
    return lines


def _changed(problem: AttentionProblem, part: str) -> list[str]:
    """Statements from `{part}_raw` to `{part}`: norm and RoPE in FP32, rounded once."""
    lines = [f"{part}_0 = Cast <to: int = {_WIDE}> ({part}_raw)"]
    last = f"{part}_0"
    if problem.qk_norm is not None:
        lines += [
            f"{part}_square = Mul ({last}, {last})",
            f"{part}_axis = {integers_text(-1)}",
            f"{part}_sum = ReduceSum <keepdims: int = 1> ({part}_square, {part}_axis)",
            f"{part}_size = Constant <value_float: float = {number_text(problem.head_size)}> ()",
            f"{part}_mean = Div ({part}_sum, {part}_size)",
            f"{part}_epsilon = Constant <value_float: float = {number_text(problem.qk_norm)}> ()",
            f"{part}_above = Add ({part}_mean, {part}_epsilon)",
            f"{part}_root = Sqrt ({part}_above)",
            f"{part}_unit = Div ({last}, {part}_root)",
            f"{part}_1 = Mul ({part}_unit, gain_{part})",
        ]
        last = f"{part}_1"
    if problem.rope:
        half = problem.head_size // 2
        lines += [
            f"{part}_halves = {integers_text(half, half)}",
            f"{part}_a, {part}_b = Split <axis: int = 3> ({last}, {part}_halves)",
            f"{part}_a_cos = Mul ({part}_a, cos)",
            f"{part}_b_sin = Mul ({part}_b, sin)",
            f"{part}_b_cos = Mul ({part}_b, cos)",
            f"{part}_a_sin = Mul ({part}_a, sin)",
            f"{part}_first = Sub ({part}_a_cos, {part}_b_sin)",
            f"{part}_second = Add ({part}_b_cos, {part}_a_sin)",
            f"{part}_2 = Concat <axis: int = 3> ({part}_first, {part}_second)",
        ]
        last = f"{part}_2"
    return [
        *lines,
        f"{part}_narrow = Cast <to: int = {int(PRECISIONS[problem.precision])}> ({last})",
        f"{part} = Cast <to: int = {_WIDE}> ({part}_narrow)",
    ]


def integers_text(*numbers: int) -> str:
    """A constant list of INT64 in ONNX's textual form."""
    return f"Constant <value_ints: ints = [{', '.join(str(number) for number in numbers)}]> ()"


def number_text(value: float) -> str:
    """A number in ONNX's textual form."""
    return f"{float(value):.17e}"


def function(name: str, inputs: list[str], outputs: list[str], lines: list[str], opset: int) -> ir.Function:
    """The local function `cat2dog::{name}` of these statements."""
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{name} ({', '.join(inputs)}) => ({', '.join(outputs)})\n{{\n" + "\n".join(lines) + "\n}"
    )
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))
