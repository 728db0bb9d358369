"""A stand-in for the planner of pixels: plans that are well-formed and launch nothing real."""

from __future__ import annotations

from collections.abc import Callable

from engines.kernels.launch import Image, Launch, LaunchPlan, Pointer, Tensor
from engines.kernels.pixels_problem import PixelsProblem
from engines.kernels.problem import FusedKernel, Unsupported
from tests.engines.stand_ins import CUBIN


class PixelsStandIn:
    """Covers everything unless `refuse` gives a reason against it; `asked` are the problems."""

    def __init__(self, refuse: Callable[[PixelsProblem], str] = lambda problem: ""):
        self.refuse, self.asked = refuse, []

    def __call__(self, problem: PixelsProblem) -> FusedKernel:
        self.asked.append(problem)
        if reason := self.refuse(problem):
            raise Unsupported(reason)
        ends = [
            Tensor(problem.image_type, ("B", problem.height, problem.width, problem.channels)),
            Tensor(problem.precision, ("B", problem.tokens, problem.inner)),
        ]
        source, made = ends if problem.direction == "in" else reversed(ends)
        launch = Launch(0, "stand_in", ("B", 1, 1), 128, 0, (Pointer("input"), Pointer("output")))
        plan = LaunchPlan("9.0", (source,), (made,), (launch,), (Image(CUBIN),))
        return FusedKernel(plan, "stand-in", "the only one")
