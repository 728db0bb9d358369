"""A fixed number of things that threads take turns with, a bounded queue before them, and an end to it all."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from runtime.errors import Busy, ToolchainError

T = TypeVar("T")


class Pool(Generic[T]):
    """`take` one of `things` and give it back; the lock is held only for that.

    Who waits longest is served first. At most `most_waiting` threads wait; the next is turned away at once, since a
    queue that only grows helps nobody. What was given back last is taken first: its memory is the warmest.
    """

    def __init__(self, things: Sequence[T], most_waiting: int, name: str):
        self._lock = threading.Lock()
        self._all_back = threading.Condition(self._lock)
        self._free = list(things)
        self._count = len(self._free)
        self._waiting: deque[_Waiter[T]] = deque()
        self._most_waiting = most_waiting
        self._name = name
        self._end: ToolchainError | None = None

    def take(self, timeout: float | None = None, held: list[T] | None = None) -> T:
        """One of the things, waited for at most `timeout` seconds (None: for as long as it takes).

        It stands in `held` (an empty list) from the moment it is taken, so that a caller whom Ctrl-C interrupts before
        he has it knows what to give back.

        Raises Busy when none came free in time or too many wait already, and what `close` or `fail` gave as the end.
        """
        held = [] if held is None else held
        waiter: _Waiter[T] | None = None
        try:
            with self._lock:
                if self._end is not None:
                    raise self._again()
                if self._free:
                    _move_last(self._free, held)
                    return held[-1]
                if timeout is not None and timeout <= 0:
                    raise Busy(f"all {self._count} {self._name} are taken; try again, or wait longer than 0 s")
                if len(self._waiting) >= self._most_waiting:
                    raise Busy(
                        f"all {self._count} {self._name} are taken and {len(self._waiting)} calls wait already; "
                        "try again later, or allow more"
                    )
                waiter = _Waiter()
                self._waiting.append(waiter)
            waiter.wait(timeout)
            with self._lock:
                self._forget(waiter)
                if waiter.things:
                    _move_last(waiter.things, held)
                    return held[-1]
                if self._end is not None:
                    raise self._again()
            raise Busy(f"none of {self._count} {self._name} came free within {timeout:g} s; try again, or wait longer")
        except BaseException:  # Ctrl-C: what was handed over meanwhile must not be lost
            if waiter is not None:
                with self._lock:
                    self._forget(waiter)
                    self._take_back(waiter.things)
            raise

    def give(self, thing: T) -> None:
        """Give back what was taken."""
        self.give_all([thing])

    def give_all(self, held: list[T]) -> None:
        """Give back what is in `held`, and empty it. Where Ctrl-C interrupts this, a second call does the rest."""
        with self._lock:
            self._take_back(held)

    def fail(self, end: ToolchainError) -> None:
        """Nothing can be taken from now on: whoever waits or comes later gets `end`."""
        with self._lock:
            self._finish(end)

    def close(self, end: ToolchainError) -> list[T]:
        """As `fail`, then wait until everything is given back; the things, for whoever comes first to free them."""
        with self._lock:
            self._finish(end)
            while len(self._free) < self._count:
                self._all_back.wait()
            things, self._free, self._count = self._free, [], 0
            return things

    def _take_back(self, held: list[T]) -> None:
        while held:
            _move_last(held, self._free)
        while self._waiting and (self._free or self._waiting[0].things):
            waiter = self._waiting[0]
            if not waiter.things:
                _move_last(self._free, waiter.things)
            waiter.wake()
            self._waiting.popleft()
        if self._end is not None:  # only who closes waits for that
            self._all_back.notify_all()

    def _finish(self, end: ToolchainError) -> None:
        self._end = self._end or end
        while self._waiting:
            self._waiting.popleft().wake()

    def _forget(self, waiter: _Waiter[T]) -> None:
        with contextlib.suppress(ValueError):  # it was served, and left the queue
            self._waiting.remove(waiter)

    def _again(self) -> ToolchainError:
        # One exception object raised by several threads would mix their tracebacks.
        assert self._end is not None
        return type(self._end)(*self._end.args)


def _move_last(source: list[T], target: list[T]) -> None:
    # Python interrupts at calls and loops only, so that nothing comes between these two.
    target += source[-1:]
    del source[-1]


class _Waiter(Generic[T]):
    """A bare lock says that the turn has come. Not an Event: one that is interrupted while it is set stays locked."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self._waking = threading.Lock()
        self._waking.acquire()

    def wait(self, timeout: float | None) -> None:
        self._waking.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        if self._waking.locked():
            self._waking.release()
