"""Fused linear layers on a Hopper GPU against FP64: every form of kernel, fold and ragged edge once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.kernels.linear_plan import linear_plan
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.linear_variants import LinearVariant
from engines.kernels.tune import TOLERANCE
from runtime import gpu

pytestmark = pytest.mark.gpu

BOTH = Turning(20, 64, 1e-6, True)
WIDE = Turning(14, 128, 1e-6, False)
LAYER = {"norm": "layer", "epsilon": 1e-6}
RMS = {"norm": "rms", "epsilon": 1e-6}
ADDED = {"residual": "sample", "statistics": True}
CASES = [
    (LinearProblem("fp16", 100, 200, 192, (2, 2, 2)), LinearVariant(1, 1, 64, 2)),
    (LinearProblem("fp16", 256, 1280, 3840, **LAYER, turning=BOTH), LinearVariant(2, 1, 128, 4, 2, 2, 2, ahead=True)),
    (LinearProblem("bf16", 256, 1280, 3840, **LAYER, turning=BOTH), LinearVariant(1, 2, 128, 4, ahead=True)),
    (LinearProblem("fp16", 1000, 1280, 3840, **RMS, turning=Turning(20, 64, None, True)),
     LinearVariant(2, 1, 192, 4, 2, 1, 1, 132)),
    (LinearProblem("fp16", 113, 1792, 5376, (3, 3, 3), **LAYER, turning=WIDE),
     LinearVariant(2, 1, 256, 3, 1, 2, 1, 128)),
    (LinearProblem("fp16", 256, 1280, 1280, **ADDED), LinearVariant(1, 2, 128, 4, 1, 2, 4, ahead=True)),
    (LinearProblem("fp16", 300, 1280, 1280, (2, 2, 2), residual="shared", statistics=True),
     LinearVariant(2, 2, 160, 3, 1, 2, 2)),
    (LinearProblem("bf16", 300, 1280, 1280, (1, 2, 4), **ADDED), LinearVariant(2, 1, 80, 4, 1, 4)),
    (LinearProblem("fp16", 256, 1280, 5120, **LAYER, activation="gelu"), LinearVariant(1, 1, 128, 4, resident=2)),
    (LinearProblem("fp16", 700, 1280, 5120, **RMS, activation="gelu_tanh", bias=False),
     LinearVariant(2, 2, 128, 4, 2, 2, 1, 128)),
    (LinearProblem("fp16", 256, 768, 4096, **RMS, activation="swiglu", bias=False), LinearVariant(2, 1, 128, 4, 2)),
    (LinearProblem("fp16", 256, 5120, 1280, **ADDED), LinearVariant(2, 1, 160, 4, parts=5)),
    (LinearProblem("fp16", 1, 1280, 776, **LAYER), LinearVariant(1, 1, 64, 8)),
    (LinearProblem("fp16", 2048, 1280, 3840, **LAYER, turning=BOTH),
     LinearVariant(2, 2, 128, 5, 2, 1, 1, 132, alternate=True)),
    (LinearProblem("bf16", 2000, 1280, 5120, **LAYER, activation="gelu"),
     LinearVariant(2, 2, 160, 5, blocks=132, alternate=True)),
    (LinearProblem("fp16", 256, 1280, 3840, **LAYER, turning=BOTH), LinearVariant(2, 1, 128, 6, 4, side=True)),
    # Parts of 27, 27 and 26 steps; fewer steps than stages; one step less than stages; a part's first step is its last.
    (LinearProblem("fp16", 256, 5120, 1280, **ADDED), LinearVariant(2, 1, 96, 6, parts=3)),
    (LinearProblem("bf16", 200, 768, 1280, **ADDED), LinearVariant(1, 1, 128, 8, parts=4)),
    (LinearProblem("fp16", 300, 1280, 1280, **ADDED), LinearVariant(2, 1, 64, 6, 2, parts=4)),
    (LinearProblem("fp16", 256, 256, 1280, **ADDED), LinearVariant(2, 1, 128, 6, parts=4)),
]  # fmt: skip
CASES += [(p, replace(v, brief=True)) for p, v in CASES if v.handed_stages < v.stages and v.across(p)]
# A last tile of one step of columns, and of half of one.
CASES += [
    (LinearProblem("fp16", 1, 1280, width, **LAYER), LinearVariant(1, 1, 64, 8, brief=True)) for width in (800, 784)
]


@pytest.fixture(scope="module")
def hopper():
    gpus = gpu.find_gpus()
    if not gpus:
        pytest.skip(f"no GPU: {gpu.no_gpu_reason()}")
    if gpus[0].compute_capability != "9.0":
        pytest.skip(f"{gpus[0].name} has compute capability {gpus[0].compute_capability}, these kernels are for 9.0")
    from runtime import cuda

    cuda.set_device(gpus[0].index)


@pytest.mark.parametrize(("problem", "variant"), CASES, ids=lambda value: str(value)[:60])
def test_against_fp64(hopper, problem, variant):
    from engines.kernels.linear_measure import MeasuredLinear

    plan = linear_plan(problem, variant, "9.0")
    with MeasuredLinear(problem, plan, problem.batch[1]) as measured:
        assert measured.error(measured.answers(plan)) <= TOLERANCE[problem.precision]
