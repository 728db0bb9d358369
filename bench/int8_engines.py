"""`python -m bench.int8_engines`: does INT8 pay in time? ONNX with Q/DQ beside the same without, as TensorRT engines.

Runs under the Python of a TensorRT before 10 (3.10 for 8.6), whose builder takes INT8 by flag. `--onnx` names files
(`bench.quantization` makes such with Q/DQ), `--block WIDTH TOKENS COUNT` makes linear layers of so many blocks in both
forms. Times are of CUDA graph replays with inputs that stay on the GPU, the median of each of several turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.engine_replay import SETS, EngineReplay
from bench.machine import machine
from runtime import cuda
from runtime.errors import InputError, ToolchainError
from runtime.files import write_text
from runtime.flavors import TENSORRT, load_flavor
from runtime.loaded_engine import LoadedEngine, make_log

_TURNS, _REPLAYS = 5, 100
_QUANTIZED = "QuantizeLinear"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, time in turns, write one JSON file. A graph that TensorRT does not build is entered with its reason."""
    parser = argparse.ArgumentParser(prog="python -m bench.int8_engines", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--onnx", type=Path, nargs="+", default=[], help="files of a fixed batch")
    parser.add_argument(
        "--block", type=int, nargs=3, action="append", default=[], metavar=("WIDTH", "TOKENS", "COUNT"),
        help="linear layers of so many blocks, with Q/DQ and without",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="results, JSON")
    args = parser.parse_args(arguments)
    try:
        trt = load_flavor(TENSORRT)
        if int(str(trt.__version__).split(".")[0]) >= 10:
            raise InputError(f"TensorRT {trt.__version__} is strongly typed: `cat2dog build` builds Q/DQ graphs there")
        with tempfile.TemporaryDirectory(prefix="cat2dog-int8-") as folder:
            graphs = [*((path.stem, path) for path in args.onnx), *_blocks(args.block, Path(folder))]
            rows = measure(trt, graphs, Path(folder))
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    method = f"CUDA graph replay, {SETS} random input sets in turn, {_REPLAYS} replays a turn, {_TURNS} turns each"
    result = {"machine": machine(("tensorrt", "onnx", "numpy")), "method": method, "graphs": rows}
    write_text(args.output, json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(f"{row['graph']} {row['precision']}: {row.get('ms', row.get('reason'))}", flush=True)
    return 0 if any("ms" in row for row in rows) else ToolchainError.exit_code


def measure(trt: Any, graphs: Sequence[tuple[str, Path]], folder: Path) -> list[dict[str, Any]]:
    """A row for every graph that has Q/DQ, as INT8 with FP16, and for every other, as FP16."""
    if not graphs:
        raise InputError("give --onnx or --block: there is nothing to time")
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        cuda.set_device(0)
        replays = {}
        for name, path in graphs:
            quantized, file = _for_parser(path, folder)
            row: dict[str, Any] = {"graph": name, "precision": "int8 and fp16" if quantized else "fp16"}
            rows.append(row)
            print(f"{name}: building", file=sys.stderr, flush=True)
            began = time.perf_counter()
            try:
                plan = _plan(trt, file, quantized)
            except ToolchainError as reason:
                row["reason"] = str(reason)
                continue
            row.update(build_seconds=round(time.perf_counter() - began, 1), bytes=memoryview(plan).nbytes)
            engine = LoadedEngine(trt, make_log(trt), memoryview(plan), path, None)
            stack.callback(engine.close)
            replay = stack.enter_context(EngineReplay(engine, 1))
            replay.warm_up()
            replays[len(rows) - 1] = replay
        turns: dict[int, list[float]] = {index: [] for index in replays}
        for _ in range(_TURNS):
            for index, replay in replays.items():
                turns[index].append(statistics.median(replay.times(_REPLAYS)))
        for index, replay in replays.items():
            rows[index]["ms"] = round(statistics.median(turns[index]), 4)
            rows[index]["spread"] = round(max(turns[index]) - min(turns[index]), 4)
            kinds = [str(layer["type"]) for layer in replay.layers(trt)]
            rows[index]["layers"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return rows


def _blocks(asked: Sequence[Sequence[int]], folder: Path) -> list[tuple[str, Path]]:
    import onnx

    from bench.qdq_block import block_model

    graphs = []
    for width, tokens, count in asked:
        if not (1 <= width <= 8192 and 1 <= tokens <= 65536 and 1 <= count <= 64):
            raise InputError(f"--block {width} {tokens} {count}: expected up to 8192, 65536 and 64")
        for quantized in (False, True):
            name = f"block_{width}x{tokens}x{count}_{'int8' if quantized else 'fp16'}"
            path = folder / f"{name}.onnx"
            model = block_model(width, tokens, count, quantized)
            onnx.save(model, path, save_as_external_data=True, location=f"{name}.data")
            graphs.append((name, path))
    return graphs


def _for_parser(path: Path, folder: Path) -> tuple[bool, Path]:
    """Whether the graph has Q/DQ, and a file of an opset that the parser knows."""
    import onnx

    from bench.opset17 import OPSET, write_opset17

    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; expected an ONNX file")
    model = onnx.load(path, load_external_data=False)
    quantized = any(node.op_type == _QUANTIZED for node in model.graph.node)
    if all(each.domain or each.version <= OPSET for each in model.opset_import):
        return quantized, path
    lowered = folder / f"opset{OPSET}_{path.name}"
    write_opset17(onnx.load(path), lowered)
    return quantized, lowered


def _plan(trt: Any, path: Path, quantized: bool) -> Any:
    log = make_log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path.resolve())):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ToolchainError(f"TensorRT cannot read {path.name}: {' '.join('; '.join(errors[:3]).split())[:400]}")
    config = builder.create_builder_config()
    # cuBLAS and cuDNN are not in the wheel, as in engines/configure.py.
    sources = (trt.TacticSource.JIT_CONVOLUTIONS, trt.TacticSource.EDGE_MASK_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_flag(trt.BuilderFlag.FP16)
    if quantized:
        config.set_flag(trt.BuilderFlag.INT8)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ToolchainError(f"TensorRT {trt.__version__} built no engine of {path.name}{log.last()}")
    return plan


if __name__ == "__main__":
    sys.exit(main())
