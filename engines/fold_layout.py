"""Where the queries, keys and values of an attention node come from, so that a fused kernel reads them from there.

Between a projection and attention, tokens `[B,N,H*D]` are reshaped to `[B,N,H,D]` and transposed to heads `[B,H,N,D]`;
afterwards the other way about. A kernel that reads and writes tokens spares both transposes, and one that reads the
packed `[B,N,3*H*D]` spares the split as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from engines.constants import integers
from engines.graph import (
    constant_integers,
    graph_of,
    integer_attribute,
    is_op,
    made_by,
    new_node,
    only_reader,
    permutes,
    sizes_of,
    through_casts,
)

_TURN = (0, 2, 1, 3)


@dataclass(frozen=True, eq=False)
class Operand:
    """Queries, keys or values on the way back to their source: `[B,N,H,D]` with `tokens_first`, else `[B,H,N,D]`."""

    value: ir.Value
    tokens_first: bool = False


@dataclass(frozen=True, eq=False)
class Layout:
    """A layout of `AttentionProblem` and what it is read from: one packed tensor, or three operands."""

    name: str
    operands: tuple[Operand, ...]

    @property
    def sources(self) -> list[ir.Value]:
        """The tensors of the graph that it is read from, each once."""
        return list(dict.fromkeys(operand.value for operand in self.operands))


def turned(operand: Operand, precision: ir.DataType) -> Operand:
    """The operand before the transpose that makes it; the same operand where none does."""
    turn = made_by(through_casts(operand.value, precision), "Transpose")
    if turn is None or not permutes(turn, _TURN) or turn.inputs[0] is None:
        return operand
    return Operand(turn.inputs[0], not operand.tokens_first)


def find_layout(query: Operand, key: Operand, value: Operand) -> Layout:
    """The best layout that these three can be read in."""
    three = (query, key, value)
    if not all(operand.tokens_first for operand in three):
        return Layout("heads", three)
    joined = [_joined(operand.value) for operand in three]
    packed = _packed(joined)
    if packed is not None:
        return Layout("packed", (Operand(packed, tokens_first=True),))
    return Layout(
        "tokens",
        tuple(Operand(whole or each.value, tokens_first=True) for whole, each in zip(joined, three, strict=True)),
    )


def _joined(value: ir.Value) -> ir.Value | None:
    """`[B,N,H*D]` that is reshaped to this `[B,N,H,D]`, or None."""
    reshape = made_by(value, "Reshape")
    source = reshape.inputs[0] if reshape is not None else None
    before, after = sizes_of(source), sizes_of(value)
    if source is None or before is None or after is None or len(before) != 3 or len(after) != 4:
        return None
    _, tokens, heads, size = after
    if tokens is None or heads is None or size is None or before[1:] != [tokens, heads * size]:
        return None
    return source


def _packed(joined: list[ir.Value | None]) -> ir.Value | None:
    """`[B,N,3*H*D]` that these are the thirds of, in order, or None."""
    splits = [made_by(value, "Split") for value in joined]
    split = splits[0]
    if split is None or any(other is not split for other in splits) or len(split.outputs) != 3:
        return None
    if [value.index() for value in joined if value is not None] != [0, 1, 2]:
        return None
    widths = [sizes[2] for output in split.outputs if (sizes := sizes_of(output)) is not None]
    given = split.inputs[1] if len(split.inputs) > 1 else None
    even = given is None or len(set(constant_integers(given) or [0, 1])) == 1
    if integer_attribute(split, "axis", 0) not in (-1, 2) or len(set(widths)) != 1 or not even:
        return None
    return split.inputs[0]


def write_inputs(layout: Layout, node: ir.Node, model: ir.Model) -> list[ir.Value]:
    """The tensors that a node of this layout takes; what must be reshaped or turned for that is put before `node`."""
    inputs = []
    for index, operand in enumerate(layout.operands):
        value, name = operand.value, f"{node.name}.{'qkv'[index]}"
        sizes = sizes_of(value)
        if layout.name == "tokens" and sizes is not None and len(sizes) == 4:
            _, tokens, heads, size = (int(number or 0) for number in sizes)
            shape = integers(model, f"cat2dog.tokens_{tokens}x{heads * size}", [-1, tokens, heads * size])
            value = _adapted(node, new_node("Reshape", [value, shape], {}, f"{name}.join", value.dtype))
            value.shape = _shape(operand.value, [tokens, heads * size])
        elif layout.name == "heads" and operand.tokens_first and sizes is not None:
            value = _adapted(node, new_node("Transpose", [value], {"perm": _TURN}, f"{name}.turn", value.dtype))
            value.shape = _shape(operand.value, [sizes[2], sizes[1], sizes[3]])
        inputs.append(value)
    return inputs


def _adapted(node: ir.Node, new: ir.Node) -> ir.Value:
    graph_of(node).insert_before(node, new)
    return new.outputs[0]


def _shape(value: ir.Value, rest: list) -> ir.Shape:
    return ir.Shape([value.shape[0] if value.shape is not None else None, *rest])


def find_output(node: ir.Node) -> tuple[ir.Value, bool]:
    """What a fused node should make instead of the attention's output, and whether that is tokens.

    Where nothing but a transpose to tokens first reads the output, it is the `[B,N,H*D]` that this is reshaped to, or
    else the transpose's own `[B,N,H,D]`, which is the same in memory.
    """
    heads = node.outputs[0]
    turn = only_reader(heads)
    if turn is None or not permutes(turn, _TURN):
        return heads, False
    apart = turn.outputs[0]
    sizes = sizes_of(apart)
    if sizes is None or None in sizes[1:]:
        return heads, False
    join = only_reader(apart)
    after = sizes_of(join.outputs[0]) if is_op(join, "Reshape") and join is not None else None
    tokens, count, size = (int(number or 0) for number in sizes[1:])
    if join is None or after is None or len(after) != 3 or after[1:] != [tokens, count * size]:
        return apart, True
    return join.outputs[0], True


def write_output(fused: ir.Node, output: ir.Value, tokens: bool, model: ir.Model) -> ir.Value:
    """The result of the fused node in the shape of `output`, with a Reshape after the node where that is needed."""
    result = fused.outputs[0]
    sizes = sizes_of(output)
    result.type, result.shape = output.type, output.shape
    if not tokens or sizes is None or len(sizes) != 4:
        return result
    rest = [int(size or 0) for size in sizes[1:]]
    result.shape = _shape(output, [rest[0], rest[1] * rest[2]])
    shape = integers(model, "cat2dog.heads_" + "x".join(str(size) for size in rest), [-1, *rest])
    apart = new_node("Reshape", [result, shape], {}, f"{fused.name}.apart", output.dtype)
    graph_of(fused).insert_after(fused, apart)
    apart.outputs[0].shape = output.shape
    return apart.outputs[0]
