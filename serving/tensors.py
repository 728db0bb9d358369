"""An image network served as it is: uint8 pixels in and out, `[B,R,R,3]`, for clients that have no files.

No decoding, no encoding, and a batch of the client's stays one: the way of most pictures a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import GpuLost
from runtime.runner import ImageRunner
from serving import rows
from serving.arrivals import Arrivals
from serving.binding import Responses, Timing, fault
from serving.function import OK, Refusal
from serving.log import JsonLog

if TYPE_CHECKING:
    from serving.tally import Tally

INPUT, OUTPUT = "image", "dog"


class Tensors:
    """One image runner as a model; `lane` is entered while it runs. Whoever opened the runner closes it."""

    def __init__(self, name: str, runner: ImageRunner, lane: AbstractContextManager[object], most_batch: int):
        self.name = name
        self.shape = (runner.resolution, runner.resolution, 3)
        self.most_batch = min(most_batch, runner.largest_batch or most_batch)
        # One batch comes and one goes while each lane runs one.
        self.instances = runner.lanes + 2
        self._runner = runner
        self._lane = lane

    def run(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """uint8 `[B,R,R,3]` → the same, and the milliseconds that it waited for a lane."""
        queued = time.monotonic()
        with self._lane:
            waited = time.monotonic() - queued
            return self._runner.run(images), waited * 1000


class TensorBinding:
    """`Tensors` behind PyTriton, for any number of its instances. Triton has checked types, shapes and batch."""

    def __init__(
        self,
        tensors: Tensors,
        log: JsonLog,
        tally: Tally,
        arrivals: Arrivals,
        lost: Callable[[BaseException], None],
    ):
        self._tensors = tensors
        self._log = log
        self._tally = tally
        self._arrivals = arrivals
        self._lost = lost

    def infer_functions(self) -> list[Callable[[Sequence[Any]], Responses]]:
        """What PyTriton calls, one for each instance."""
        return [lambda requests: self.infer(requests) for _ in range(self._tensors.instances)]

    def infer(self, requests: Sequence[Any]) -> Responses:
        """Answer what Triton's batcher brought together, in one run."""
        ids = [rows.request_id(request.parameters or {}) for request in requests]
        images = [request.data[INPUT] for request in requests]
        timings = [Timing(self._arrivals, request.parameters or {}) for request in requests]
        name = self._tensors.name
        for id, image, timing in zip(ids, images, timings, strict=True):
            self._log("request", function=name, id=id, fields={INPUT: f"{len(image)} pictures"})
            timing.begin()
        waited, refusal = 0.0, None
        try:
            dogs, waited = self._tensors.run(images[0] if len(images) == 1 else np.concatenate(images))
        except Exception as error:  # noqa: BLE001 (whatever it is, each request gets an answer)
            refusal = fault(error, self._log, name, ids)
            dogs = np.zeros((sum(map(len, images)), *self._tensors.shape), np.uint8)
            if isinstance(error, GpuLost):
                self._lost(error)
        responses, start = [], 0
        for id, image, timing in zip(ids, images, timings, strict=True):
            timing.end()
            responses.append(_response(dogs[start : start + len(image)], refusal))
            start += len(image)
            self._report(id, refusal, timing.facts(waited), {"pictures": len(image), "batch": len(dogs)})
        return responses

    def _report(self, id: str, refusal: Refusal | None, times: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        status = refusal.status if refusal else OK
        reason = refusal.reason if refusal else None
        self._log("response", function=self._tensors.name, id=id, status=status, reason=reason, **facts, **times)
        self._tally.count(self._tensors.name, status, times)


def _response(dogs: np.ndarray, refusal: Refusal | None) -> dict[str, np.ndarray]:
    """The pixels, and status and reason of each picture as every function has them."""
    reason = np.empty((len(dogs), 1), object)
    reason[:] = refusal.reason.encode() if refusal else b""
    status = np.full((len(dogs), 1), refusal.status if refusal else OK, np.int32)
    return {OUTPUT: dogs, rows.STATUS.name: status, rows.REASON.name: reason}
