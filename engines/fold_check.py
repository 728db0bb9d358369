"""Runs what was folded into a fused node against the nodes it stands for, in ONNX Runtime, while the graph is lowered.

Attention itself is not folded, so it is not run, and the cost does not grow with the square of the tokens: what is
compared is everything before it (from the tensors that the fused node reads to queries, keys and values, through split,
transposes, norm and RoPE) and everything after it (from heads to the output). The first node of each problem is
checked, and of the others, which differ in gains and tables, as many as a budget allows: all of a network of 256
tokens, two of one with 4096, which take a second each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from engines.excerpt import excerpt, name_of, random_rows, run_once
from engines.fused_body import calling, heads_body, input_names, output_body
from engines.fused_node import PRECISIONS, main_inputs
from engines.graph import constant_array
from engines.kernels.problem import AttentionProblem
from engines.rounding import check_rounded

# How many roundings the graph may be away from the kernel, which rounds once: norm, gain, two products and a sum.
_ROUNDINGS = 8


def numbers_of(problem: AttentionProblem) -> int:
    """How many numbers a check of the problem puts through ONNX Runtime."""
    return problem.batch[0] * (problem.queries + 2 * problem.keys) * problem.heads * problem.head_size


class FoldChecks:
    """Which nodes of a graph to check: one of each problem, then as many as `budget` allows, each of them `cost`."""

    def __init__(self, budget: int = 1 << 25, cost: Callable[[Any], int] = numbers_of):
        self._left, self._cost, self._seen = budget, cost, set[Any]()

    def wanted(self, problem: Any) -> bool:
        """Whether to check the next node, which computes `problem`; asked once a node."""
        cost = self._cost(problem)
        if problem in self._seen and cost > self._left:
            return False
        self._seen.add(problem)
        self._left -= cost
        return True


def check_folds(
    node: ir.Node,
    fused: ir.Node,
    output: ir.Value,
    sources: Sequence[ir.Value],
    problem: AttentionProblem,
    model: ir.Model,
) -> None:
    """Compare `fused`, not yet read by anyone, with the nodes around `node` from `sources` to `output`.

    Raises ToolchainError, with the numbers, where they differ by more than rounding.
    """
    opset, main, dtype = model.opset_imports.get("", 17), main_inputs(problem), PRECISIONS[problem.precision]
    rng = np.random.default_rng(0)
    feed = {name_of(source): random_rows(source, problem.batch[0], rng) for source in sources}
    parts = ("queries", "keys", "values")
    if [*fused.inputs] != [*node.inputs]:
        old = run_once(excerpt(model, sources, list(node.inputs), dtype), feed)
        adapted = run_once(excerpt(model, sources, list(fused.inputs[:main]), dtype), feed)
        extras = [array for value in fused.inputs[main:] if (array := constant_array(value)) is not None]
        names = input_names(problem)
        ranks = dict(zip(names, (array.ndim for array in (*adapted, *extras)), strict=True))
        body = calling(heads_body(problem, "Heads", opset), ranks, opset)
        new = run_once(body, dict(zip(names, [*adapted, *extras], strict=True)))
        for part, expected, got in zip(parts, old, new, strict=True):
            _compare(node, part, expected, got, problem)
    if output is not node.outputs[0]:
        heads = random_rows(node.outputs[0], problem.batch[0], rng)
        (expected,) = run_once(excerpt(model, node.outputs, [output], dtype), {name_of(node.outputs[0]): heads})
        (got,) = run_once(calling(output_body(problem, "Output", opset), {"answer": 4}, opset), {"answer": heads})
        # The output may be `[B,N,H,D]` of tokens first, which is `[B,N,H*D]` reshaped.
        _compare(node, "output", expected, got.reshape(expected.shape), problem)


def _compare(node: ir.Node, part: str, expected: np.ndarray, got: np.ndarray, problem: AttentionProblem) -> None:
    what = f"{node.name}: the {part} of the fused attention node"
    check_rounded(what, expected, got, problem.precision, _ROUNDINGS, "build with --attention decomposed")
