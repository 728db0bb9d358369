"""`python -m bench.serving_bare`: pictures a second of a network without a server, in the Python that serves it; JSON.

As many threads as the runner has lanes, each with one batch after the other, as the server has it; and one thread that
spins, which wakes soonest. What a server reaches is held against the best of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError, ToolchainError
from runtime.runner import ImageRunner
from serving.loops import some_pixels

_LANES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving_bare", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--network", type=Path, required=True, metavar="FILE", help=".engine or .onnx")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way (default: 2)")
    args = parser.parse_args(arguments)
    try:
        ways = [measure(args.network, args.batch, threads, wait, args.seconds) for threads, wait in _ways(args.network)]
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(ways))
    return 0


def measure(network: Path, batch: int, threads: int, wait: str, seconds: float) -> dict[str, Any]:
    """Pictures a second, after a second of warm-up. Raises InputError for a batch that the network does not take."""
    with _opened(network, threads, wait) as runner:
        if not runner.smallest_batch <= batch <= (runner.largest_batch or batch):
            raise InputError(f"{network} does not take batches of {batch}; build it with --batch 1-{batch}")
        rate(runner, batch, threads, 1.0)
        return {
            "batch": batch,
            "threads": threads,
            "wait": wait,
            "seconds": seconds,
            "pictures_per_second": round(rate(runner, batch, threads, seconds), 2),
            "sha256": hashlib.sha256(runner.run(some_pixels(batch, runner.resolution)).tobytes()).hexdigest(),
        }


def rate(runner: ImageRunner, batch: int, threads: int, seconds: float) -> float:
    """Pictures a second of so many threads that ask `runner` for so many seconds."""
    images = some_pixels(batch, runner.resolution)
    counts = [0] * threads
    began = time.monotonic()

    def ask(number: int) -> None:
        while time.monotonic() - began < seconds:
            runner.run(images)
            counts[number] += batch

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    return sum(counts) / (time.monotonic() - began)


def _ways(network: Path) -> list[tuple[int, str]]:
    return [(_LANES, "block"), (1, "spin")] if network.suffix == ".engine" else [(1, "block")]


def _opened(network: Path, lanes: int, wait: str) -> ImageRunner:
    if network.suffix == ".engine":
        from runtime.tensorrt_runner import TensorRTRunner

        return ImageRunner.from_runner(TensorRTRunner(network, lanes=lanes, wait=wait))
    from serving.server import open_runner

    return open_runner(network)


if __name__ == "__main__":
    sys.exit(main())
