"""`python -m bench.engine`: latency of one engine's network, and where its time goes, layer by layer.

Runs under the Python of the engine's TensorRT (3.10 for 8.6) and needs no torch. Input and output stay on the GPU; the
latency is that of a replayed CUDA graph. The layers' times come from TensorRT's profiler, without a graph: they carry
its own cost, so their shares say more than their sum.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from runtime import cuda
from runtime.errors import ToolchainError
from runtime.files import write_text
from runtime.flavors import load_flavor
from runtime.loaded_engine import LoadedEngine
from runtime.manifest import Manifest
from runtime.runner import DYNAMIC, TensorSpec
from runtime.tensorrt_runner import load_engine

_SETS = 3


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
        stream = stack.enter_context(cuda.Stream())
        memory = stack.enter_context(cuda.DeviceBuffer(engine.activation_bytes))
        contexts = [_context(engine, memory, stream, size, turn, stack) for turn in range(_SETS)]
        for context in contexts:
            _run(context, stream)
        stream.synchronize()
        times = _replays(contexts, stream, stack, repeats)
        layers = _layers(load_flavor(manifest.key.flavor), contexts[0], stream) if profile else None
    return {
        "engine": path.name,
        "batch": size,
        "ms": {
            "median": round(statistics.median(times), 4),
            "least": round(min(times), 4),
            "p95": round(sorted(times)[int(len(times) * 0.95)], 4),
            "most": round(max(times), 4),
        },
        "method": f"CUDA graph replay, {_SETS} random input sets in turn, {repeats} replays, I/O on the GPU",
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


def _context(
    engine: LoadedEngine,
    memory: cuda.DeviceBuffer,
    stream: cuda.Stream,
    batch: int,
    turn: int,
    stack: contextlib.ExitStack,
) -> Any:
    """A context with random inputs of its own: one that a graph was captured from must not be changed any more."""
    rng = np.random.default_rng(turn)
    shapes = [tuple(batch if size == DYNAMIC else size for size in spec.shape) for spec in engine.inputs]
    context = engine.context(memory, stream, tuple(shapes))
    for spec in engine.inputs + engine.outputs:
        shape = tuple(context.get_tensor_shape(spec.name))
        size = int(np.prod(shape)) * spec.numpy_dtype.itemsize
        buffer = stack.enter_context(cuda.DeviceBuffer(size))
        if spec in engine.inputs:
            cuda.upload(buffer, _random(rng, spec, shape), stream)
        context.set_tensor_address(spec.name, buffer.address)
    return context


def _random(rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    drawn = rng.integers(0, 255, shape) if spec.dtype == "uint8" else rng.standard_normal(shape)
    return drawn.astype(spec.numpy_dtype)


def _run(context: Any, stream: cuda.Stream) -> None:
    if not context.execute_async_v3(stream.address):
        raise ToolchainError("TensorRT could not run the engine")


def _replays(contexts: list[Any], stream: cuda.Stream, stack: contextlib.ExitStack, repeats: int) -> list[float]:
    """Milliseconds of one inference, each of a replay."""
    graphs = [stack.enter_context(cuda.Graph(stream, partial(_run, context, stream))) for context in contexts]
    first, second = stack.enter_context(cuda.Event()), stack.enter_context(cuda.Event())
    times = []
    for turn in range(repeats + 20):
        first.record(stream)
        graphs[turn % len(graphs)].launch(stream)
        second.record(stream)
        second.synchronize()
        if turn >= 20:
            times.append(second.milliseconds_since(first))
    return times


def _layers(trt: Any, context: Any, stream: cuda.Stream) -> list[Any]:
    """Each layer's name, median microseconds, and what the inspector says of its type and tactic."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, name: str, ms: float) -> None:
            self.times.setdefault(name, []).append(ms)

    profiler = Profiler()
    context.profiler = profiler
    for _ in range(25):
        _run(context, stream)
        stream.synchronize()
    inspector = context.engine.create_engine_inspector()
    inspector.execution_context = context
    # 8.6 writes raw control characters into its JSON.
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON), strict=False)["Layers"]
    facts = {layer["Name"]: layer for layer in told if isinstance(layer, dict)}
    rows = []
    for name, each in profiler.times.items():
        layer = facts.get(name, {})
        row = {"name": name[:160], "us": round(1e3 * statistics.median(each[5:]), 2), "type": layer.get("LayerType")}
        tactic = layer.get("TacticName")
        rows.append({**row, **({"tactic": tactic} if tactic else {})})
    return rows


if __name__ == "__main__":
    sys.exit(main())
