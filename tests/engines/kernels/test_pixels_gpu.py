"""Kernels of pixels on a GPU: every number is the graph's; early starts, captured and replayed, change none."""

from __future__ import annotations

import numpy as np
import pytest

from engines.kernels.chain import Chain, ChainNode, ChainOnGpu
from engines.kernels.library import target_of
from engines.kernels.pixels_plan import pixels_plan
from runtime import gpu
from tests.engines.kernels.pixels_cases import PROBLEMS, feed_of, reference

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def target():
    gpus = gpu.find_gpus()
    if not gpus:
        pytest.skip(f"no GPU: {gpu.no_gpu_reason()}")
    found = target_of(gpus[0].compute_capability)
    if found is None:
        pytest.skip(f"{gpus[0].name} has compute capability {gpus[0].compute_capability}, there are no kernels for it")
    from runtime import cuda

    cuda.set_device(gpus[0].index)
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_number(target, name):
    from engines.kernels.timing import Feeds

    problem = PROBLEMS[name]
    plan = pixels_plan(problem, target)
    for batch in sorted(set(problem.batch)):
        feed = feed_of(problem, batch, seed=batch)
        with Feeds([feed], {"B": batch}, 1) as feeds:
            (got,) = feeds.answers(plan)
        assert np.array_equal(got, reference(problem, feed))


def test_in_and_out_one_after_the_other(target):
    """The second reads what the first one writes, although it may start before that has ended."""
    first, second = PROBLEMS["500m-256 in"], PROBLEMS["500m-256 out"]
    nodes = tuple(
        ChainNode(problem.direction, pixels_plan(problem, target), (source,), (made,), problem.direction)
        for problem, source, made in ((first, "image", "patches"), (second, "patches", "dog"))
    )
    image = feed_of(first, 1)
    with ChainOnGpu(Chain(nodes, {"image": image}), 1) as there:
        times = there.milliseconds(there.prepared(), 50)
        got = there.value("dog", image.dtype)
    assert np.array_equal(got, reference(second, reference(first, image))) and min(times) > 0
    print(f"pixels in and out: {1e3 * sorted(times)[len(times) // 2]:.2f} us")
