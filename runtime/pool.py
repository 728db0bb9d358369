"""A fixed number of things that threads take turns with, a bounded queue before them, and an end to it all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from runtime.errors import Busy, ToolchainError

T = TypeVar("T")


class Pool(Generic[T]):
    """`take` one of `things` and `give` it back; the lock is held only for that.

    Who waits longest is served first. At most `most_waiting` threads wait; the next is turned away at once, since a
    queue that only grows helps nobody. What was given back last is taken first: its memory is the warmest.
    """

    def __init__(self, things: Sequence[T], most_waiting: int, name: str):
        self._lock = threading.Lock()
        self._all_back = threading.Condition(self._lock)
        self._free = list(things)
        self._count = len(self._free)
        self._taken = 0
        self._waiting: deque[_Waiter[T]] = deque()
        self._most_waiting = most_waiting
        self._name = name
        self._end: ToolchainError | None = None

    def take(self, timeout: float | None = None) -> T:
        """One of the things, waited for at most `timeout` seconds (None: for as long as it takes).

        Raises Busy when none came free in time or too many wait already, and what `close` or `fail` gave as the end.
        """
        with self._lock:
            if self._end is not None:
                raise self._again()
            if self._free:
                self._taken += 1
                return self._free.pop()
            if timeout is not None and timeout <= 0:
                raise Busy(f"all {self._count} {self._name} are taken; try again, or wait longer than 0 s")
            if len(self._waiting) >= self._most_waiting:
                raise Busy(
                    f"all {self._count} {self._name} are taken and {len(self._waiting)} calls wait already; "
                    "try again later, or allow more"
                )
            waiter: _Waiter[T] = _Waiter()
            self._waiting.append(waiter)
        try:
            served = waiter.served.wait(timeout)
        except BaseException:  # Ctrl-C: what was handed over meanwhile must not be lost
            with self._lock:
                if not self._forget(waiter) and waiter.things:
                    self._hand_on(waiter.things.pop())
            raise
        with self._lock:
            if not served:
                self._forget(waiter)
            if waiter.things:
                return waiter.things.pop()
            if self._end is not None:
                raise self._again()
        raise Busy(f"none of {self._count} {self._name} came free within {timeout:g} s; try again, or wait longer")

    def give(self, thing: T) -> None:
        """Give back what was taken."""
        with self._lock:
            self._hand_on(thing)

    def fail(self, end: ToolchainError) -> None:
        """Nothing can be taken from now on: whoever waits or comes later gets `end`."""
        with self._lock:
            self._finish(end)

    def close(self, end: ToolchainError) -> list[T]:
        """As `fail`, then wait until everything is given back; the things, for whoever comes first to free them."""
        with self._lock:
            self._finish(end)
            while self._taken:
                self._all_back.wait()
            things, self._free = self._free, []
            return things

    def _hand_on(self, thing: T) -> None:
        if self._waiting:
            waiter = self._waiting.popleft()
            waiter.things.append(thing)
            waiter.served.set()
            return
        self._free.append(thing)
        self._taken -= 1
        if not self._taken:
            self._all_back.notify_all()

    def _finish(self, end: ToolchainError) -> None:
        self._end = self._end or end
        while self._waiting:
            self._waiting.popleft().served.set()

    def _forget(self, waiter: _Waiter[T]) -> bool:
        if waiter not in self._waiting:
            return False
        self._waiting.remove(waiter)
        return True

    def _again(self) -> ToolchainError:
        # One exception object raised by several threads would mix their tracebacks.
        assert self._end is not None
        return type(self._end)(*self._end.args)


class _Waiter(Generic[T]):
    def __init__(self) -> None:
        self.served = threading.Event()
        self.things: list[T] = []
