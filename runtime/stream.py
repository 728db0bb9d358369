"""Many items through decode, run and encode at once: while a batch runs, the next are decoded and the last encoded.

Knows neither files nor networks: what decodes, runs and encodes is given to it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from runtime.errors import InputError

T = TypeVar("T")
_MOST_WORKERS = 32


@dataclass
class Outcome(Generic[T]):
    """What became of one item: milliseconds of each step, `run_ms` its share of its batch's, or the `fault` it had.

    `image` and `answer` are what was decoded and what was encoded, where `stream` was told to keep them.
    """

    item: T
    fault: InputError | None = None
    decode_ms: float = 0.0
    run_ms: float = 0.0
    encode_ms: float = 0.0
    image: np.ndarray | None = None
    answer: np.ndarray | None = None


@dataclass(frozen=True)
class Steps(Generic[T]):
    """`decode` and `encode` run in worker threads, `run` in as many threads as there are lanes.

    `run` takes up to `batch` decoded images, stacked, and gives as many answers. An InputError of `decode` or `encode`
    is a fault of that item alone; every other error ends the stream.
    """

    decode: Callable[[T], np.ndarray]
    run: Callable[[np.ndarray], np.ndarray]
    encode: Callable[[T, np.ndarray], object]
    batch: int = 1
    lanes: int = 1


def default_workers() -> int:
    """One for each core this process may use: codecs in C let other threads work meanwhile."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MOST_WORKERS)


def stream(
    items: Sequence[T], steps: Steps[T], workers: int | None = None, keep: bool = False
) -> Generator[Outcome[T], None, None]:
    """Outcomes in the order of `items`. Close the iterator to stop early: what is being written is finished first.

    Batches are full, but for the last one. Memory is bounded: so many images are under way as keep every lane and
    worker busy, and nothing is decoded beyond that until one is through (with `keep`: until it was taken from here).
    """
    workers = workers or default_workers()
    flow = _Flow(steps, keep, most=steps.batch * (steps.lanes + 1) + 2 * workers)
    with ThreadPoolExecutor(workers, "codec") as codec, ThreadPoolExecutor(steps.lanes, "lane") as lanes:
        flow.codec = codec
        try:
            for _ in range(steps.lanes):
                lanes.submit(flow.run_batches)
            yield from flow.outcomes(items)
        finally:
            flow.stop()
            codec.shutdown(wait=False, cancel_futures=True)


class _Journey(Generic[T]):
    """An item on its way."""

    def __init__(self, item: T):
        self.outcome = Outcome(item)
        self.decoded: Future[np.ndarray | None] | None = None
        self.done = False


class _Flow(Generic[T]):
    def __init__(self, steps: Steps[T], keep: bool, most: int):
        self.codec: ThreadPoolExecutor | None = None
        self._steps = steps
        self._keep = keep
        self._most = most
        self._under_way = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopping = False
        self._to_run: queue.SimpleQueue[_Journey[T] | None] = queue.SimpleQueue()
        self._forming = threading.Lock()

    def outcomes(self, items: Sequence[T]) -> Iterator[Outcome[T]]:
        journeys: deque[_Journey[T]] = deque()
        for item in items:
            # The oldest may be waiting for its batch to fill, so that either a place or an outcome can come first.
            self._wait(lambda: self._under_way < self._most or journeys[0].done)
            while self._under_way >= self._most:
                yield self._take(journeys)
                self._wait(lambda: self._under_way < self._most or journeys[0].done)
            journeys.append(self._start(item))
            while journeys and journeys[0].done:
                yield self._take(journeys)
        self._to_run.put(None)
        while journeys:
            self._wait(lambda: journeys[0].done)
            yield self._take(journeys)

    def run_batches(self) -> None:
        """What each lane's thread does."""
        try:
            while batch := self._next_batch():
                self._run(batch)
        except CancelledError:
            pass  # the stream is being stopped
        except BaseException as error:  # noqa: BLE001 (raised again by whoever reads the outcomes)
            self._fail(error)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
        self._to_run.put(None)

    def _start(self, item: T) -> _Journey[T]:
        assert self.codec is not None
        journey = _Journey(item)
        with self._changed:
            self._under_way += 1
        journey.decoded = self.codec.submit(self._decode, journey)
        self._to_run.put(journey)
        return journey

    def _take(self, journeys: deque[_Journey[T]]) -> Outcome[T]:
        outcome = journeys.popleft().outcome
        if self._keep and outcome.fault is None:
            self._leave()
        return outcome

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or condition())
            if self._error is not None:
                raise self._error

    def _decode(self, journey: _Journey[T]) -> np.ndarray | None:
        began = time.perf_counter()
        try:
            image = self._steps.decode(journey.outcome.item)
        except InputError as fault:
            self._end(journey, fault)
            return None
        except BaseException as error:
            self._fail(error)
            raise CancelledError from error
        journey.outcome.decode_ms = _ms(began)
        return image

    def _next_batch(self) -> list[tuple[_Journey[T], np.ndarray]]:
        batch: list[tuple[_Journey[T], np.ndarray]] = []
        with self._forming:
            while len(batch) < self._steps.batch:
                journey = self._to_run.get()
                if journey is None or self._stopping:
                    self._to_run.put(None)  # for the other lanes, and for the next call
                    break
                assert journey.decoded is not None
                image = journey.decoded.result()
                journey.decoded = None
                if image is not None:
                    batch.append((journey, image))
        return [] if self._stopping else batch

    def _run(self, batch: list[tuple[_Journey[T], np.ndarray]]) -> None:
        assert self.codec is not None
        images = np.stack([image for _, image in batch])
        began = time.perf_counter()
        answers = self._steps.run(images)
        each = _ms(began) / len(batch)
        for (journey, image), answer in zip(batch, answers, strict=True):
            journey.outcome.run_ms = each
            if self._keep:
                journey.outcome.image, journey.outcome.answer = image, answer
            if self._stopping:
                return
            self.codec.submit(self._encode, journey, answer)

    def _encode(self, journey: _Journey[T], answer: np.ndarray) -> None:
        began = time.perf_counter()
        try:
            self._steps.encode(journey.outcome.item, answer)
        except InputError as fault:
            self._end(journey, fault)
        except BaseException as error:  # noqa: BLE001 (raised again by whoever reads the outcomes)
            self._fail(error)
        else:
            journey.outcome.encode_ms = _ms(began)
            self._end(journey)

    def _end(self, journey: _Journey[T], fault: InputError | None = None) -> None:
        journey.outcome.fault = fault
        if fault is not None or not self._keep:
            self._leave()
        with self._changed:
            journey.done = True
            self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._stopping = True
            self._changed.notify_all()
        self._to_run.put(None)


def _ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
