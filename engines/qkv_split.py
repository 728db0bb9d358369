"""Queries, keys and values taken out of one packed tensor by a split of its last axis.

Modules often write `qkv.reshape(B, N, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)`. TensorRT 8.6 computes the attention
behind that wrongly; the same tensors made by splitting the last axis come out right. The two are equal, number for
number, so every decomposed graph is written the second way.

What happened. *Seen* with TensorRT 8.6.0 on an H200: engines that built without a word answered with 16.6 dB against
FP32 PyTorch for one block and 18.5 dB for a network of 24 layers. *Not the precision*: in FP32 it is as wrong as in
FP16. *Not the other layers*: Linear, LayerNorm and the MLP are right. *It is how the three are taken apart*: with
`qkv.split(dim, -1)` and a `reshape(B, N, H, D).transpose(1, 2)` of each part, the same attention (MatMul, Mul, Softmax,
MatMul) gives 70.4 dB; so do its variants with Q scaled beforehand, softmax in FP32, heads folded into the batch, or exp
and sum written out. What TensorRT does with Slice and Squeeze of the folded tensor there is not known.
*What came of it*: this rewrite, and that no engine is used before its accuracy gate, which refuses such an engine. The
smallest case is `tests/engines/packed_attention.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from engines.constants import integers
from engines.graph import constant_integers, integer_attribute, is_op, permutes, remove_unread

_PERM = (2, 0, 3, 1, 4)


@dataclass(frozen=True)
class _Part:
    """One of the three, `index` of it, made by `nodes`, the last of which gives `[B,H,N,D]`."""

    index: int
    nodes: tuple[ir.Node, ...]

    @property
    def output(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


def split_packed_qkv(model: ir.Model) -> int:
    """Rewrite every such place of `model` in place; returns how many there were."""
    return sum(_rewrite(node, model) for node in list(model.graph.all_nodes()) if node.op_type == "Transpose")


def _rewrite(turn: ir.Node, model: ir.Model) -> bool:
    folded = turn.inputs[0]
    fold = folded.producer() if folded is not None else None
    if folded is None or fold is None or not permutes(turn, _PERM) or not is_op(fold, "Reshape"):
        return False
    packed = fold.inputs[0]
    sizes = _known_sizes(packed, folded)
    if packed is None or sizes is None or len(folded.uses()) != 1 or folded.is_graph_output():
        return False
    parts = _parts(turn)
    if not parts:
        return False
    _write(turn, packed, sizes, parts, model)
    remove_unread(part.output for part in parts)
    return True


def _known_sizes(packed: ir.Value | None, folded: ir.Value | None) -> tuple[int, int, int] | None:
    """N, H and D of `packed [B,N,3HD]` folded into `[B,N,3,H,D]`, or None where it is something else."""
    if packed is None or folded is None or packed.shape is None or folded.shape is None:
        return None
    if len(packed.shape) != 3 or len(folded.shape) != 5:
        return None
    tokens, three, heads, size = (folded.shape[axis] for axis in (1, 2, 3, 4))
    if not (isinstance(tokens, int) and isinstance(heads, int) and isinstance(size, int)) or three != 3:
        return None
    return (tokens, heads, size) if packed.shape[1] == tokens and packed.shape[2] == 3 * heads * size else None


def _parts(turn: ir.Node) -> list[_Part]:
    """What takes the three out of `[3,B,H,N,D]`; empty where anything else reads it too."""
    users = [use.node for use in turn.outputs[0].uses()]
    if turn.outputs[0].is_graph_output():
        return []
    if len(users) == 1 and is_op(users[0], "Split"):
        return _split_parts(users[0])
    parts: list[_Part] = []
    for user in users:
        taken = _slice_parts(user) if is_op(user, "Slice") else _gather_part(user)
        if not taken:
            return []
        parts += taken
    return parts


def _split_parts(split: ir.Node) -> list[_Part]:
    axis = integer_attribute(split, "axis", 0)
    sizes = constant_integers(split.inputs[1]) if len(split.inputs) > 1 and split.inputs[1] is not None else [1, 1, 1]
    if axis != 0 or len(split.outputs) != 3 or sizes != [1, 1, 1]:
        return []
    each = [_squeezed(index, split, output) for index, output in enumerate(split.outputs)]
    return [part for parts in each if parts for part in parts] if None not in each else []


def _slice_parts(node: ir.Node) -> list[_Part]:
    """As PyTorch's exporter writes `unbind`: `x[i : i + 1]`, then a Squeeze."""
    start, end, axes, *step = (
        [constant_integers(value) for value in node.inputs[1:]] if len(node.inputs) >= 4 else [None] * 3
    )
    if start is None or end is None or axes != [0] or step not in ([], [[1]]) or end[0] != start[0] + 1:
        return []
    return (_squeezed(start[0], node, node.outputs[0]) or []) if 0 <= start[0] < 3 else []


def _squeezed(index: int, node: ir.Node, output: ir.Value) -> list[_Part] | None:
    """What squeezes the first axis off `output`, or None where something else reads it."""
    users = [use.node for use in output.uses()]
    if output.is_graph_output():
        return None
    if not all(
        is_op(user, "Squeeze") and len(user.inputs) > 1 and constant_integers(user.inputs[1]) == [0] for user in users
    ):
        return None
    return [_Part(index, (node, user)) for user in users]


def _gather_part(node: ir.Node) -> list[_Part]:
    """`x[i]` is a Gather with one index that is a number, not a list of one."""
    if not is_op(node, "Gather") or len(node.inputs) != 2:
        return []
    axis = integer_attribute(node, "axis", 0)
    chosen = node.inputs[1].const_value if node.inputs[1] is not None else None
    if axis != 0 or chosen is None or len(chosen.shape) != 0:
        return []
    index = int(chosen.numpy()) % 3
    return [_Part(index, (node,))]


def _write(
    turn: ir.Node, packed: ir.Value, sizes: tuple[int, int, int], parts: Sequence[_Part], model: ir.Model
) -> None:
    tokens, heads, size = sizes
    dtype, batch, name = packed.type, packed.shape[0] if packed.shape is not None else None, turn.name or "qkv"
    graph = turn.graph
    assert isinstance(graph, ir.Graph)

    def value(suffix: str, shape: list) -> ir.Value:
        return ir.Value(name=f"{name}.{suffix}", type=dtype, shape=ir.Shape([batch, *shape]))

    thirds = [value(f"{part}.packed", [tokens, heads * size]) for part in "qkv"]
    lengths = integers(model, f"cat2dog.thirds_{heads * size}", [heads * size] * 3)
    shape = integers(model, f"cat2dog.heads_{tokens}x{heads}x{size}", [-1, tokens, heads, size])
    nodes = [ir.node("Split", [packed, lengths], {"axis": 2}, outputs=thirds, name=f"{name}.split")]
    turned = []
    for part, third in zip("qkv", thirds, strict=True):
        apart, output = value(f"{part}.heads", [tokens, heads, size]), value(part, [heads, tokens, size])
        nodes.append(ir.node("Reshape", [third, shape], outputs=[apart], name=f"{name}.{part}.reshape"))
        nodes.append(
            ir.node("Transpose", [apart], {"perm": [0, 2, 1, 3]}, outputs=[output], name=f"{name}.{part}.transpose")
        )
        turned.append(output)
    graph.insert_before(turn, nodes)
    for old in parts:
        old.output.replace_all_uses_with(turned[old.index], replace_graph_outputs=True)
