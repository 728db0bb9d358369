"""A launch plan for a problem and a variant."""

from __future__ import annotations

from engines.kernels.launch import LaunchPlan
from engines.kernels.linear_plan import linear_plan
from engines.kernels.linear_problem import LinearProblem
from engines.kernels.linear_variants import LinearVariant
from engines.kernels.plan_sm90 import Sm90Plan
from engines.kernels.plan_triton import TritonPlan
from engines.kernels.problem import AttentionProblem, Unsupported
from engines.kernels.variants import TritonVariant, Variant, check_problem


def make_plan(problem: AttentionProblem | LinearProblem, variant: Variant, target: str) -> LaunchPlan:
    """Compile what `variant` needs (or take it from the kept kernels) and say how to launch it.

    Raises Unsupported where the variant cannot do the problem.
    """
    if isinstance(problem, LinearProblem):
        if not isinstance(variant, LinearVariant):
            raise Unsupported(f"{variant} computes no linear layer")
        return linear_plan(problem, variant, target)
    check_problem(problem)
    if isinstance(variant, TritonVariant):
        return TritonPlan(problem, variant, target).plan()
    if isinstance(variant, LinearVariant):
        raise Unsupported(f"{variant} computes no attention")
    return Sm90Plan(problem, variant, target).plan()
