"""Kernels of pixels without a GPU: their very source run on the CPU, compiled for every GPU, and what plans say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.kernels import images
from engines.kernels.driver import bind
from engines.kernels.pixels_plan import pixels_plan, pixels_planner, steps_code
from engines.kernels.pixels_problem import PixelsProblem, Step, ends_grey
from engines.kernels.problem import Unsupported
from engines.kernels.variants import TARGETS
from tests.engines.kernels.cubin import kernels, parameters
from tests.engines.kernels.pixels_cases import IN, OUT, OUT_OF_CHANNELS, PROBLEMS, OnCpu, feed_of, on_cpu, reference

SMALL = PROBLEMS["bf16 in"]


@pytest.mark.skipif(OnCpu.compiler is None, reason="there is no g++ to run the kernel's source on the CPU with")
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_number_is_that_of_the_graph(name, tmp_path, monkeypatch):
    problem = PROBLEMS[name]
    cpu = on_cpu(tmp_path, monkeypatch)
    plan = pixels_plan(problem, "8.0")
    feed = feed_of(problem, problem.batch[1])
    assert np.array_equal(cpu.answer(plan, feed), reference(problem, feed))


def test_patches_and_back_is_the_image():
    feed = feed_of(replace(SMALL, steps=()), 2)
    patches = reference(replace(SMALL, steps=()), feed)
    assert not np.array_equal(patches.reshape(-1), feed.reshape(-1))
    whole = (Step("round"), Step("max", (0.0,)), Step("min", (255.0,)))
    assert np.array_equal(reference(replace(SMALL, direction="out", steps=whole), patches), feed)


@pytest.mark.parametrize("target", TARGETS)
def test_it_compiles_for_every_gpu(target, compiled):
    if why := images.why_not("nvrtc"):
        pytest.skip(why)
    for name in ("500m-256 in", "bf16 out", "channels first"):
        plan = pixels_plan(PROBLEMS[name], target)
        (image,), (launch,) = plan.images, plan.launches
        assert kernels(image.data) == {launch.name} == {f"pixels_{PROBLEMS[name].direction}"}
        assert [each.size for each in parameters(image.data, launch.name)] == [8, 8]
        assert launch.programmatic == plan.exact == (not target.startswith("8."))


def test_plans(compilers):
    plan = pixels_plan(replace(PROBLEMS["500m-256 out"], batch=(1, 2, 4)), "9.0")
    assert bind(plan, [(3, 256, 768)]) == {"B": 3}
    assert [(tensor.dtype, tensor.shape) for tensor in plan.outputs] == [("fp16", ("B", 256, 256, 3))]
    assert plan.launches[0].grid == (192, "B", 1) and plan.launches[0].block == 128
    wide = pixels_plan(SMALL, "8.9")
    assert [(tensor.dtype, tensor.shape) for tensor in wide.inputs] == [("fp32", (3, 48, 32, 3))]
    assert wide.launches[0].grid == (5, 3, 1)  # 4608 numbers, 8 a thread
    constants = [request.constants for request in compilers.requests.values()]
    assert [each["VECTOR"] for each in constants] == [8, 8] and [each["WIDE"] for each in constants] == [False, True]
    pixels_plan(PROBLEMS["patches of 14, any batch"], "9.0")
    assert list(compilers.requests.values())[-1].constants["VECTOR"] == 2


def test_the_planner_compiles_once(compilers):
    plan = pixels_planner("8.7", "some GPU")
    kernel = plan(SMALL)
    assert plan(SMALL) is kernel and kernel.plan.target == "8.6"
    assert (kernel.variant, kernel.milliseconds) == ("pixels in, 8 at once", None)
    with pytest.raises(Unsupported, match=r"there are no kernels for compute capability 7\.5"):
        pixels_planner("7.5", "an old GPU")


def test_constants_are_written_to_the_last_bit():
    steps = (Step("mul", (float(np.float32(0.1)),)), Step("rsub", (1.0, -2.5, 3.0)), Step("round"), Step("bf16"))
    assert steps_code(steps) == (
        "#define STEPS x = __fmul_rn(x, of_channel(channel, 0x1.99999a0000000p-4f)); "
        "x = __fsub_rn(of_channel(channel, 0x1.0000000000000p+0f, -0x1.4000000000000p+1f, 0x1.8000000000000p+1f), x); "
        "x = rintf(x); x = to_bf16(x);\n"
    )
    assert tuple(Step.read(step.text()) for step in steps) == steps


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"precision": "fp32"}, "FP32 have no kernel"), ({"batch": (1, 1, 65536)}, "batches of 65536 images"),
     ({"steps": (Step("mul", (float("inf"),)),)}, "by no finite number"),
     ({"channels": 17, "steps": IN}, "17 channels"),
     ({"height": 1 << 15, "width": 1 << 15}, "32768 x 32768 x 3 have no kernel")],
)  # fmt: skip
def test_what_no_kernel_covers(changes, why, compilers):
    with pytest.raises(Unsupported, match=why):
        pixels_plan(replace(SMALL, **changes), "9.0")
    assert not compilers.requests


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"direction": "up"}, "direction up"), ({"order": "pp"}, "order pp"), ({"patch_width": 5}, "32 is not cut"),
     ({"patch_height": 0}, "48 is not cut"), ({"steps": (Step("add", (1.0, 2.0)),)}, "neither one value nor 3"),
     ({"direction": "out"}, "whole numbers 0 to 255")],
)  # fmt: skip
def test_problems_that_contradict_themselves(changes, why):
    with pytest.raises(ValueError, match=why):
        replace(SMALL, **changes)


@pytest.mark.parametrize("step", [("mul", ()), ("round", (1.0,)), ("pow", (2.0,))])
def test_steps_that_are_none(step):
    with pytest.raises(ValueError, match=f"a step '{step[0]}' with {len(step[1])} values is unknown"):
        Step(*step)


@pytest.mark.parametrize(
    ("steps", "grey"),
    [(OUT, True), (OUT_OF_CHANNELS, True), (OUT[:3], False), (OUT[:2] + OUT[3:], False), ((), False),
     ((*OUT, Step("add", (0.5,))), False), ((*OUT, Step("min", (100.5,))), False),
     ((*OUT, Step("min", (100.0,))), True),
     ((*OUT[:4], Step("min", (255.0, 256.0, 255.0))), False), ((*OUT, Step("mul", (-1.0,))), False),
     ((Step("div", (0.0,)), *OUT), False)],
)  # fmt: skip
def test_which_steps_end_in_grey_levels(steps, grey):
    assert ends_grey(steps) is grey


def test_strides():
    problem = PixelsProblem("in", "fp16", 10, 9, 2, 5, 3, "cqp")
    assert problem.strides() == (1, 5, 15) and (problem.tokens, problem.inner) == (6, 30)
