"""`python -m bench.growth`: what engines of one checkpoint take at each batch size, in time and in memory of the GPU.

One small result file a checkpoint, from which the report draws how the cost grows with batch, resolution and size. Runs
under the Python of the engines' TensorRT (3.10 for 8.6) and needs no torch. Input and output stay on the GPU, the
latency is that of a replayed CUDA graph. Memory is what a runner with one lane takes from a bare process: plan,
activations, buffers of the engine's largest batch, and the graph.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_replay import SETS, EngineReplay
from bench.machine import machine, versions
from bench.peers.tensorrt_peer import engine_facts
from bench.results import peers_result
from bench.schema import write_result
from bench.subject import described, has_fused_layers
from bench.timing import timing
from cat2dog.config import Config, load_config
from cat2dog.folder import find
from runtime import cuda
from runtime.engine_file import engine_manifest
from runtime.errors import InputError, ToolchainError
from runtime.lane import Lane
from runtime.manifest import Manifest
from runtime.tensorrt_runner import load_engine

_ROUNDS = 5
_PACKAGES = ("tensorrt", "tensorrt-rtx-cu13-bindings", "numpy", "cuda-bindings")
_Found = list[tuple[Path, Manifest]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, and print a line for each batch size."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth",
        description=(__doc__ or "").split("\n\n")[0].partition(": ")[2],
        epilog="example: python -m bench.growth --engine build/engines/*/500m-256_fp16_*.engine "
        "--output bench/results/growth/500m-256_h200.json",
    )
    parser.add_argument("--engine", type=Path, nargs="+", required=True, help="of one checkpoint and precision")
    parser.add_argument("--model", type=Path, help="its folder (default: models/{checkpoint})")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8], help="batch sizes (default: 1 2 4 8)")
    parser.add_argument("--repeats", type=int, default=200, help="graph replays of each (default: 200)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    words = sys.argv[1:] if arguments is None else list(arguments)
    args = parser.parse_args(words)
    try:
        if args.repeats < _ROUNDS or not all(1 <= batch <= 1 << 16 for batch in args.batch):
            raise InputError(f"expected batch sizes of 1 and more, and at least {_ROUNDS} repeats")
        found = [(path, engine_manifest(path)) for path in args.engine]
        key = found[0][1].key
        if other := next((each for _, each in found if _what(each) != _what(found[0][1])), None):
            raise InputError(
                f"engines of {' '.join(_what(found[0][1]))} and {' '.join(_what(other))} were given: one at a time"
            )
        config = load_config(find(args.model or Path("models") / key.checkpoint))
        about = machine(_PACKAGES, shlex.join(["python", "-m", "bench.growth", *words]))
        images = max(1, min(len(manifest.gate.scores) for _, manifest in found))
        subject = described(key.checkpoint, config, key.precision, images)
        rows = [_row(name, members, config, args) for name, members in _by_name(found).items()]
        method = f"CUDA graph replay, {SETS} random input sets in turn, {args.repeats} replays in {_ROUNDS} rounds"
        write_result(args.output, peers_result("growth", about, subject, method, rows, [], complete=True))
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _what(manifest: Manifest) -> tuple[str, str]:
    return manifest.key.checkpoint, manifest.key.precision


def peer_name(manifest: Manifest) -> str:
    """As the bench's line-up calls engines of this kind: "tensorrt-plugin-linear"."""
    key = manifest.key
    linear = "-linear" if has_fused_layers(manifest) else ""
    return f"{key.flavor}-{key.attention}{linear}"


def _by_name(found: _Found) -> dict[str, _Found]:
    groups: dict[str, _Found] = {}
    for path, manifest in found:
        groups.setdefault(peer_name(manifest), []).append((path, manifest))
    return groups


def _row(name: str, members: _Found, config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """A peer of the schema: each batch size by the engine whose profile is the narrowest that has it."""
    from cat2dog.flops import flops

    key = members[0][1].key
    row: dict[str, Any] = {
        "name": name, "about": f"{key.flavor} {key.flavor_version}, {key.attention} attention", "device": "gpu",
        "precision": key.precision, "status": "measured", "latency": [], "device_bytes_at": {},
        "versions": versions(_PACKAGES), "engine": engine_facts(members[0][1]),
    }  # fmt: skip
    for batch in sorted(set(args.batch)):
        fitting = [each for each in members if each[1].key.batch[0] <= batch <= each[1].key.batch[2]]
        if not fitting:
            print(f"{name}, batch {batch}: no engine given takes it", file=sys.stderr)
            continue
        path, _ = min(fitting, key=lambda each: each[1].key.batch[2] - each[1].key.batch[0])
        ms, taken = measure(path, batch, args.repeats)
        row["latency"].append(
            {
                "batch": batch,
                "level": "network",
                "ms": ms,
                "images_per_second": float(f"{1000 * batch / ms['median']:.5g}"),
                "tflops": float(f"{flops(config).total * batch / ms['median'] / 1e9:.4g}"),
            }
        )
        row["device_bytes_at"][str(batch)] = taken
        print(f"{name}, batch {batch}: {ms['median']:.3f} ms, {taken / 1e6:.0f} MB", flush=True)
    if not row["latency"]:
        raise InputError(f"no engine of {name} takes any of the batch sizes {', '.join(map(str, args.batch))}")
    row["device_bytes"] = row["device_bytes_at"][str(row["latency"][0]["batch"])]
    return row


def measure(path: Path, batch: int, repeats: int) -> tuple[dict[str, Any], int]:
    """Timing of the network at this batch size, and bytes of the GPU's memory that a runner of one lane takes."""
    cuda.set_device(0)
    before = cuda.memory_taken()
    _, engine = load_engine(path)
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        shapes = tuple((batch, *spec.shape[1:]) for spec in engine.inputs)
        with contextlib.closing(Lane(engine, threading.Lock(), cuda_graph=True, blocking=False)) as lane:
            replay = lane.prepare(shapes)
            given = [np.zeros(shape, spec.numpy_dtype) for spec, shape in zip(engine.inputs, shapes, strict=True)]
            for _ in range(2):  # the second one captures the graph
                replay.start(given)
                lane.wait()
            taken = max(0, cuda.memory_taken() - before)
        timed = stack.enter_context(EngineReplay(engine, batch))
        timed.warm_up()
        return timing([timed.times(repeats // _ROUNDS) for _ in range(_ROUNDS)]), taken


if __name__ == "__main__":
    sys.exit(main())
