"""What the server costs: pictures a second through it, beside those of its network alone."""

from __future__ import annotations

import hashlib
import sys

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

from bench.serving_bare import rate
from serving.load import Plan, measure
from serving.loops import some_pixels
from tests.serving.conftest import started
from tests.serving.sleeper import BATCH, LANES, SIDE, opened

# What 500m-256 takes for eight pictures on a Hopper GPU, about.
MS = 6.5


@pytest.mark.slow
def test_batches_of_pixels_come_through_as_fast_as_the_network_takes_them(record_property):
    with opened(MS) as runner:
        alone = rate(runner, BATCH, LANES, 3.0)
    batch = some_pixels(BATCH, SIDE)
    with started([sys.executable, "-m", "tests.serving.sleeper", str(MS), "--tensors"]) as server:
        server.event("ready")
        rounds, digest = measure(Plan(server.grpc, f"cat2dog_{SIDE}", batch, (4, 6, 8), (), 4.0), 1)
    assert digest == hashlib.sha256((255 - batch).tobytes()).hexdigest()
    assert all(each["wrong"] == each["refused"] == 0 for each in rounds)
    best = max(each["pictures_per_second"] for each in rounds)
    record_property("measured", f"{alone:.0f} pictures a second alone, {best:.0f} through the server")
    assert best >= 0.9 * alone
