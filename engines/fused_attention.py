"""The form `plugin`: an attention node and the norm, RoPE and transposes around it become one fused kernel's node."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from engines.attention import DOMAIN
from engines.batch import BatchProfile
from engines.constants import constant
from engines.fold import Folded, fold
from engines.fold_check import FoldChecks, check_folds
from engines.fold_layout import Layout, find_layout, find_output, write_inputs, write_output
from engines.fused_node import OP_TYPE, PRECISIONS, attributes_of
from engines.fused_problem import attention_problem
from engines.graph import graph_of, take_over
from engines.kernels.problem import AttentionProblem, FusedKernel, Planner


@dataclass(frozen=True)
class Fused:
    """The kernel that a node was given, and what was folded into it."""

    kernel: FusedKernel
    why: str


@dataclass(frozen=True)
class FusedLowering:
    """Lowers attention nodes to kernels of `planner`, for graphs whose batch is `batch`, called `symbols` in shapes."""

    planner: Planner
    batch: BatchProfile
    symbols: Collection[str] = ()
    checks: FoldChecks = field(default_factory=FoldChecks)

    def lower(self, node: ir.Node, model: ir.Model) -> Fused:
        """Replace the node, in place. Raises Unsupported, the graph unchanged, where no kernel covers it.

        Raises ToolchainError where what was folded does not compute what the graph computed.
        """
        problem = attention_problem(node, model, self.batch, self.symbols)
        folded = fold(node, problem, PRECISIONS[problem.precision])
        layout = find_layout(folded.query, folded.key, folded.value)
        output, tokens = find_output(node)
        problem = replace(
            problem,
            layout=layout.name,
            output="tokens" if tokens else "heads",
            qk_norm=folded.epsilon,
            rope=folded.rope is not None,
        )
        kernel = self.planner(problem)
        fused = _written(node, model, problem, kernel, layout, folded)
        if self.checks.wanted(problem):
            check_folds(node, fused, output, layout.sources, problem, model)
        take_over(write_output(fused, output, tokens, model), output, node.outputs)
        return Fused(kernel, _why(problem, kernel, folded))


def _written(
    node: ir.Node, model: ir.Model, problem: AttentionProblem, kernel: FusedKernel, layout: Layout, folded: Folded
) -> ir.Node:
    """The fused node before the old one, read by nobody yet."""
    inputs = write_inputs(layout, node, model)
    for name, array in _arrays(folded):
        # Named after its content, so that one initializer serves every node that has the same.
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        shape = "x".join(str(size) for size in array.shape)
        inputs.append(constant(model, f"cat2dog.{name}_{shape}_{digest}", array, ir.DataType.FLOAT))
    attributes = attributes_of(problem, kernel, DOMAIN)
    output = ir.Value(name=f"{node.name}.fused")
    fused = ir.Node(DOMAIN, OP_TYPE, inputs, attributes, outputs=[output], name=node.name)
    graph_of(node).insert_before(node, fused)
    return fused


def _arrays(folded: Folded) -> list[tuple[str, np.ndarray]]:
    """Gains and tables, in the order of `AttentionProblem`."""
    arrays = [] if folded.gains is None else [("gain", gain) for gain in folded.gains]
    return arrays + ([] if folded.rope is None else [("cos", folded.rope.cos), ("sin", folded.rope.sin)])


def _why(problem: AttentionProblem, kernel: FusedKernel, folded: Folded) -> str:
    inside = [f"{problem.layout} to {problem.output}"]
    inside += ["RMSNorm"] if folded.gains is not None else []
    inside += ["RoPE"] if folded.rope is not None else []
    parts = [kernel.why, f"folded: {', '.join(inside)}"]
    parts += [f"not folded: {', '.join(folded.missed)}"] if folded.missed else []
    return "; ".join(part for part in parts if part)
