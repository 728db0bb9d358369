"""Launch plans of pixels.cu, and the planner that lowering asks: one kernel for every GPU, with nothing to tune."""

from __future__ import annotations

import functools
import math

import numpy as np

from engines.kernels.images import cuda_kernel, is_exact
from engines.kernels.launch import Image, Launch, LaunchPlan, Pointer, Tensor
from engines.kernels.library import target_for
from engines.kernels.pixels_problem import PixelsPlanner, PixelsProblem, Step
from engines.kernels.problem import FusedKernel, Unsupported
from engines.kernels.sizes import Size

# Small blocks: an image of 256 pixels a side then has more of them than an H200 has multiprocessors.
_THREADS = 128
_MOST_CHANNELS = 16
_MOST_NUMBERS = 1 << 30
# The second dimension of a grid.
_MOST_BATCH = 65535
_CODE = {
    "mul": "__fmul_rn(x, {})", "add": "__fadd_rn(x, {})", "sub": "__fsub_rn(x, {})", "rsub": "__fsub_rn({}, x)",
    "div": "__fdiv_rn(x, {})", "max": "fmaxf(x, {})", "min": "fminf(x, {})", "round": "rintf(x)",
    "fp16": "to_fp16(x)", "bf16": "to_bf16(x)",
}  # fmt: skip


def pixels_planner(compute_capability: str, gpu_name: str) -> PixelsPlanner:
    """The kernels for one GPU. Raises Unsupported for a GPU that no kernel runs on."""
    target = target_for(compute_capability)

    @functools.cache
    def plan(problem: PixelsProblem) -> FusedKernel:
        made = pixels_plan(problem, target)
        at_once = f"pixels {problem.direction}, {_vector(problem)} at once"
        return FusedKernel(made, at_once, "there is one kernel")

    return plan


def pixels_plan(problem: PixelsProblem, target: str) -> LaunchPlan:
    """Compile the kernel (or take it from the kept ones) and say how to launch it.

    Raises Unsupported for what it does not cover.
    """
    p = problem
    _check(p)
    vector, inward = _vector(p), p.direction == "in"
    stride_p, stride_q, stride_c = p.strides()
    constants = {
        "HEIGHT": p.height, "WIDTH": p.width, "CHANNELS": p.channels, "PATCH_H": p.patch_height,
        "PATCH_W": p.patch_width, "STRIDE_P": stride_p, "STRIDE_Q": stride_q, "STRIDE_C": stride_c, "VECTOR": vector,
        "WIDE": p.image_type == "fp32", "BF16": p.precision == "bf16", "IN": inward, "THREADS": _THREADS,
    }  # fmt: skip
    names, prelude = [f"pixels_{p.direction}"], steps_code(p.steps)
    compiled = cuda_kernel("pixels.cu", prelude, names, constants, target, 0, _THREADS)[0]
    batch: Size = p.batch[2] if p.batch[0] == p.batch[2] else "B"
    image = Tensor(p.image_type, (batch, p.height, p.width, p.channels))
    patches = Tensor(p.precision, (batch, p.tokens, p.inner))
    grid: tuple[Size, Size, Size] = (math.ceil(p.height * p.width * p.channels / vector / _THREADS), batch, 1)
    # Below 9.0 no kernel can wait for the one before by itself.
    launch = Launch(
        0,
        compiled.name,
        grid,
        compiled.threads,
        0,
        (Pointer("input"), Pointer("output")),
        programmatic=is_exact(target),
    )
    source, made = (image, patches) if inward else (patches, image)
    return LaunchPlan(target, (source,), (made,), (launch,), (Image(compiled.data),), 0, is_exact(target))


def steps_code(steps: tuple[Step, ...]) -> str:
    """What the kernel calls STEPS: a C++ statement for each."""
    statements = []
    for step in steps:
        values = ", ".join(f"{float(np.float32(value)).hex()}f" for value in step.values)
        statements.append(f"x = {_CODE[step.op].format(f'of_channel(channel, {values})')};")
    return f"#define STEPS {' '.join(statements)}\n"


def _check(p: PixelsProblem) -> None:
    if p.precision not in ("fp16", "bf16"):
        raise Unsupported(f"patches of {p.precision.upper()} have no kernel; those of FP16 and BF16 have")
    if p.channels > _MOST_CHANNELS:
        raise Unsupported(f"images of {p.channels} channels have no kernel; those of at most {_MOST_CHANNELS} have")
    if p.height * p.width * p.channels > _MOST_NUMBERS:
        raise Unsupported(f"images of {p.height} x {p.width} x {p.channels} have no kernel; those of at most 2^30 have")
    if p.batch[2] > _MOST_BATCH:
        raise Unsupported(f"batches of {p.batch[2]} images have no kernel; those of at most {_MOST_BATCH} have")
    if not all(math.isfinite(value) for step in p.steps for value in step.values):
        raise Unsupported("pixels that are scaled by no finite number have no kernel")


def _vector(p: PixelsProblem) -> int:
    """Numbers that a thread does: at most 16 bytes of the patch, neighbours in a row of one patch."""
    return math.gcd(8, p.patch_width * p.channels)
