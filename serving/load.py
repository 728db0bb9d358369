"""`python -m serving.load`: many clients at once, closed loop or open, against a running server; one result as JSON.

    python -m serving.load --url 127.0.0.1:8001 --image images/img1.jpg --clients 1 4 16 --rates 10 100 --seconds 5
    python -m serving.load --pixels 256 --batch 8 --clients 1 4 8       # of a server with --tensors

In a closed loop each client asks again as soon as it is answered; in an open one requests come at a rate, whatever
becomes of the earlier ones, which is what shows overload.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.client import AsyncClient, ServerRefused

_MOST_UNDER_WAY = 4096
_MOST_CLIENTS = 1024


@dataclass
class Round:
    """What came of one round. Times are in seconds, of each answer and of each refusal."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    def facts(self, seconds: float, pictures: int = 1) -> dict[str, Any]:
        """As it stands in the result: counts, answers and pictures a second, milliseconds at percentiles."""
        return {
            "seconds": round(seconds, 2),
            "answered": len(self.answered),
            "refused": len(self.refused),
            "wrong": self.wrong,
            "answered_per_second": round(len(self.answered) / seconds, 2),
            "pictures_per_second": round(pictures * len(self.answered) / seconds, 2),
            "answer_ms": percentiles(self.answered),
            "refusal_ms": percentiles(self.refused),
            "reasons": dict(self.reasons),
        }


def percentiles(times: Sequence[float]) -> dict[str, float] | None:
    """p50, p95, p99 and the largest, in milliseconds, by nearest rank; None where there are no times."""
    if not times:
        return None
    ordered = sorted(times)
    at = {f"p{share}": ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] for share in (50, 95, 99)}
    return {name: round(value * 1000, 2) for name, value in {**at, "max": ordered[-1]}.items()}


class Load:
    """Asks the same again and again, and compares each answer with the first.

    What is asked is `pictures` at a time: a file's bytes of a function, or uint8 `[B,R,R,3]` of a network as it is.
    """

    def __init__(self, client: AsyncClient, function: str, image: bytes | np.ndarray):
        self._client = client
        self._function = function
        self._image = image
        self._pictures = 1 if isinstance(image, bytes) else len(image)
        self._expected: dict[str, Any] | np.ndarray | None = None

    async def _asked(self) -> dict[str, Any] | np.ndarray:
        if isinstance(self._image, bytes):
            return await self._client.ask(self._function, {"image": self._image})
        return await self._client.run(self._function, self._image)

    def _facts(self, round: Round, seconds: float) -> dict[str, Any]:
        return {"pictures": self._pictures, **round.facts(seconds, self._pictures)}

    async def one(self, round: Round) -> None:
        """One request, counted."""
        began = time.monotonic()
        try:
            answer = await self._asked()
        except ServerRefused as refusal:
            round.refused.append(time.monotonic() - began)
            round.reasons[f"{refusal.status} {refusal.reason[-60:]}"] += 1
            return
        round.answered.append(time.monotonic() - began)
        self._expected = answer if self._expected is None else self._expected
        round.wrong += not np.array_equal(answer, self._expected)  # type: ignore[arg-type]

    async def closed(self, clients: int, seconds: float) -> dict[str, Any]:
        """So many clients, each with one request under way."""
        round, began = Round(), time.monotonic()

        async def again() -> None:
            while time.monotonic() - began < seconds:
                await self.one(round)

        await asyncio.gather(*(again() for _ in range(clients)))
        return {"loop": "closed", "clients": clients, **self._facts(round, time.monotonic() - began)}

    async def open(self, rate: float, seconds: float) -> dict[str, Any]:
        """So many requests a second, evenly, whether or not earlier ones are answered."""
        round, began = Round(), time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        sent = 0
        while (now := time.monotonic() - began) < seconds:
            while sent < now * rate and len(under_way) < _MOST_UNDER_WAY:
                task = asyncio.create_task(self.one(round))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                sent += 1
            await asyncio.sleep(min(1 / rate, 0.002))
        await asyncio.gather(*under_way)
        taken = time.monotonic() - began
        return {"loop": "open", "offered_per_second": float(f"{sent / seconds:.2f}"), **self._facts(round, taken)}


async def measure(
    url: str, function: str, image: bytes | np.ndarray, clients: Sequence[int], rates: Sequence[float], seconds: float
) -> list[dict[str, Any]]:
    """Every round, one after the other, after a short warm-up."""
    rounds: list[Callable[[Load], Awaitable[dict[str, Any]]]] = [
        *(lambda load, each=each: load.closed(each, seconds) for each in clients),
        *(lambda load, each=each: load.open(each, seconds) for each in rates),
    ]
    async with AsyncClient(url) as client:
        load = Load(client, function, image)
        await load.closed(2, min(seconds, 1.0))
        return [await each(load) for each in rounds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 measured, 1 where an answer differed from the first or none came, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m serving.load", description="Many clients against a server.")
    parser.add_argument("--url", default="127.0.0.1:8001", help="Triton's gRPC address (default: 127.0.0.1:8001)")
    parser.add_argument("--function", default="cat2dog", help="which function (default: cat2dog)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", type=Path, metavar="FILE", help="the picture that is sent")
    what.add_argument("--pixels", type=int, metavar="R", help="send pixels of this resolution to FUNCTION_R instead")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="of --pixels in a request (default: 8)")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8], metavar="N", help="closed loops")
    parser.add_argument("--rates", type=float, nargs="*", default=[], metavar="N", help="open loops, requests a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round (default: 5)")
    args = parser.parse_args(arguments)
    if not all(1 <= each <= _MOST_CLIENTS for each in args.clients) or not 0.1 <= args.seconds <= 600:
        parser.error(f"--clients takes 1 to {_MOST_CLIENTS}, --seconds 0.1 to 600")
    if not all(0 < each <= 10_000 for each in args.rates):
        parser.error("--rates takes more than 0, up to 10000")
    function: str = args.function
    image: bytes | np.ndarray
    sent: dict[str, Any]
    if args.pixels is not None:
        if not (1 <= args.pixels <= 4096 and 1 <= args.batch <= 64):
            parser.error("--pixels takes 1 to 4096, --batch 1 to 64")
        shape = (args.batch, args.pixels, args.pixels, 3)
        function, image = f"{function}_{args.pixels}", np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        sent = {"pixels": list(shape)}
    else:
        try:
            image = args.image.read_bytes()
        except OSError as error:
            parser.error(f"{args.image} cannot be read: {error.strerror}")
        sent = {"image_bytes": len(image)}
    rounds = asyncio.run(measure(args.url, function, image, args.clients, args.rates, args.seconds))
    print(json.dumps({"function": function, **sent, "rounds": rounds}, indent=2))
    good = all(each["wrong"] == 0 for each in rounds) and any(each["answered"] for each in rounds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
