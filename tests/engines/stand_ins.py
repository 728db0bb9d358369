"""Stand-ins for the kernel library: a planner whose plan is well-formed and launches nothing real."""

from __future__ import annotations

from collections.abc import Callable

from engines.kernels.launch import Image, Launch, LaunchPlan, Pointer, Tensor
from engines.kernels.problem import AttentionProblem, FusedKernel, Unsupported
from engines.kernels.variants import check_problem

CUBIN = bytes(range(256)) + b"\x7fELF"


class StandInPlanner:
    """Covers what the kernels cover unless `refuse` gives a reason against it; `asked` are the problems of theirs."""

    def __init__(self, refuse: Callable[[AttentionProblem], str] = lambda problem: ""):
        self.refuse, self.asked = refuse, []

    def __call__(self, problem: AttentionProblem) -> FusedKernel:
        check_problem(problem)
        self.asked.append(problem)
        if reason := self.refuse(problem):
            raise Unsupported(reason)
        width = problem.heads * problem.head_size
        shape = ("B", problem.queries, 3 * width if problem.layout == "packed" else width)
        plan = LaunchPlan(
            "9.0",
            (Tensor(problem.precision, shape),),
            (Tensor(problem.precision, ("B", problem.queries, width)),),
            (Launch(0, "stand_in", (f"B*{problem.heads}", 1, 1), 128, 0, (Pointer("input"), Pointer("output"))),),
            (Image(CUBIN),),
        )
        return FusedKernel(plan, "stand-in 64x64", "the only one", 0.125)
