"""Order, bounds, faults and endings of the stream; and that its steps overlap."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from runtime.errors import InputError, ToolchainError
from runtime.stream import Steps, _Flow, default_workers, stream


class Plant:
    """Steps that keep count: an item is a number, its image holds it, its answer is 255 minus that.

    `bad` cannot be decoded, `unwritable` cannot be encoded; each step takes its seconds.
    """

    def __init__(self, bad=(), unwritable=(), decode=0.0, run=0.0, encode=0.0):
        self.bad, self.unwritable = set(bad), set(unwritable)
        self.seconds = (decode, run, encode)
        self.batches: list[int] = []
        self.written: dict[int, int] = {}
        self.lock = threading.Lock()
        self.decoded = self.alive = self.most_alive = self.at_once = self.most_at_once = 0
        self.threads: set[str] = set()

    def decode(self, item):
        time.sleep(self.seconds[0])
        if item in self.bad:
            raise InputError(f"{item} is bad")
        with self.lock:
            self.decoded += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
            self.threads.add(threading.current_thread().name)
        return np.full((2, 2, 3), item % 256, np.uint8)

    def run(self, images):
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.batches.append(len(images))
        time.sleep(self.seconds[1])
        with self.lock:
            self.at_once -= 1
        return 255 - images

    def encode(self, item, answer):
        time.sleep(self.seconds[2])
        with self.lock:
            self.alive -= 1
        if item in self.unwritable:
            raise InputError(f"{item} is unwritable")
        self.written[item] = int(answer[0, 0, 0])

    def steps(self, batch=1, lanes=1):
        return Steps(self.decode, self.run, self.encode, batch, lanes)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 100])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_every_item_in_order(count, batch, lanes, workers, keep):
    plant = Plant()
    outcomes = list(stream(range(count), plant.steps(batch, lanes), workers, keep))
    assert [outcome.item for outcome in outcomes] == list(range(count))
    assert plant.written == {item: 255 - item % 256 for item in range(count)}
    assert sorted(plant.batches, reverse=True) == [batch] * (count // batch) + [count % batch] * (count % batch > 0)
    for outcome in outcomes:
        assert outcome.fault is None
        if keep:
            assert outcome.image[0, 0, 0] == outcome.item and outcome.answer[0, 0, 0] == 255 - outcome.item
        else:
            assert outcome.image is None and outcome.answer is None
    assert threading.active_count() == 1 or not any("lane" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("keep", [True, False])
def test_faults_are_of_one_item_each(keep):
    plant = Plant(bad=range(3, 90), unwritable=[1, 95])
    outcomes = list(stream(range(100), plant.steps(batch=8), workers=2, keep=keep))
    assert [outcome.item for outcome in outcomes] == list(range(100))
    faults = {outcome.item: str(outcome.fault) for outcome in outcomes if outcome.fault}
    assert faults == {
        **{item: f"{item} is bad" for item in range(3, 90)},
        1: "1 is unwritable",
        95: "95 is unwritable",
    }
    assert sorted(plant.written) == [0, 2, 90, 91, 92, 93, 94, 96, 97, 98, 99]
    assert plant.batches == [8, 5]  # bad ones leave no gap


@pytest.mark.parametrize("keep", [True, False])
def test_all_bad(keep):
    plant = Plant(bad=range(200))
    outcomes = list(stream(range(200), plant.steps(batch=4, lanes=2), workers=2, keep=keep))
    assert len(outcomes) == 200 and all(outcome.fault for outcome in outcomes)
    assert plant.batches == []


@pytest.mark.parametrize("keep", [True, False])
def test_memory_is_bounded(keep):
    plant = Plant(encode=0.001)
    for outcome in stream(range(150), plant.steps(batch=4, lanes=2), workers=2, keep=keep):
        if keep and outcome.item < 3:
            time.sleep(0.05)  # who reads slowly holds all of it up
    assert plant.most_alive <= 4 * 3 + 2 * 2


def test_what_is_kept_counts_until_it_is_taken():
    plant = Plant()
    encode = plant.encode

    def slow_at_first(item, answer):
        time.sleep(0.2 if item == 0 else 0)  # the others are done, and must wait for their turn
        encode(item, answer)

    plant.encode = slow_at_first
    outcomes = stream(range(150), plant.steps(batch=4, lanes=2), workers=2, keep=True)
    for taken, _ in enumerate(outcomes, 1):
        assert plant.decoded < taken + 4 * 3 + 2 * 2
    assert plant.decoded == 150


def test_threads_that_cannot_be_started_leave_none_behind(monkeypatch):
    begin = threading.Thread.start

    def start(self):
        if self.name.startswith("lane") and any(each.name.startswith("lane") for each in threading.enumerate()):
            raise RuntimeError("can't start new thread")
        begin(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(stream(range(5), Plant().steps(lanes=2), workers=1))
    assert not any(each.name.startswith(("lane", "codec")) for each in threading.enumerate())


def test_lanes_run_at_once():
    plant = Plant(run=0.01)
    list(stream(range(40), plant.steps(batch=2, lanes=3), workers=2))
    assert plant.most_at_once == 3


@pytest.mark.parametrize("step", ["decode", "run", "encode"])
def test_any_other_error_ends_it(step):
    plant = Plant()
    original = getattr(plant, step)

    def full(first, *rest):
        if (first if step != "run" else int(first[0, 0, 0, 0])) == 20:
            raise ToolchainError("the disk is full")
        return original(first, *rest)

    setattr(plant, step, full)
    seen = []
    with pytest.raises(ToolchainError, match="the disk is full"):
        for outcome in stream(range(1000), plant.steps(lanes=2), workers=2):
            seen.append(outcome.item)
    assert len(plant.written) < 100
    assert seen == list(range(len(seen)))
    assert not any("lane" in thread.name for thread in threading.enumerate())


def test_stopping_early_finishes_what_is_being_written():
    plant = Plant(encode=0.02)
    outcomes = stream(range(1000), plant.steps(batch=4, lanes=2), workers=2)
    assert [next(outcomes).item for _ in range(3)] == [0, 1, 2]
    outcomes.close()
    written = dict(plant.written)
    assert 3 <= len(written) < 40
    time.sleep(0.1)
    assert plant.written == written  # nothing goes on behind one's back
    assert not any("lane" in thread.name or "codec" in thread.name for thread in threading.enumerate())


def test_an_interrupt_while_waiting_ends_it(monkeypatch):
    plant = Plant(encode=0.005)
    waited = []
    wait = _Flow._wait

    def interrupted(self, condition):
        waited.append(None)
        if len(waited) == 30:
            raise KeyboardInterrupt
        wait(self, condition)

    monkeypatch.setattr(_Flow, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(stream(range(500), plant.steps(), workers=2))
    written = dict(plant.written)
    time.sleep(0.05)
    assert plant.written == written and len(written) < 100


@pytest.mark.parametrize(
    ("slowest", "seconds"),
    [("decode", (0.008, 0.006, 0.004)), ("run", (0.004, 0.02, 0.004)), ("encode", (0.004, 0.006, 0.008))],
)
def test_the_steps_overlap(slowest, seconds):
    """All of it takes little longer than the busiest of: the lane, and the workers with decoding and encoding."""
    count, batch, workers = 120, 4, 4
    plant = Plant(decode=seconds[0], run=seconds[1], encode=seconds[2])
    began = time.perf_counter()
    list(stream(range(count), plant.steps(batch), workers))
    took = time.perf_counter() - began
    codec = count * (seconds[0] + seconds[2]) / workers
    lane = count / batch * seconds[1]
    one_after_another = count * (seconds[0] + seconds[2]) + lane
    print(f"{slowest}: {took:.2f} s; codecs {codec:.2f} s, lane {lane:.2f} s, in turn {one_after_another:.2f} s")
    assert took < 1.6 * max(codec, lane) < one_after_another


def test_outcomes_come_as_they_are_ready():
    plant = Plant(run=0.005)
    stamps = []
    for _ in stream(range(60), plant.steps(), workers=2):
        stamps.append(time.perf_counter())
    assert stamps[-1] - stamps[0] > 0.1
    assert max(later - earlier for earlier, later in pairwise(stamps)) < 0.2


def test_workers_are_as_many_as_cores():
    assert 1 <= default_workers() <= 32
