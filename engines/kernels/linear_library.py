"""From a GPU to the kernels of its fused linear layers: the planner that lowering asks."""

from __future__ import annotations

import functools
from dataclasses import replace

from engines.kernels.library import table_for, target_for
from engines.kernels.linear_key import LinearKey
from engines.kernels.linear_plan import linear_plan
from engines.kernels.linear_problem import LinearPlanner, LinearProblem
from engines.kernels.linear_variants import LinearVariant, check_linear, fits_problem, linear_candidates
from engines.kernels.problem import FusedKernel, Unsupported
from engines.kernels.tables import Table
from runtime.errors import InputError


def linear_planner(compute_capability: str, gpu_name: str, stamps: bool = False) -> LinearPlanner:
    """Chooses kernels for one GPU out of the tuning tables. Raises Unsupported for a GPU that has none.

    The kernels are written for Hopper; other GPUs keep TensorRT's own layers. With `stamps` they note times, as
    `engines.kernels.linear_plan` says; an engine has no use for that.
    """
    target = target_for(compute_capability)
    if target != "9.0":
        raise Unsupported(f"fused linear layers run on compute capability 9.0 alone, not {compute_capability}")
    table, why, own = table_for(compute_capability, gpu_name)
    multiprocessors = table.multiprocessors if table else 132

    @functools.cache
    def plan(problem: LinearProblem) -> FusedKernel:
        check_linear(problem)
        try:
            return _choose(problem, table, why, own, target, multiprocessors, stamps)
        except InputError as error:  # a compiler is missing
            raise InputError(f"{error}; or build with --linear tensorrt") from error

    return plan


def _choose(
    problem: LinearProblem,
    table: Table | None,
    why: str,
    own: bool,
    target: str,
    multiprocessors: int,
    stamps: bool,
) -> FusedKernel:
    """`own`: the table is of the very GPU, so its times are, too."""
    key = LinearKey.of(problem)
    exact = table.find(key) if table else None
    for timing in exact.choices if exact else ():
        if isinstance(timing.variant, LinearVariant):
            plan = linear_plan(problem, timing.variant, target, stamps)
            reason = f"{why}, in its block" if exact and exact.in_block else why
            return FusedKernel(plan, str(timing.variant), reason, timing.median / 1e3 if own else None)
    # The same product with something else folded in differs in its ends alone.
    alike = table.nearest(key) if table and not exact else None
    if alike is not None and isinstance(alike.key, LinearKey) and alike.key.product == key.product:
        for timing in alike.choices:
            if isinstance(timing.variant, LinearVariant) and fits_problem(problem, timing.variant):
                plan = linear_plan(problem, timing.variant, target, stamps)
                return FusedKernel(plan, str(timing.variant), f"{why}; nearest measured problem: {alike.key}")
    # A neighbour's tiles need not fill this problem's multiprocessors: the estimate knows the sizes.
    variant = next(iter(linear_candidates(problem, target, multiprocessors)), None)
    if variant is None:
        raise Unsupported("no kernel fits this linear layer")
    variant = replace(variant, brief=False)  # a form that no table has yet is nobody's default
    return FusedKernel(
        linear_plan(problem, variant, target, stamps), str(variant), "never measured: the estimated fastest"
    )
