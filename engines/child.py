"""The process that builds one plan, under the flavor's own Python: `python -m engines.child` with a request on stdin.

It knows files and TensorRT only: no onnx, no torch. A crash of the builder ends this process and nothing else.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engines import timing_cache
from engines.answer import serve
from engines.configure import configure, create_network, precision_holds
from runtime.errors import ToolchainError
from runtime.files import write_bytes
from runtime.flavors import load_flavor
from runtime.plugins import load_plugin

# Ends of "has no implementation ..." and "built ...", by how layers are held to precisions (`precision_holds`).
_HELD = {
    "graph": "in the precisions of the graph",
    "free": "in precisions of its own choice, islands of the policy or not",
    "fp32": "with every layer in FP32, which is slower",
}


def build_plan(request: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    """Parse the lowered ONNX, build, and write the plan to `request["plan"]`; returns what the manifest needs."""
    trt = load_flavor(request["flavor"])
    log = make_build_log(trt, request["verbose"])
    # After TensorRT, in whose registry they enter their plugins; before the parser asks for them.
    for plugin in request.get("plugins", []):
        load_plugin(plugin)
    began = time.perf_counter()
    made = built(trt, request, log, progress)
    _write(request["plan"], made.plan)
    write_timing_cache(request, made.config)
    return {
        "seconds": round(time.perf_counter() - began, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "tensors": _tensors(trt, made.network),
        "versions": {request["flavor"]: str(trt.__version__), "python": sys.version.split()[0]},
        "warnings": log.warnings[:20],
        "notes": made.notes,
    }


class Made(NamedTuple):
    """A plan in memory, what it was made with, and what could not be done as asked."""

    plan: Any
    builder: Any
    network: Any
    parser: Any  # owns weights that the network points to
    config: Any
    notes: list[str]


def built(trt: Any, request: Mapping[str, Any], log: Any, progress: Any) -> Made:
    """The plan of `request["onnx"]`, with layers held to precisions as strictly as TensorRT can.

    Raises ToolchainError where TensorRT builds none. Nodes that `request["dispensable"]` names take one type each:
    where TensorRT refuses one, no other precision is tried, and the error names it.
    """
    notes: list[str] = []
    holds = precision_holds(trt, request)
    for hold in holds:
        builder, network, parser, config = _prepared(trt, request, log, progress, hold)
        progress(phase="building" if hold == holds[0] else f"building, layers held to {hold}", step=0, steps=0)
        plan = builder.build_serialized_network(network, config)
        if plan is not None:
            break
        refused = [text for text in log.errors if any(name in text for name in request.get("dispensable", ()))]
        if refused or hold == holds[-1]:
            said = refused[0][:500] if refused else log.explanation()
            raise ToolchainError(f"TensorRT {trt.__version__} built no engine: {said}")
        notes.append(f"TensorRT {trt.__version__} has no implementation {_HELD[hold]} ({log.explanation()[:200]})")
        log.errors.clear()
    if notes:
        notes.append(f"built {_HELD[hold]}")
    return Made(plan, builder, network, parser, config, notes)


def write_timing_cache(request: Mapping[str, Any], config: Any) -> None:
    """Keep what TensorRT measured, where the request names a file for it."""
    if request["timing_cache"]:
        _write(request["timing_cache"], config.get_timing_cache().serialize(), timing_cache.write_timing_cache)


def _prepared(trt: Any, request: Mapping[str, Any], log: Any, progress: Any, hold: str) -> tuple[Any, ...]:
    """Builder, parsed network, its parser, and configuration."""
    progress(phase="parsing", step=0, steps=0)
    builder = trt.Builder(log)
    network = create_network(trt, builder)
    parser = trt.OnnxParser(network, log)
    # From the path: given bytes, the parser would not find the external data.
    if not parser.parse_from_file(request["onnx"]):
        raise ToolchainError(f"TensorRT cannot read {request['onnx']}: {_parser_errors(parser, log)}")
    return builder, network, parser, configure(trt, builder, network, request, _monitor(trt, progress), hold)


def _write(path: str, memory: Any, write: Callable[[str, memoryview], None] = write_bytes) -> None:
    try:
        write(path, memoryview(memory))
    except OSError as error:
        # The file is a temporary one; its folder is what the user knows.
        raise ToolchainError(f"cannot write into {Path(path).parent}: {error.strerror or error}") from error


def _tensors(trt: Any, network: Any) -> list[dict[str, Any]]:
    tensors = []
    for mode, count, get in (
        ("input", network.num_inputs, network.get_input),
        ("output", network.num_outputs, network.get_output),
    ):
        for index in range(count):
            tensor = get(index)
            shape = [int(size) for size in tensor.shape]
            tensors.append({"name": tensor.name, "mode": mode, "dtype": _dtype(trt, tensor.dtype), "shape": shape})
    return tensors


def _dtype(trt: Any, dtype: Any) -> str:
    names = {
        "HALF": "float16",
        "FLOAT": "float32",
        "BF16": "bfloat16",
        "UINT8": "uint8",
        "INT8": "int8",
        "BOOL": "bool",
    }
    name = str(dtype).rsplit(".", 1)[-1]
    return names.get(name, name.lower())


def _parser_errors(parser: Any, log: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [f"node {error.node()} ({error.desc().strip().splitlines()[0]})" for error in errors if error.desc()]
    return "; ".join(lines[:3]) or log.explanation()


def make_build_log(trt: Any, verbose: bool) -> Any:
    """A logger that keeps errors and warnings, and prints errors, or all with `verbose`."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            text = " ".join(message.split())
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(text)
            elif severity == trt.ILogger.Severity.WARNING:
                self.warnings.append(text)
            if verbose or severity <= trt.ILogger.Severity.ERROR:
                print(f"[{str(severity).rsplit('.', 1)[-1].lower()}] {text}", file=sys.stderr, flush=True)

        def last(self) -> str:
            """ ": the last error", or nothing, as `runtime.loaded_engine` asks for it."""
            return f": {self.errors[-1][:400]}" if self.errors else ""

        def explanation(self) -> str:
            return (self.errors[0] if self.errors else "it gave no reason; --verbose shows its log")[:500]

    return Log()


def _monitor(trt: Any, progress: Any) -> Any:
    """TensorRT's phases as progress; None before 9.0, which has no monitor."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase=phase_name, step=0, steps=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase=phase_name, step=step + 1, steps=self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


if __name__ == "__main__":
    serve(build_plan)
