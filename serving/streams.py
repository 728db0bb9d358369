"""Functions with several answers to a request: over Triton's decoupled mode, and with the last answer alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from runtime.errors import Busy, GpuLost
from runtime.pool import Pool
from serving import rows
from serving.arrivals import Arrivals
from serving.binding import Responses, Timing, Traveller, described, fault, report
from serving.function import BUSY, FAILED, LEFT, Answer, Ask, Refusal, StreamFunction
from serving.log import JsonLog
from serving.tally import Tally


class Turns:
    """Who may call `stream` now: `instances` at once, `queue` others wait, each for at most `timeout` seconds."""

    def __init__(self, function: StreamFunction, queue: int, timeout: float):
        self._pool = Pool(range(function.instances), queue, f"turns of {function.name}")
        self._timeout = timeout

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Waits for a turn, and gives it back. Raises Refusal where there is none in time, or too many wait."""
        turn = self.take()
        try:
            yield
        finally:
            self.give(turn)

    def take(self) -> int:
        """As `one`, without giving it back."""
        try:
            return self._pool.take(self._timeout)
        except Busy as busy:
            raise Refusal(BUSY, str(busy)) from busy

    def give(self, turn: int) -> None:
        """Give a turn back, from any thread."""
        self._pool.give(turn)


class StreamBinding:
    """One stream function behind PyTriton's decoupled mode.

    Triton hands every request of a decoupled model on at once, however many there are: it is `turns` that bounds them.
    """

    def __init__(
        self,
        function: StreamFunction,
        turns: Turns,
        log: JsonLog,
        tally: Tally,
        arrivals: Arrivals,
        lost: Callable[[BaseException], None],
        queue: int,
    ):
        self.function = function
        self._name = f"{function.name}_stream"
        self._turns = turns
        self._log = log
        self._tally = tally
        self._arrivals = arrivals
        self._lost = lost
        self._queue = queue
        self._waiting = 0
        self._waiters = ThreadPoolExecutor(queue, f"{self._name}-waits")
        self._workers = ThreadPoolExecutor(function.instances, self._name)

    async def infer(self, requests: Sequence[Any]) -> AsyncIterator[Responses]:
        """What PyTriton calls, from one event loop: a request, answered piece by piece."""
        (request,) = requests  # Triton brings no requests together for a model without batches
        parameters = request.parameters or {}
        (row,) = rows.rows_of(request.data, False)
        timing = Timing(self._arrivals, parameters)
        traveller = Traveller(rows.request_id(parameters), row, parameters, timing)
        self._log("request", function=self._name, id=traveller.id, fields=described(row))
        facts: dict[str, Any] = {"pieces": 0}
        try:
            values = rows.values_of(self.function.inputs, row, parameters)
            async for answer in self._pieces(Ask(traveller.id, values, timing.accepted), timing):
                traveller.result = answer
                facts["pieces"] += 1
                yield [rows.response(self.function.outputs, [answer], parameters, False)]
            if traveller.result is None:
                traveller.result = _no_answer()
        except Refusal as refusal:
            traveller.result = refusal
        except Exception as error:  # noqa: BLE001 (whatever it is, the request gets an answer)
            traveller.result = fault(error, self._log, self._name, [traveller.id])
            if isinstance(error, GpuLost):
                self._lost(error)
        report(self._log, self._tally, self._name, traveller, **facts)
        if isinstance(traveller.result, Refusal):
            yield [rows.response(self.function.outputs, [traveller.result], parameters, False)]

    async def _pieces(self, ask: Ask, timing: Timing) -> AsyncIterator[Answer]:
        """The function's answers, made in a thread so that others' are sent meanwhile."""
        loop = asyncio.get_running_loop()
        if self._waiting >= self._queue:
            raise Refusal(BUSY, f"{self._waiting} requests wait already; try again later")
        self._waiting += 1
        try:
            turn = await loop.run_in_executor(self._waiters, self._turns.take)
        finally:
            self._waiting -= 1
        timing.begin()
        iterator = self.function.stream(ask)
        try:
            while (answer := await loop.run_in_executor(self._workers, next, iterator, None)) is not None:
                yield answer
        finally:
            self._turns.give(turn)
            if hasattr(iterator, "close"):
                await loop.run_in_executor(self._workers, iterator.close)

    def close(self) -> None:
        """Let the threads end."""
        self._waiters.shutdown()
        self._workers.shutdown()


class LastOnly:
    """A stream function as one with a single answer: the last of the stream. `Function` says what the members are."""

    most_batch = 1

    def __init__(self, function: StreamFunction, turns: Turns):
        self._function = function
        self._turns = turns
        self.name = function.name
        self.inputs, self.outputs = function.inputs, function.outputs
        self.instances = function.instances

    def warm_up(self) -> None:
        self._function.warm_up()

    def answer(self, asks: Sequence[Ask]) -> list[Answer | Refusal]:
        return [self._last(ask) for ask in asks]

    def _last(self, ask: Ask) -> Answer | Refusal:
        last: Answer | None = None
        waiting = time.monotonic()
        waited = None
        try:
            with self._turns.one():
                waited = (time.monotonic() - waiting) * 1000
                last = self._last_of(ask)
        except Refusal as refusal:
            refusal.waited_ms = (time.monotonic() - waiting) * 1000 if waited is None else waited
            return refusal
        return _no_answer() if last is None else replace(last, waited_ms=waited)

    def _last_of(self, ask: Ask) -> Answer | None:
        """Raises Refusal where the client has left: its turn is worth more to others."""
        last: Answer | None = None
        pieces = iter(()) if ask.is_left() else self._function.stream(ask)
        try:
            while not ask.is_left() and (piece := next(pieces, None)) is not None:
                last = piece
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        if ask.is_left():
            raise Refusal(LEFT, "the client has left")
        return last

    def close(self) -> None:
        self._function.close()


def _no_answer() -> Refusal:
    return Refusal(FAILED, "the function gave no answer")
