"""QK-norm and RoPE moved from an attention node into the linear layer that makes its queries, keys and values.

There both are done once for every token where the numbers are in registers anyway; inside attention they are done
again for every block of queries, or by a kernel of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from engines.attention import DOMAIN
from engines.fused_linear_layers import Layer
from engines.fused_node import OP_TYPE, attributes_of, main_inputs, problem_of
from engines.graph import only_reader
from engines.kernels.linear_problem import Turning
from engines.kernels.problem import AttentionProblem, FusedKernel


@dataclass(frozen=True, eq=False)
class AttentionTurning:
    """What attention `node` does to queries and keys, as a `Turning`, with its gains and tables."""

    node: ir.Node
    turning: Turning
    extras: tuple[ir.Value, ...]

    @property
    def problem(self) -> AttentionProblem:
        """What the attention node computes as it is."""
        return problem_of(self.node)

    @property
    def plain(self) -> AttentionProblem:
        """What is left of it."""
        return replace(self.problem, qk_norm=None, rope=False)

    def apply(self, kernel: FusedKernel) -> None:
        """Make the node plain attention, computed by `kernel`."""
        attributes = attributes_of(self.plain, kernel, DOMAIN)
        self.node.resize_inputs(main_inputs(self.plain))
        self.node.attributes.clear()
        self.node.attributes.update({attribute.name: attribute for attribute in attributes})


def find_turning(layer: Layer) -> AttentionTurning | None:
    """What the attention that alone reads the layer's output does to queries and keys, or None."""
    node = only_reader(layer.output)
    if node is None or (node.domain, node.op_type) != (DOMAIN, OP_TYPE) or layer.activation or layer.residual:
        return None
    problem = problem_of(node)
    if problem.layout != "packed" or node.inputs[0] is not layer.output:
        return None
    if problem.qk_norm is None and not problem.rope:
        return None
    turning = Turning(problem.heads, problem.head_size, problem.qk_norm, problem.rope)
    extras = tuple(value for value in node.inputs[1:] if value is not None)
    return AttentionTurning(node, turning, extras)
