"""A stand-in for the kernel library's planner of linear layers: plans that are well-formed and launch nothing real."""

from __future__ import annotations

from collections.abc import Callable

from engines.kernels.launch import Image, Launch, LaunchPlan, Pointer, Tensor
from engines.kernels.linear_plan import operands_of
from engines.kernels.linear_problem import LinearProblem
from engines.kernels.linear_variants import check_linear
from engines.kernels.problem import FusedKernel, Unsupported
from tests.engines.stand_ins import CUBIN

RUN = 16


class LinearStandIn:
    """Covers what the kernels cover unless `refuse` gives a reason against it; `asked` are the problems of theirs.

    Statistics are of runs of 16 channels, so that consumers meet more than one.
    """

    def __init__(self, refuse: Callable[[LinearProblem], str] = lambda problem: "", head_sizes: bool = False):
        self.refuse, self.head_sizes, self.asked = refuse, head_sizes, []

    def __call__(self, problem: LinearProblem) -> FusedKernel:
        if self.head_sizes:
            check_linear(problem)
        self.asked.append(problem)
        if reason := self.refuse(problem):
            raise Unsupported(reason)
        inputs, _ = operands_of(problem, "B")
        outputs = [Tensor(problem.precision, ("B", problem.rows, problem.width))]
        if problem.statistics:
            outputs.append(Tensor("fp32", ("B", problem.rows, problem.width // RUN, 2)))
        pointers = (*(Pointer("input", index) for index in range(len(inputs))), Pointer("output"))
        launch = Launch(0, "stand_in", (f"B*{problem.rows}", 1, 1), 128, 0, pointers)
        plan = LaunchPlan("9.0", tuple(inputs), tuple(outputs), (launch,), (Image(CUBIN),))
        return FusedKernel(plan, "stand-in 64x64", "the only one", 0.25)
