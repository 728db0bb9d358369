"""The blocks of a graph, found by the names of its nodes, and which value of two graphs is the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from accuracy.debug_copy import FLOATS
from accuracy.thresholds import MOST_BYTES

# Nodes that lowering makes are numbered over all operators, and one graph has casts where the other has none.
_NUMBERED = re.compile(r"(.*\.)([A-Z]\w*)_\d+\.out")
_NARROW_OUTPUT = re.compile(r"_(fp16|bf16)$")
_POLICY_CAST = re.compile(r"/Cast_(fp16|bf16|fp32)$")


@dataclass(frozen=True)
class Block:
    """A module of the tree: `output` is the value that leaves it, `nodes` are those since the block before."""

    name: str
    output: str
    nodes: tuple[ir.Node, ...]


def module_of(node: ir.Node) -> str:
    """Dotted path of the module that made the node, from its name: `network.blocks.0.norm1/Pow`; "" if unknown.

    Casts between precisions are named after the value they cast, and belong to no module.
    """
    if node.op_type == "Cast" and _POLICY_CAST.search(node.name or ""):
        return ""
    path, slash, _ = (node.name or "").rpartition("/")
    return path if slash and path != "graph" and " " not in path else ""


def find_blocks(model: ir.Model, known: Sequence[str]) -> list[Block]:
    """Blocks in the order they run. `known` are the values that the other graph has too: an output is one of them.

    A block is a module whose path ends in its first number (`network.blocks.3` of `network.blocks.3.mlp.up`); modules
    without a number are cut at the same depth (`network.embed`). Where nothing is numbered, the depth is the least with
    three modules. A module that runs within others, as one shared by all blocks, is none.
    """
    nodes = list(model.graph)
    depth = _depth([module_of(node) for node in nodes])
    spans: dict[str, list[int]] = {}
    for position, node in enumerate(nodes):
        if name := _cut(module_of(node), depth):
            spans.setdefault(name, []).append(position)
    numbered = {name for name in spans if any(part.isdigit() for part in name.split("."))}
    for name in list(spans):
        first, last = spans[name][0], spans[name][-1]
        others = numbered - {name}
        if name not in numbered and any(spans[o][-1] > first and spans[o][0] < last for o in others):
            del spans[name]
    blocks, began = [], 0
    wanted = set(known)
    for name, positions in sorted(spans.items(), key=lambda entry: entry[1][-1]):
        leaving = [(p, value) for p in reversed(positions) if (value := _leaving(nodes[p], name, depth, wanted))]
        if leaving and leaving[0][0] >= began:
            end, output = leaving[0]
            blocks.append(Block(name, output, tuple(nodes[began : end + 1])))
            began = end + 1
    return blocks


def _depth(modules: Sequence[str]) -> int:
    numbers = Counter(
        next(i for i, part in enumerate(path.split(".")) if part.isdigit()) + 1
        for path in modules
        if any(part.isdigit() for part in path.split("."))
    )
    if numbers:
        return numbers.most_common(1)[0][0]
    deepest = max((path.count(".") + 1 for path in modules if path), default=1)
    cut = (d for d in range(1, deepest + 1) if len({_cut(path, d) for path in modules if path}) >= 3)
    return next(cut, deepest)


def _cut(module: str, depth: int) -> str:
    parts = module.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[: depth if first is None else first + 1])


def _leaving(node: ir.Node, block: str, depth: int, known: set[str]) -> str | None:
    for value in node.outputs:
        readers = {_cut(module_of(use.node), depth) for use in value.uses()} - {""}
        if value.name in known and is_float(value) and (readers - {block} or value.is_graph_output() or not readers):
            return str(value.name)
    return None


def is_float(value: ir.Value) -> bool:
    """Whether the value is a float that can be marked without taking too much memory."""
    return value.dtype in FLOATS and _bytes(value) <= MOST_BYTES


def _bytes(value: ir.Value) -> int:
    size = 4
    for each in value.shape or ():
        size *= each if isinstance(each, int) else 1  # the batch; one sample is looked at
    return size


def same_values(candidate: ir.Model, reference: ir.Model) -> dict[str, str]:
    """Names of the candidate's float values to those of the reference's that mean the same."""
    known = {key: name for name, key in _keys(reference).items()}
    return {name: known[key] for name, key in _keys(candidate).items() if key in known}


def _keys(model: ir.Model) -> dict[str, str]:
    keys: dict[str, str] = {}
    count: Counter[str] = Counter()
    for node in model.graph:
        for value in node.outputs:
            if not is_float(value) or not value.name:
                continue
            match = _NUMBERED.fullmatch(value.name)
            if node.op_type == "Cast" and (match or _POLICY_CAST.search(node.name or "")):
                continue
            # A graph output that is narrow inside has its own name only behind the cast that widens it.
            stem = f"{match[1]}{match[2]}" if match else _NARROW_OUTPUT.sub("", value.name)
            count[stem] += 1
            keys[value.name] = f"{stem}#{count[stem]}" if match else stem
    return keys
