"""Closed and open loops of clients, and what came of them. `serving.load` runs them in several processes."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.client import AsyncClient, ServerRefused

_MOST_UNDER_WAY = 4096


@dataclass
class Round:
    """What came of one round of `seconds`. Times are in seconds, too, of each answer and of each refusal."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    sent: int = 0
    seconds: float = 0.0

    def facts(self, pictures: int = 1) -> dict[str, Any]:
        """As it stands in the result: counts, answers and pictures a second, milliseconds at percentiles."""
        rate = len(self.answered) / self.seconds
        return {
            "seconds": round(self.seconds, 2),
            "answered": len(self.answered),
            "refused": len(self.refused),
            "wrong": self.wrong,
            "answered_per_second": round(rate, 2),
            "pictures_per_second": round(pictures * rate, 2),
            "answer_ms": percentiles(self.answered),
            "refusal_ms": percentiles(self.refused),
            "reasons": dict(self.reasons),
        }


def together(rounds: Sequence[Round]) -> Round:
    """Rounds that ran at the same time, as one."""
    return Round(
        [each for one in rounds for each in one.answered],
        [each for one in rounds for each in one.refused],
        sum((one.reasons for one in rounds), Counter()),
        sum(one.wrong for one in rounds),
        sum(one.sent for one in rounds),
        max(one.seconds for one in rounds),
    )


def some_pixels(batch: int, resolution: int) -> np.ndarray:
    """uint8 `[batch,R,R,3]`, always the same: whoever runs them can compare what came of it."""
    return np.random.default_rng(0).integers(0, 256, (batch, resolution, resolution, 3), np.uint8)


def percentiles(times: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the largest, in milliseconds, by nearest rank; None where there are no times."""
    if not times:
        return None
    ordered = sorted(times)
    at = {f"p{share}": ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] for share in (50, 95, 99)}
    return {name: round(value * 1000, 2) for name, value in {**at, "max": ordered[-1]}.items()}


class Load:
    """Asks the same again and again, and compares each answer with the first.

    What is asked is a file's bytes of a function, or uint8 `[B,R,R,3]` of a network as it is.
    """

    def __init__(self, client: AsyncClient, function: str, image: bytes | np.ndarray):
        self._client = client
        self._function = function
        self._image = image
        self._expected: dict[str, Any] | np.ndarray | None = None

    async def _asked(self) -> dict[str, Any] | np.ndarray:
        if isinstance(self._image, bytes):
            return await self._client.ask(self._function, {"image": self._image})
        return await self._client.run(self._function, self._image)

    async def one(self, round: Round) -> None:
        """One request, counted."""
        began = time.monotonic()
        round.sent += 1
        try:
            answer = await self._asked()
        except ServerRefused as refusal:
            round.refused.append(time.monotonic() - began)
            round.reasons[f"{refusal.status} {refusal.reason[-60:]}"] += 1
            return
        round.answered.append(time.monotonic() - began)
        self._expected = answer if self._expected is None else self._expected
        round.wrong += not np.array_equal(answer, self._expected)  # type: ignore[arg-type]

    @property
    def sha256(self) -> str:
        """Of the first answer, which all others are held against; empty where there was none."""
        if self._expected is None:
            return ""
        return hashlib.sha256(_raw(self._expected)).hexdigest()

    async def closed(self, clients: int, seconds: float) -> Round:
        """So many clients, each with one request under way."""
        round, began = Round(), time.monotonic()

        async def again() -> None:
            while time.monotonic() - began < seconds:
                await self.one(round)

        await asyncio.gather(*(again() for _ in range(clients)))
        round.seconds = time.monotonic() - began
        return round

    async def open(self, rate: float, seconds: float) -> Round:
        """So many requests a second, evenly, whether or not earlier ones are answered."""
        round, began = Round(), time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        started = 0
        while (now := time.monotonic() - began) < seconds:
            while started < now * rate and len(under_way) < _MOST_UNDER_WAY:
                task = asyncio.create_task(self.one(round))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                started += 1
            await asyncio.sleep(min(1 / rate, 0.002))
        await asyncio.gather(*under_way)
        round.seconds = time.monotonic() - began
        return round


def _raw(answer: dict[str, Any] | np.ndarray) -> bytes:
    parts = list(answer.values()) if isinstance(answer, dict) else [answer.tobytes()]
    return b"".join(each if isinstance(each, bytes) else str(each).encode() for each in parts)
