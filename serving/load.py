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
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from serving.client import AsyncClient
from serving.loops import Load, Round, some_pixels, together

_MOST_CLIENTS = 1024
_MOST_PROCESSES = 32
_PATIENCE = 120.0


@dataclass(frozen=True)
class Plan:
    """What is asked, and the rounds: closed loops of so many clients, then open ones of so many requests a second."""

    url: str
    function: str
    image: bytes | np.ndarray
    clients: tuple[int, ...]
    rates: tuple[float, ...]
    seconds: float


def measure(plan: Plan, processes: int) -> tuple[list[dict[str, Any]], str]:
    """Every round, one after the other, after a short warm-up; and the SHA-256 of the answers, empty where they differ.

    Clients and rates are shared out over the processes.
    """
    manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
    with manager, ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        barrier = manager.Barrier(processes)
        parts = [pool.submit(_part, plan, number, processes, barrier) for number in range(processes)]
        made, digests = zip(*(part.result() for part in parts), strict=True)
    rounds = [together(each) for each in zip(*made, strict=True)]
    pictures = 1 if isinstance(plan.image, bytes) else len(plan.image)
    heads: list[dict[str, Any]] = [{"loop": "closed", "clients": each} for each in plan.clients]
    for round in rounds[len(heads) :]:
        heads.append({"loop": "open", "offered_per_second": float(f"{round.sent / plan.seconds:.2f}")})
    told = [{**head, "pictures": pictures, **round.facts(pictures)} for head, round in zip(heads, rounds, strict=True)]
    return told, digests[0] if len(set(digests)) == 1 else ""


def _part(plan: Plan, number: int, processes: int, barrier: Barrier) -> tuple[list[Round], str]:
    """One process's share of all rounds; they begin together."""
    return asyncio.run(_rounds(plan, number, processes, barrier))


async def _rounds(plan: Plan, number: int, processes: int, barrier: Barrier) -> tuple[list[Round], str]:
    made = []
    async with AsyncClient(plan.url) as client:
        load = Load(client, plan.function, plan.image)
        await load.closed(2, min(plan.seconds, 1.0))
        for clients in plan.clients:
            barrier.wait(_PATIENCE)
            share = clients // processes + (number < clients % processes)
            made.append(await load.closed(share, plan.seconds))
        for rate in plan.rates:
            barrier.wait(_PATIENCE)
            made.append(await load.open(rate / processes, plan.seconds))
    return made, load.sha256


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
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="that the clients are shared out over (default: 1)"
    )
    args = parser.parse_args(arguments)
    if not all(1 <= each <= _MOST_CLIENTS for each in args.clients) or not 0.1 <= args.seconds <= 600:
        parser.error(f"--clients takes 1 to {_MOST_CLIENTS}, --seconds 0.1 to 600")
    if not all(0 < each <= 10_000 for each in args.rates) or not 1 <= args.processes <= _MOST_PROCESSES:
        parser.error(f"--rates takes more than 0, up to 10000, --processes 1 to {_MOST_PROCESSES}")
    function, image = _asked(parser, args)
    plan = Plan(args.url, function, image, tuple(args.clients), tuple(args.rates), args.seconds)
    rounds, digest = measure(plan, args.processes)
    sent = {"image_bytes": len(image)} if isinstance(image, bytes) else {"pixels": list(image.shape)}
    facts = {"function": function, **sent, "processes": args.processes, "sha256": digest, "rounds": rounds}
    print(json.dumps(facts, indent=2))
    good = bool(digest) and all(each["wrong"] == 0 for each in rounds) and any(each["answered"] for each in rounds)
    return 0 if good else 1


def _asked(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[str, bytes | np.ndarray]:
    if args.pixels is None:
        try:
            return args.function, args.image.read_bytes()
        except OSError as error:
            parser.error(f"{args.image} cannot be read: {error.strerror}")
    if not (1 <= args.pixels <= 4096 and 1 <= args.batch <= 64):
        parser.error("--pixels takes 1 to 4096, --batch 1 to 64")
    return f"{args.function}_{args.pixels}", some_pixels(args.batch, args.pixels)


if __name__ == "__main__":
    sys.exit(main())
