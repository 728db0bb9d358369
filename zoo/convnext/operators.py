"""`python -m zoo.convnext.operators FILE.onnx`: how often each operator is in a graph, and its share of the arithmetic.

Prints a table, and draws it with `--output chart.svg`. For any ONNX file whose shapes can be inferred.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from zoo.command import Parser, run

# Floating-point operations an output element costs, of what is no product; one for the rest that computes.
_COST = {"LayerNormalization": 8, "Softmax": 5, "Gelu": 12, "Tanh": 6, "Erf": 6, "Sigmoid": 4, "HardSwish": 4, "Pow": 2}
_MOVES = frozenset(
    "Cast Identity Reshape Transpose Flatten Squeeze Unsqueeze Shape Constant Slice Concat Gather Expand Split".split()
)


@dataclass(frozen=True)
class Operator:
    """How many nodes of a type there are, and their floating-point operations for one sample."""

    kind: str
    count: int
    flops: int


def operators(path: Path) -> list[Operator]:
    """By falling arithmetic, then count. Depthwise and pointwise convolutions are told apart.

    Raises InputError for a file that is no ONNX, or whose shapes cannot be inferred with a batch of one.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].Clear()
                dims[0].dim_value = 1
        del model.graph.value_info[:]
        model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    except (
        OSError,
        ValueError,
        DecodeError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise InputError(f"{path} is no ONNX file that can be read ({str(error)[:200]})") from error
    graph = model.graph
    shapes: dict[str, list[int]] = {each.name: list(each.dims) for each in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    counts: dict[str, int] = defaultdict(int)
    flops: dict[str, int] = defaultdict(int)
    for node in graph.node:
        kind = _kind(node, shapes)
        counts[kind] += 1
        flops[kind] += _flops(node, shapes)
    if counts and not any(flops.values()):
        raise InputError(f"{path}: shapes between its nodes cannot be inferred; export it with `cat2dog export`")
    found = [Operator(kind, count, flops[kind]) for kind, count in counts.items()]
    return sorted(found, key=lambda each: (-each.flops, -each.count, each.kind))


def _kind(node: Any, shapes: dict[str, list[int]]) -> str:
    if node.op_type != "Conv":
        return str(node.op_type)
    weight = shapes.get(node.input[1], [])
    if len(weight) > 1 and weight[1] == 1 and weight[0] > 1:
        return "Conv, depthwise"
    return "Conv, 1 x 1" if weight[2:] and set(weight[2:]) == {1} else "Conv"


def _flops(node: Any, shapes: dict[str, list[int]]) -> int:
    out = math.prod(shapes.get(node.output[0], [0]) or [1])
    if node.op_type == "Conv":
        weight = shapes.get(node.input[1], [])
        return 2 * out * math.prod(weight[1:]) if weight else 0
    if node.op_type in ("MatMul", "Gemm"):
        given = shapes.get(node.input[0], [])
        turned = any(each.name == "transA" and each.i for each in node.attribute)
        inner = given[-2 if turned else -1] if given else 0
        return 2 * out * inner
    if node.op_type in ("ReduceMean", "GlobalAveragePool", "ReduceSum", "AveragePool", "MaxPool"):
        return math.prod(shapes.get(node.input[0], [0]))
    return 0 if node.op_type in _MOVES else out * _COST.get(node.op_type, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, and draw; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.operators",
        "Operators of an ONNX file: counts, and shares of the arithmetic.",
        "python -m zoo.convnext.operators build/onnx/convnext-gelu-224_fp16.onnx --output operators.svg",
    )
    parser.add_argument("onnx", type=Path, metavar="FILE.onnx")
    parser.add_argument("--output", type=Path, metavar="FILE.svg", help="a chart")
    return run(parser, _chart, arguments)


def _chart(args: argparse.Namespace) -> int:
    if args.output is not None and args.output.suffix != ".svg":
        raise InputError(f"output {args.output} was given; expected a file ending in .svg")
    from bench.report.svg import Bar, bars
    from runtime.files import write_text

    found = operators(args.onnx)
    total = sum(each.flops for each in found) or 1
    print(f"{'operator':22}{'nodes':>7}{'MFLOP':>12}{'share %':>9}")
    for each in found:
        print(f"{each.kind:22}{each.count:7}{each.flops / 1e6:12.2f}{100 * each.flops / total:9.2f}")
    if args.output is not None:
        shown = [each for each in found if each.flops]
        items = [
            Bar(
                f"{each.kind}, {each.count} nodes",
                each.flops / 1e6,
                "#0072b2",
                note=f", {100 * each.flops / total:.1f} %",
            )
            for each in shown
        ]
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.output, bars(items, "MFLOP"))
        print(f"{args.output}: {len(shown)} kinds of operators")
    return 0


if __name__ == "__main__":
    sys.exit(main())
