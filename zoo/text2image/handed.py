"""Pictures from the thread that paints them to whoever asked, who may leave early."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass

import numpy as np

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Step:
    """The picture, uint8 `[H,W,3]`, after step `number` of `total`; `seconds` since denoising began.

    `final` is the last one, decoded by the pipeline itself, and enlarged where that was asked for. `flagged` says that
    the pipeline's safety checker has blackened it.
    """

    picture: np.ndarray
    number: int
    total: int
    final: bool
    seconds: float
    flagged: bool = False


class Handed:
    """Steps and faults from the thread that paints to the caller's; at most two wait: a slow caller slows it."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Step | BaseException] = queue.Queue(maxsize=2)
        self._left = threading.Event()

    def put(self, item: Step | BaseException) -> None:
        """Raises Left where nobody waits any more."""
        while True:
            self.check()
            try:
                return self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def check(self) -> None:
        if self._left.is_set():
            raise Left

    def get(self) -> Step:
        """The next step. Raises what the painting thread met."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def leave(self) -> None:
        self._left.set()


class Left(Exception):
    """Nobody waits for the pictures any more."""
