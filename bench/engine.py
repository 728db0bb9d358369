"""`python -m bench.engine`: latency of one engine's network, and where its time goes, layer by layer.

Runs under the Python of the engine's TensorRT (3.10 for 8.6) and needs no torch. Input and output stay on the GPU; the
latency is that of a replayed CUDA graph. The layers' times come from TensorRT's profiler, without a graph: they carry
its own cost, so their shares say more than their sum.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.clocks import Clocks
from bench.engine_replay import SETS, EngineReplay
from bench.machine import machine
from bench.timing import summary
from runtime.errors import ToolchainError
from runtime.files import write_text
from runtime.flavors import load_flavor
from runtime.manifest import Manifest
from runtime.tensorrt_runner import load_engine


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each engine and write one JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--engine", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    parser.add_argument("--repeats", type=int, default=200, help="graph replays (default: 200)")
    parser.add_argument("--batch", type=int, help="batch size (default: the engine's largest)")
    parser.add_argument("--profile", action="store_true", help="also time each layer")
    args = parser.parse_args(arguments)
    rows = []
    for path in args.engine:
        try:
            rows.append(measure(path, args.repeats, args.batch, args.profile))
        except ToolchainError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        write_text(
            args.output, json.dumps({"machine": machine(("tensorrt", "numpy")), "engines": rows}, indent=1) + "\n"
        )
        row = rows[-1]
        print(
            f"{path.name}: {row['ms']['median']:.3f} ms, gate {row['gate']['state']} {row['gate']['scores']}",
            flush=True,
        )
    return 0


def measure(path: Path, repeats: int, batch: int | None, profile: bool) -> dict[str, Any]:
    """Latency of one engine, and what its manifest says of it."""
    manifest, engine = load_engine(path)
    size = batch or manifest.key.batch[2]
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close)
        replay = stack.enter_context(EngineReplay(engine, size))
        replay.warm_up()
        with Clocks() as clocks:
            times = replay.times(repeats)
        layers = replay.layers(load_flavor(manifest.key.flavor)) if profile else None
    return {
        "engine": path.name,
        "batch": size,
        "ms": summary(times),
        "method": f"CUDA graph replay, {SETS} random input sets in turn, {repeats} replays, I/O on the GPU",
        "gpu_clock": clocks.said,
        **_said(manifest),
        **({"layers": layers} if layers is not None else {}),
    }


def _said(manifest: Manifest) -> dict[str, Any]:
    key, gate, build = manifest.key, manifest.gate, manifest.build
    return {
        "checkpoint": key.checkpoint,
        "precision": key.precision,
        "attention": key.attention,
        "nodes": [{"form": choice.form, "why": choice.why} for choice in manifest.attention[:1]],
        "flavor": f"{key.flavor} {key.flavor_version}",
        "gate": {"state": gate.state, "metric": gate.metric, "scores": [str(round(s, 2)) for s in gate.scores]},
        "against": gate.against,
        "bytes": manifest.size,
        "build_seconds": build.seconds,
        "options": dict(key.options),
        "notes": list(build.notes),
    }


if __name__ == "__main__":
    sys.exit(main())
