"""The `cat2dog::FusedLinear` node: its attributes, beside the kernel's one for each field of `LinearProblem`."""

from __future__ import annotations

from dataclasses import fields

import onnx_ir as ir

from engines.fused_node import kernel_attributes, read_fields
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.problem import FusedKernel, Unsupported

# Ends the name of a node's second output, where it has one.
STATISTICS = ".statistics"
_TURNING = "turning_"


def linear_attributes(problem: LinearProblem, kernel: FusedKernel, namespace: str) -> list[ir.Attr]:
    """The attributes of the node that `kernel` computes `problem` in; what the problem has not, is left out."""
    said = {field.name: getattr(problem, field.name) for field in fields(problem) if field.name != "turning"}
    if problem.turning is not None:
        said.update({_TURNING + field.name: getattr(problem.turning, field.name) for field in fields(Turning)})
    given = kernel_attributes(kernel, namespace)
    given.update({name: int(v) if isinstance(v, bool) else v for name, v in said.items() if v is not None})
    return list(ir.convenience.convert_attributes(given))


def linear_problem_of(node: ir.Node) -> LinearProblem:
    """What the node computes, as its attributes say."""
    read = read_fields(node, LinearProblem)
    turning = read_fields(node, Turning, _TURNING)
    if turning:
        turning = {**turning, "rope": bool(turning["rope"])}
    return LinearProblem(
        **{**read, "bias": bool(read["bias"]), "statistics": bool(read["statistics"])},
        turning=Turning(**turning) if turning else None,
    )


def statistics_runs(kernel: FusedKernel) -> int:
    """Into how many runs of channels the kernel cuts what it leaves statistics of.

    Raises Unsupported where its plan does not give the statistics `[B, rows, S, 2]` with a number S.
    """
    outputs = kernel.plan.outputs
    shape = outputs[1].shape if len(outputs) == 2 else ()
    if len(shape) != 4 or not isinstance(shape[2], int):
        raise Unsupported(f"{kernel.variant} leaves no statistics")
    return shape[2]
