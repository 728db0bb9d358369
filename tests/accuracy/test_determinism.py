"""Runners that answer as they like: what differs is found where it does, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from accuracy.determinism import difference, measure
from accuracy.polygraphy_runner import HouseRunner
from runtime.errors import InputError
from runtime.runner import TensorSpec

FEED = {"x": np.arange(12, dtype=np.float32).reshape(3, 4) + 1}


class Doubler:
    """Twice its input, plus what `fault(run, place, batch)` says of the call number, the place and the batch."""

    outputs = (TensorSpec("y", "float32", (-1, 4)),)

    def __init__(self, fault=lambda run, place, batch: 0.0, least=1, most=8):
        shape = (least if least == most else -1, 4)
        self.inputs = (TensorSpec("x", "float32", shape, (least, 4), (most, 4)),)
        self.fault, self.least, self.most, self.runs, self.closed = fault, least, most, 0, False

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self.least <= len(feed["x"]) <= self.most
        self.runs += 1
        y = 2 * feed["x"]
        for place in range(len(y)):
            y[place, 0] += self.fault(self.runs, place, len(y))
        return {"y": y}

    def close(self) -> None:
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def found(*runners, repeats=3, batch=4):
    facts = measure([lambda r=r: r for r in runners], FEED, repeats, batch, lambda what, fraction: None)
    assert all(runner.closed for runner in runners)
    return facts


def exact(facts):
    return {
        name: facts[name] is None or facts[name]["equal"] == facts[name]["comparisons"]
        for name in ("again", "builds", "positions", "alone")
    }


def test_nothing_differs():
    facts = found(Doubler(), Doubler(), Doubler())
    assert all(exact(facts).values())
    assert facts["again"]["comparisons"] == 3 * 2 and facts["builds"]["comparisons"] == 3 * 2
    assert facts["positions"]["comparisons"] == 3 * 3 and facts["alone"]["comparisons"] == 3 * 4
    assert facts["again"] == {"comparisons": 6, "equal": 6, "largest": 0.0, "share": 0.0, "relative": 0.0}


def test_each_kind_is_told_from_the_others():
    noisy = found(Doubler(lambda run, place, batch: 0.5 if run == 2 else 0), Doubler())
    assert exact(noisy) == {"again": False, "builds": True, "positions": True, "alone": True}
    assert noisy["again"]["largest"] == 0.5 and noisy["again"]["share"] == 0.25 and noisy["again"]["equal"] == 5
    assert noisy["again"]["relative"] == pytest.approx(0.5 / np.linalg.norm(2 * FEED["x"][0]))
    other = found(Doubler(), Doubler(lambda run, place, batch: 0.25))
    assert exact(other) == {"again": True, "builds": False, "positions": True, "alone": True}
    placed = found(Doubler(lambda run, place, batch: 0.125 * (place == 2)), Doubler())
    assert exact(placed) == {"again": True, "builds": True, "positions": False, "alone": False}
    batched = found(Doubler(lambda run, place, batch: 0.125 * (batch > 1)), Doubler())
    assert exact(batched) == {"again": True, "builds": True, "positions": True, "alone": False}


@pytest.mark.parametrize(("least", "most", "batch"), [(1, 1, 1), (2, 2, 2), (3, 8, 4), (1, 3, 3), (8, 8, 8), (6, 9, 6)])
def test_batches_are_those_the_runner_takes(least, most, batch):
    facts = found(Doubler(least=least, most=most), Doubler(least=least, most=most))
    assert facts["batch"] == batch and all(exact(facts).values())
    assert (facts["positions"] is None) == (batch == 1)
    assert (facts["alone"] is None) == (least > 1 or batch == 1)


def test_not_a_number():
    nan, one = np.array([[np.nan, 1]], np.float32), np.array([[1, 1]], np.float32)
    assert difference([(nan, nan)]).equal == 1
    apart = difference([(nan, one)])
    assert apart.equal == 0 and apart.largest == apart.relative == float("inf")
    with pytest.raises(InputError, match="nothing to compare"):
        difference([])
    with pytest.raises(InputError, match="1 builds and 3 repeats were given; expected at least 2"):
        found(Doubler())


def test_polygraphy_gives_one_sample_to_a_runner_that_takes_several():
    with HouseRunner(lambda: Doubler(least=2, most=4), "house") as runner:
        y = runner.infer({"x": FEED["x"][:1]})["y"]
    assert np.array_equal(y, 2 * FEED["x"][:1])
