"""A function behind PyTriton: each request checked, logged, counted, and kept from what is wrong with the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import GpuLost
from serving import rows
from serving.arrivals import Arrivals
from serving.function import BUSY, FAILED, OK, Answer, Ask, Function, Refusal, Value
from serving.log import JsonLog

if TYPE_CHECKING:
    from serving.tally import Tally

Responses = list[dict[str, np.ndarray]]


class Binding:
    """One function, for any number of PyTriton's instances.

    After `stop`, requests are refused; those that are being answered are answered. `lost` is called when the function
    says that this process cannot answer any more.
    """

    def __init__(
        self,
        function: Function,
        log: JsonLog,
        tally: Tally,
        arrivals: Arrivals,
        lost: Callable[[BaseException], None],
    ):
        self.function = function
        self._log = log
        self._tally = tally
        self._arrivals = arrivals
        self._lost = lost

    def infer_functions(self) -> list[Callable[[Sequence[Any]], Responses]]:
        """What PyTriton calls, one for each instance."""
        return [self._infer_function() for _ in range(self.function.instances)]

    def infer(self, requests: Sequence[Any]) -> Responses:
        """Answer what Triton's batcher brought together: PyTriton's requests, each with `data` and `parameters`."""
        parcels = [_Parcel(request.data, request.parameters or {}, self._arrivals) for request in requests]
        travellers = [each for parcel in parcels for each in parcel.travellers]
        for each in travellers:
            self._check(each)
        self._answer([each for each in travellers if each.ask is not None])
        for each in travellers:
            self._report(each)
        return [rows.response(self.function.outputs, parcel.results(), parcel.parameters, True) for parcel in parcels]

    def _infer_function(self) -> Callable[[Sequence[Any]], Responses]:
        def infer(requests: Sequence[Any]) -> Responses:
            return self.infer(requests)

        return infer

    def _check(self, traveller: Traveller) -> None:
        self._log("request", function=self.function.name, id=traveller.id, fields=described(traveller.row))
        try:
            values = rows.values_of(self.function.inputs, traveller.row, traveller.parameters)
            traveller.ask = Ask(traveller.id, values, traveller.timing.accepted, traveller.timing.is_left)
        except Refusal as refusal:
            traveller.result = refusal

    def _answer(self, travellers: Sequence[Traveller]) -> None:
        if not travellers:
            return
        asks = [each.ask for each in travellers if each.ask is not None]
        for each in travellers:
            each.timing.begin()
        try:
            results: Sequence[Answer | Refusal] = self.function.answer(asks)
        except Exception as error:  # noqa: BLE001 (whatever it is, each request gets an answer)
            results = [fault(error, self._log, self.function.name, [each.id for each in asks])] * len(asks)
            if isinstance(error, GpuLost):
                self._lost(error)
        for each, result in zip(travellers, results, strict=True):
            each.result = result
            each.timing.end()

    def _report(self, traveller: Traveller) -> None:
        report(self._log, self._tally, self.function.name, traveller)


class Timing:
    """How long a request waited and was worked on, whose parameters these are.

    One that came through the front was accepted there; of any other nothing is known before Triton handed it on.
    """

    def __init__(self, arrivals: Arrivals, parameters: Mapping[str, Any]):
        accepted = arrivals.of(parameters)
        self.through = "triton" if accepted is None else "front"
        self.is_left = lambda: self.through == "front" and arrivals.is_over(parameters)
        self.accepted = time.monotonic() if accepted is None else accepted
        self._begun: float | None = None
        self._ended: float | None = None

    def begin(self) -> None:
        """The function is asked now."""
        self._begun = time.monotonic()

    def end(self) -> None:
        """It has answered."""
        self._ended = time.monotonic()

    def facts(self, waited_ms: float) -> dict[str, Any]:
        """`queue_ms` until the function works on it, `compute_ms` while it does, `total_ms` until now."""
        now = time.monotonic()
        ended = now if self._ended is None else self._ended
        begun = ended if self._begun is None else self._begun
        return {
            "through": self.through,
            "queue_ms": (begun - self.accepted) * 1000 + waited_ms,
            "compute_ms": (ended - begun) * 1000 - waited_ms,
            "total_ms": (now - self.accepted) * 1000,
        }


@dataclass
class Traveller:
    """One row from its arrival to its result."""

    id: str
    row: Mapping[str, Value]
    parameters: Mapping[str, Any]
    timing: Timing
    ask: Ask | None = None
    result: Answer | Refusal | None = None


@dataclass
class _Parcel:
    """One of Triton's requests."""

    data: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    arrivals: Arrivals
    travellers: list[Traveller] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = rows.request_id(self.parameters)
        found = rows.rows_of(self.data, True)
        ids = [name] if len(found) == 1 else [f"{name}-{number}" for number in range(len(found))]
        self.travellers = [
            Traveller(id, row, self.parameters, Timing(self.arrivals, self.parameters))
            for id, row in zip(ids, found, strict=True)
        ]

    def results(self) -> list[Answer | Refusal]:
        return [each.result for each in self.travellers if each.result is not None]


def described(row: Mapping[str, Value]) -> dict[str, Value]:
    """A row as the log tells it: sizes of bytes, short texts as they are. No picture and no long prompt is logged."""
    told: dict[str, Value] = {}
    for name, value in row.items():
        told[name] = f"{len(value)} bytes" if isinstance(value, (bytes, str)) and _is_long(value) else value
        if isinstance(told[name], bytes):
            told[name] = told[name].decode("utf-8", "replace")  # type: ignore[union-attr]
    return told


def _is_long(value: bytes | str) -> bool:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw) > 32 or not raw.isascii() or any(each < 32 for each in raw)


def fault(error: BaseException, log: JsonLog, function: str, ids: Sequence[str]) -> Refusal:
    """What the asker is told of a fault that is not his; the log has the rest."""
    log("fault", function=function, ids=list(ids), error=repr(error), traceback=traceback.format_exc(limit=-8))
    if isinstance(error, GpuLost):
        return Refusal(BUSY, "the server has lost its GPU and starts anew; try again in a minute")
    return Refusal(FAILED, "the server failed at this request; its log says why, under this request's id")


def report(log: JsonLog, tally: Tally, function: str, traveller: Traveller, **facts: Value) -> None:
    """The response's line in the log, and its counts."""
    result = traveller.result
    if result is None:
        return
    told: dict[str, Any]
    steps: Mapping[str, Value] = {}
    if isinstance(result, Answer):
        status, told, steps = OK, {"fields": described(result.values)}, result.log
    else:
        status, told = result.status, {"reason": result.reason}
    times = traveller.timing.facts(result.waited_ms)
    log("response", function=function, id=traveller.id, status=status, **told, **{**steps, **facts, **times})
    tally.count(function, status, {**steps, **times})
