"""`python -m bench.timeline`: where the time of each linear launch of a block goes, by stamps in the kernel.

A few blocks are launched in a row, as a CUDA graph, with kernels that note their multiprocessor's clock at six points
(`engines.kernels.linear_plan.STAMPS`). What an engine launches has no stamps; the time of a block with and without them
is told beside each other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from cat2dog.config import Config, lookup
from cli.tune_blocks import block_of
from cli.tune_keys import block_keys
from engines.kernels.chain import ChainOnGpu
from engines.kernels.linear_library import linear_planner
from engines.kernels.linear_plan import STAMPS
from engines.kernels.tune_block import BLOCKS, STAMPED, BlocksInRow
from runtime import cuda
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text
from runtime.gpu import find_gpus, no_gpu_reason

# Stamps in the order of STAMPS, then nanoseconds of the first and the last of them.
_BEGUN, _ASKED, _WAITED, _FIRST, _MULTIPLIED, _ENDED, _BEGUN_NS, _ENDED_NS = range(len(STAMPS) + 2)
_PHASES = (
    ("ask for weights", _BEGUN, _ASKED),
    ("begin to first tile", _BEGUN, _FIRST),
    ("kernel before ended to first tile", _WAITED, _FIRST),
    ("multiply", _FIRST, _MULTIPLIED),
    ("finish", _MULTIPLIED, _ENDED),
)
_REPEATS = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the blocks of some checkpoints and write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.timeline", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", nargs="+", required=True, metavar="NAME", help="named checkpoints: 500m-256")
    parser.add_argument("--precision", choices=("fp16", "bf16"), default="fp16", help="default: fp16")
    parser.add_argument("--batch", type=int, default=1, help="batch size (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    args = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    try:
        if not 1 <= args.batch <= 1 << 10:
            raise InputError(f"batch {args.batch} is not between 1 and 1024")
        configs = [lookup(name) for name in args.model]
        if not find_gpus():
            raise ToolchainError(f"stamps need an NVIDIA GPU: {no_gpu_reason()}")
        cuda.set_device(0)
        for name, config in zip(args.model, configs, strict=True):
            rows.append({"checkpoint": name, **measure(config, args.precision, args.batch)})
            about = {"machine": machine(("cuda-bindings", "numpy")), "method": _METHOD, "blocks": rows}
            write_text(args.output, json.dumps(about, indent=1) + "\n")
            print(f"{name}: {rows[-1]['us']:.1f} us a block, with stamps {rows[-1]['stamped_us']:.1f} us", flush=True)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


_METHOD = (
    f"CUDA graph of {BLOCKS} blocks with weights of their own, the last of {_REPEATS} replays; medians over the thread "
    "blocks of all transformer blocks but the first"
)


def measure(config: Config, precision: str, batch: int) -> dict[str, Any]:
    """Microseconds of a block, with and without stamps, and the phases of each of its linear launches."""
    keys = block_keys(config, precision, batch)
    if keys is None:
        raise InputError("this checkpoint's blocks have no fused linear layers")
    gpu = find_gpus()[0]
    block = block_of(*keys, gpu)
    row = BlocksInRow(block, batch)
    plain, stamped = (linear_planner(gpu.compute_capability, gpu.name, stamps) for stamps in (False, True))
    chosen = {name: plain(problem) for name, problem in block.linear.items()}
    with ChainOnGpu(row.chain({name: kernel.plan for name, kernel in chosen.items()}), batch) as there:
        us = _block_us(there)
        with ChainOnGpu(row.chain({name: stamped(p).plan for name, p in block.linear.items()}), batch, there) as other:
            stamped_us = _block_us(other)
            stamps = {
                name: [
                    _stamps(other.value(f"{number}.{name}.{STAMPED}", np.dtype(np.int32))) for number in range(BLOCKS)
                ]
                for name in block.linear
            }
    told = [{"layer": name, "variant": chosen[name].variant, **each} for name, each in phases(stamps).items()]
    about = {"us": us, "stamped_us": stamped_us, "clock_ghz": round(clock(stamps), 3)}
    return {**about, "precision": precision, "batch": batch, "layers": told}


def _block_us(chain: ChainOnGpu) -> float:
    return round(1e3 * statistics.median(chain.milliseconds(chain.prepared(), _REPEATS)) / BLOCKS, 2)


def _stamps(words: np.ndarray) -> np.ndarray:
    """`[blocks, 16]` i32 as `[blocks, 8]` i64."""
    return np.ascontiguousarray(words).view(np.int64)


def clock(stamps: Mapping[str, Sequence[np.ndarray]]) -> float:
    """Clocks a nanosecond: the median over all thread blocks."""
    every = np.concatenate([each for layers in stamps.values() for each in layers])
    lasted = np.maximum(every[:, _ENDED_NS] - every[:, _BEGUN_NS], 1)
    return float(np.median((every[:, _ENDED] - every[:, _BEGUN]) / lasted))


def phases(stamps: Mapping[str, Sequence[np.ndarray]]) -> dict[str, dict[str, Any]]:
    """By layer, from stamps `[thread blocks, 8]` of each transformer block in a row, layers in their order.

    `us` are medians of each phase; `gap_us` is how long after the last thread block of the layer before (attention is
    not stamped: of the layer before it) the median thread block has its first tile; `late` the share of thread blocks
    that began when that layer had ended, for want of room before.
    """
    ghz = clock(stamps)
    told: dict[str, dict[str, Any]] = {}
    names = list(stamps)
    for index, name in enumerate(names):
        rows, gaps, late = [], [], []
        for number in range(1, len(stamps[name])):
            here = stamps[name][number]
            before = stamps[names[index - 1]][number - (index == 0)]
            ended = before[:, _ENDED_NS].max()
            first = here[:, _BEGUN_NS] + (here[:, _FIRST] - here[:, _BEGUN]) / ghz
            gaps.append(np.median(first - ended) / 1e3)
            late.append(np.mean(here[:, _BEGUN_NS] > ended))
            rows.append(here)
        joined = np.concatenate(rows)
        us = {
            what: round(float(np.median(joined[:, to] - joined[:, begin])) / ghz / 1e3, 2)
            for what, begin, to in _PHASES
        }
        told[name] = {
            "thread_blocks": len(stamps[name][0]),
            "us": us,
            "gap_us": round(float(np.median(gaps)), 2),
            "late": round(float(np.mean(late)), 2),
        }
    return told


if __name__ == "__main__":
    sys.exit(main())
