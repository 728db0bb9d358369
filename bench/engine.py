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
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine
from runtime import cuda, plugins
from runtime.engine_file import engine_manifest, open_engine
from runtime.errors import ToolchainError
from runtime.files import write_text
from runtime.flavors import Flavor, load_flavor
from runtime.gpu import find_gpus, no_gpu_reason
from runtime.manifest import Manifest
from runtime.runner import TensorSpec

_DTYPES = {"UINT8": "uint8", "HALF": "float16", "FLOAT": "float32", "INT32": "int32", "INT64": "int64", "INT8": "int8"}
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
    if not find_gpus():
        print(f"error: no GPU to measure on: {no_gpu_reason()}", file=sys.stderr)
        return 1
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
    gpu = find_gpus()[0]
    key = engine_manifest(path).key
    trt = load_flavor(key.flavor)
    flavor = Flavor(key.flavor, str(trt.__version__), sys.executable, can_build=True, can_run=True)
    logger = trt.Logger(trt.Logger.ERROR)
    trt.init_libnvinfer_plugins(logger, "")
    with open_engine(path, flavor, gpu) as (manifest, plan):
        if plugins.needs_plugin(manifest):
            plugins.load_plugin(plugins.find_plugin(key.flavor_version))
        cuda.set_device(gpu.index)
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ToolchainError(f"TensorRT cannot load {path}")
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(cuda.Stream())
        context = engine.create_execution_context()
        sets = [_bind(trt, engine, batch or key.batch[2], turn, stack, stream) for turn in range(_SETS)]
        run = _runner(trt, context, stream)
        for tensors in sets:
            run(tensors)
        stream.synchronize()
        times = _replays(sets, run, stream, stack, repeats)
        layers = _layers(trt, engine, context, sets[0], run, stream) if profile else None
    return {
        "engine": path.name,
        "batch": batch or key.batch[2],
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


def _bind(
    trt: Any, engine: Any, batch: int, turn: int, stack: contextlib.ExitStack, stream: cuda.Stream
) -> dict[str, Any]:
    rng = np.random.default_rng(turn)
    tensors = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(batch if size == -1 else int(size) for size in engine.get_tensor_shape(name))
        spec = TensorSpec(name, _DTYPES[engine.get_tensor_dtype(name).name], shape)
        size = int(np.prod(shape)) * spec.numpy_dtype.itemsize
        buffer = stack.enter_context(cuda.DeviceBuffer(size))
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if is_input:
            with cuda.PinnedBuffer(size) as pinned:
                drawn = rng.integers(0, 255, shape) if spec.dtype == "uint8" else rng.standard_normal(shape)
                pinned.view(spec.numpy_dtype, shape)[...] = drawn
                cuda.copy_to_device(buffer, pinned, size, stream)
                stream.synchronize()
        tensors[name] = (buffer.address, shape if is_input else None)
    return tensors


def _runner(trt: Any, context: Any, stream: cuda.Stream) -> Any:
    def run(tensors: dict[str, Any]) -> None:
        for name, (address, shape) in tensors.items():
            if shape is not None:
                context.set_input_shape(name, shape)
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(stream.address):
            raise ToolchainError("TensorRT could not run the engine")

    return run


def _replays(
    sets: list[dict[str, Any]], run: Any, stream: cuda.Stream, stack: contextlib.ExitStack, repeats: int
) -> list[float]:
    """Milliseconds of one inference, each of a replay."""
    graphs = [stack.enter_context(cuda.Graph(stream, lambda tensors=tensors: run(tensors))) for tensors in sets]
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


def _layers(trt: Any, engine: Any, context: Any, tensors: dict[str, Any], run: Any, stream: cuda.Stream) -> list[Any]:
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
        run(tensors)
        stream.synchronize()
    inspector = engine.create_engine_inspector()
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
