"""`python -m bench.refit`: how long an engine takes to get new weights, and whether it then is the engine of those.

Runs under the Python of the engine's TensorRT and needs no torch. `--onnx` is the lowered graph with the new weights,
`--fresh` an engine that was built from it. Both engines run the same seeded inputs: outputs after a refit are compared
with the fresh engine's, and, with the old weights back (`--back`), with those from before, bit by bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from bench.timing import summary
from engines.refit import refit_engine
from runtime.errors import AccuracyError, ToolchainError
from runtime.files import write_text
from runtime.judge import scores
from runtime.runner import DYNAMIC
from runtime.tensorrt_runner import TensorRTRunner

_LEAST_COSINE = 0.9999


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write one JSON file; exit code 3 where the weights did not arrive."""
    parser = argparse.ArgumentParser(prog="python -m bench.refit", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--engine", type=Path, required=True, help="built with --refit")
    parser.add_argument("--onnx", type=Path, required=True, help="the same graph with new weights")
    parser.add_argument("--back", type=Path, required=True, help="the graph that the engine was built from")
    parser.add_argument("--fresh", type=Path, help="an engine that was built from --onnx")
    parser.add_argument("--repeats", type=int, default=5, help="refits (default: 5)")
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    args = parser.parse_args(arguments)
    try:
        row = measure(args.engine, args.onnx, args.back, args.fresh, args.repeats)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_text(args.output, json.dumps({"machine": machine(("tensorrt", "numpy")), **row}, indent=1) + "\n")
    print(json.dumps(row), flush=True)
    return 0 if row["arrived"] else AccuracyError.exit_code


def measure(engine: Path, onnx: Path, back: Path, fresh: Path | None, repeats: int) -> dict[str, Any]:
    """One engine refitted to and fro. Raises what runners and `engines.refit` raise."""
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(TensorRTRunner(engine, lanes=1))
        feed = _feed(runner)
        before = runner.infer(feed)
        given, placed, first, later = [], [], [], []
        for _ in range(repeats):
            for source in (back, onnx):
                done = refit_engine(runner, engine, source)
                given.append(1e3 * done.given_seconds)
                placed.append(1e3 * done.placed_seconds)
                first.append(_timed(runner, feed))
            runner.infer(feed)  # captures the graph
            later.append(_timed(runner, feed))
        after = runner.infer(feed)
        expected = None
        if fresh is not None:
            expected = stack.enter_context(TensorRTRunner(fresh, lanes=1)).infer(feed)
        refit_engine(runner, engine, back)
        again = runner.infer(feed)
    same = all(np.array_equal(again[name], before[name]) for name in before)
    moved = min(scores("cosine", after, before))
    against = None if expected is None else min(scores("cosine", after, expected))
    return {
        "engine": engine.name,
        "weights": done.weights,
        "method": "new weights from host memory; given: handed to TensorRT; placed: until they are on the GPU",
        "given_ms": summary(given),
        "placed_ms": summary(placed),
        "first_run_ms": summary(first),
        "later_run_ms": summary(later),
        "cosine_to_old_weights": round(moved, 6),
        "cosine_to_fresh_build": None if against is None else round(against, 6),
        "old_weights_back_give_the_same_bits": same,
        "arrived": same and moved < _LEAST_COSINE and (against is None or against >= _LEAST_COSINE),
    }


def _feed(runner: TensorRTRunner) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feed = {}
    for spec in runner.inputs:
        largest = spec.maximum or spec.shape
        shape = [most if size == DYNAMIC else size for size, most in zip(spec.shape, largest, strict=True)]
        drawn = rng.integers(0, 255, shape) if spec.dtype == "uint8" else rng.standard_normal(shape)
        feed[spec.name] = drawn.astype(spec.numpy_dtype)
    return feed


def _timed(runner: TensorRTRunner, feed: dict[str, np.ndarray]) -> float:
    began = time.perf_counter()
    runner.infer(feed)
    return 1e3 * (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
