"""`python -m soak.long_runs`: inferences by the hundred thousand, with changing batches, threads and calls given up.

On the CPU, in ONNX Runtime: every answer has to be the first one's bits, and memory has to stay as it is. Calls are
given up the ways that they are in practice: the feed is refused, the caller is interrupted, its thread no longer waits.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import Busy, InputError, ToolchainError
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from runtime.pool import Pool
from soak.result import measured, promise
from soak.tiny import pictures, write_tiny

BATCHES = (1, 2, 3, 4, 7, 8, 16)
THREADS = 4
# What an allocator keeps back or maps anew at any time; a leak of 100 bytes a call would be more.
MOST_GROWTH_BYTES = 8 << 20


def run(folder: Path, inferences: int, loads: int) -> dict[str, Any]:
    """Both runs; the counts. Raises Broken where a promise is not kept."""
    path = write_tiny(folder / "tiny.onnx")
    return {"inferences": infer_long(path, inferences), "loads": load_often(path, loads)}


def infer_long(path: Path, count: int) -> dict[str, Any]:
    """`count` inferences over some threads; memory at ten points after the first tenth of them."""
    feed = pictures(max(BATCHES))
    counts: Counter[str] = Counter()
    memory: list[int] = []
    with OnnxRuntimeRunner(path, threads=1) as runner, ThreadPoolExecutor(THREADS) as threads:
        first = {batch: runner.infer({"image": feed[:batch]})["dog"] for batch in BATCHES}
        pool = Pool([object() for _ in range(THREADS - 1)], 2, "places")  # one fewer than there are threads

        def work(number: int, calls: int) -> Counter[str]:
            return _calls(runner, pool, feed, first, random.Random(number), calls)

        step = count // 20
        for number in range(20):
            share = step // THREADS
            for done in threads.map(work, range(number * THREADS, (number + 1) * THREADS), [share] * THREADS):
                counts.update(done)
            if number >= 1:
                memory.append(resident_bytes())
    growth = memory[-1] - memory[0]
    promise(growth < MOST_GROWTH_BYTES, f"memory grew by {growth} bytes over {count} inferences: {memory}")
    promise(counts["equal"] >= count, f"only {counts['equal']} of {count} inferences came through: {counts}")
    return {**counts, "batches": len(BATCHES), "threads": THREADS, "memory_growth_bytes": growth,
            "memory_bytes": [memory[0], max(memory), memory[-1]]}  # fmt: skip


def _calls(
    runner: OnnxRuntimeRunner, pool: Pool[object], feed: np.ndarray, first: dict[int, np.ndarray],
    random_: random.Random, calls: int,
) -> Counter[str]:  # fmt: skip
    """So many inferences by one thread, and now and then a call that is given up or refused."""
    counts: Counter[str] = Counter()
    while counts["equal"] < calls + 1:
        batch = random_.choice(BATCHES)
        what = random_.random()
        if what < 0.01:
            try:
                runner.infer({"image": feed[:batch].astype(np.float32)})
                promise(False, "a feed of the wrong type was taken")
            except InputError:
                counts["refused"] += 1
        held: list[object] = []
        try:
            pool.take(0.0 if what < 0.02 else None, held)
        except Busy:
            counts["given_up_waiting"] += 1
            continue
        try:
            if what > 0.99:
                raise KeyboardInterrupt  # as a signal would come while the place is held
            dog = runner.infer({"image": feed[:batch]})["dog"]
            promise(np.array_equal(dog, first[batch]), f"a batch of {batch} gave other bits than the first time")
            counts["equal"] += 1
        except KeyboardInterrupt:
            counts["interrupted"] += 1
        finally:
            pool.give_all(held)
    return counts


def load_often(path: Path, count: int) -> dict[str, Any]:
    """Load and release a network `count` times; memory, threads and open files stay as they are."""
    feed = {"image": pictures(2)}
    memory, files, threads = [], [], []
    first: np.ndarray | None = None
    for number in range(count):
        runner = OnnxRuntimeRunner(path, threads=1)
        dog = runner.infer(feed)["dog"]
        first = dog if first is None else first
        promise(np.array_equal(dog, first), f"load {number} gave other bits than the first")
        runner.close()
        try:
            runner.infer(feed)
            promise(False, "a closed runner runs")
        except ToolchainError:
            pass
        if number >= count // 4 and number % max(1, count // 20) == 0:
            gc.collect()
            memory.append(resident_bytes())
            files.append(len(os.listdir("/proc/self/fd")))
            threads.append(threading.active_count())
    growth = memory[-1] - memory[0]
    promise(growth < MOST_GROWTH_BYTES, f"memory grew by {growth} bytes over {count} loads: {memory}")
    promise(files[-1] == files[0] and threads[-1] == threads[0], f"files {files} or threads {threads} were left open")
    return {"loaded": count, "memory_growth_bytes": growth, "open_files": files[-1]}


def resident_bytes() -> int:
    """How much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, file the counts; exit code 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.long_runs", description="Long runs on the CPU.")
    parser.add_argument("--inferences", type=int, default=100_000, help="(default: 100000)")
    parser.add_argument("--loads", type=int, default=200, help="(default: 200)")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/long_runs.json)")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="cat2dog-soak-") as folder:
            measured("long_runs", lambda: run(Path(folder), args.inferences, args.loads), args.output)
    except AssertionError as error:
        print(f"error: {error} (after {time.monotonic() - began:.0f} s)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
