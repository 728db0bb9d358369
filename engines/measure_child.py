"""Times candidates of linear layers, under the flavor's own Python: `python -m engines.measure_child`.

Each unit comes as several ONNX files, one a candidate. Each is built with the options of the engine that it is measured
for, and its plan loaded several times, so that weights lie in memory of their own and are cold when their turn comes,
as they are in a network. One CUDA graph runs the copies one after the other; graphs of all candidates are replayed in
turns, with the same inputs, and the median of each counts.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.answer import serve
from engines.child import built, make_build_log, write_timing_cache
from runtime import cuda
from runtime.errors import GpuLost, ToolchainError
from runtime.flavors import load_flavor
from runtime.loaded_engine import LoadedEngine
from runtime.plugins import load_plugin
from runtime.runner import DYNAMIC, TensorSpec, element_count

_MOST_COPIES = 24
_GRAPH_MS = 1.0
_MOST_PASSES = 64
_WARM_UP, _ROUNDS = 5, 41


def measure(request: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    """`units`: for each unit of the request, for each candidate, `milliseconds` of one run, or the `error` instead.

    `held` says how it was built where TensorRT could not build it in the precisions of the graph.

    Raises GpuLost where a candidate breaks the GPU for this process.
    """
    trt = load_flavor(request["flavor"])
    log = make_build_log(trt, request["verbose"])
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    for plugin in request["plugins"]:
        load_plugin(plugin)
    cuda.use_device(0)
    count, done = sum(len(unit["candidates"]) for unit in request["units"]), 0
    answers: list[list[dict[str, Any]]] = []
    held: list[Any] = []
    for unit in request["units"]:
        made: list[Any] = []
        results: list[dict[str, Any]] = [{} for _ in unit["candidates"]]
        for candidate, result in zip(unit["candidates"], results, strict=True):
            progress(phase="measuring linear layers", step=done, steps=count)
            done += 1
            try:
                made.append(_made(trt, {**request, **candidate}, log))
                if made[-1].notes:
                    result["held"] = made[-1].notes[-1]
            except GpuLost:
                raise
            except ToolchainError as error:
                made.append(None)
                result["error"] = str(error)
        plans = [each.plan if each is not None else None for each in made]
        answers.append(_timed_unit(trt, log, request, plans, results))
        held = made  # until others are there: with the last builder TensorRT lets go of what takes it seconds to load
    del held
    return {"units": answers, "version": str(trt.__version__)}


def _made(trt: Any, request: Mapping[str, Any], log: Any) -> Any:
    log.errors.clear()
    made = built(trt, request, log, lambda **event: None)
    write_timing_cache(request, made.config)
    return made


def _timed_unit(
    trt: Any, log: Any, request: Mapping[str, Any], plans: Sequence[Any], results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The results with times in them."""
    sizes = [memoryview(plan).nbytes for plan in plans if plan is not None]
    if not sizes:
        return results
    # As many for each candidate: what differs is the code.
    copies = max(2, min(_MOST_COPIES, math.ceil(request["cold_bytes"] / max(sizes))))
    batch = request["profile"]["batch"][1]
    with contextlib.ExitStack() as stack:
        data = _Data(stack)
        timers: list[tuple[dict[str, Any], Callable[[], float]]] = []
        for plan, result in zip(plans, results, strict=True):
            if plan is None:
                continue
            try:
                timers.append((result, _timer(trt, log, plan, copies, batch, data, stack)))
            except GpuLost:
                raise
            except ToolchainError as error:
                result["error"] = str(error)
        for result, milliseconds in zip(
            (result for result, _ in timers), in_turns([t for _, t in timers]), strict=True
        ):
            result["milliseconds"] = milliseconds
    return results


def in_turns(timers: Sequence[Callable[[], float]]) -> list[float]:
    """The median of each timer's times, taken in turns (A B A B), after some that do not count."""
    times: list[list[float]] = [[] for _ in timers]
    for turn in range(_WARM_UP + _ROUNDS):
        for taken, timer in zip(times, timers, strict=True):
            milliseconds = timer()
            if turn >= _WARM_UP:
                taken.append(milliseconds)
    return [statistics.median(each) for each in times]


class _Data:
    """The stream, and tensors on the GPU by their names, the same for every candidate."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack
        self.stream = stack.enter_context(cuda.Stream())
        self.events = (stack.enter_context(cuda.Event()), stack.enter_context(cuda.Event()))
        # Buffers are freed in the end, when nothing may be running on them.
        self._buffers: dict[tuple[str, int], cuda.DeviceBuffer] = {}
        stack.callback(self._settle)

    def buffer(self, spec: TensorSpec, shape: tuple[int, ...], filled: bool) -> cuda.DeviceBuffer:
        size = element_count(shape) * spec.numpy_dtype.itemsize
        found = self._buffers.get((spec.name, size))
        if found is None:
            found = self._buffers[spec.name, size] = self._stack.enter_context(cuda.DeviceBuffer(size))
            if filled:
                numbers = np.random.default_rng(0).standard_normal(shape, np.float32)
                cuda.upload(found, numbers.astype(spec.numpy_dtype), self.stream)
            self._stack.callback(self._settle)
        return found

    def _settle(self) -> None:
        with contextlib.suppress(GpuLost):  # which the error that is on its way says
            self.stream.synchronize()


def _timer(
    trt: Any, log: Any, plan: Any, copies: int, batch: int, data: _Data, stack: contextlib.ExitStack
) -> Callable[[], float]:
    """Milliseconds of one run of the plan, by a replay of a graph that runs its copies often enough to be timed."""
    engines = []
    for _ in range(copies):
        engines.append(LoadedEngine(trt, log, memoryview(plan), Path("a candidate"), None))
        stack.callback(engines[-1].close)
    memory = stack.enter_context(cuda.DeviceBuffer(max(engine.activation_bytes for engine in engines)))
    contexts = [_context(engine, memory, batch, data) for engine in engines]
    stack.callback(contexts.clear)

    def run(passes: int) -> Callable[[], None]:
        def work() -> None:
            for context in contexts * passes:
                if not context.execute_async_v3(data.stream.address):
                    raise ToolchainError(f"TensorRT could not run the candidate{log.last()}")

        return work

    def replay(graph: cuda.Graph) -> float:
        return graph.milliseconds(data.stream, *data.events)

    run(1)()  # TensorRT does some things the first time only, which a graph must not hold
    data.stream.synchronize()
    with cuda.Graph(data.stream, run(1)) as graph:
        once = min(replay(graph) for _ in range(4))
    passes = max(1, min(_MOST_PASSES, round(_GRAPH_MS / max(once, 1e-3))))
    graph = stack.enter_context(cuda.Graph(data.stream, run(passes)))
    return lambda: replay(graph) / (copies * passes)


def _context(engine: LoadedEngine, memory: cuda.DeviceBuffer, batch: int, data: _Data) -> Any:
    """A context of the engine, bound to the data's buffers."""
    shapes = tuple(tuple(batch if size == DYNAMIC else size for size in spec.shape) for spec in engine.inputs)
    context = engine.context(memory, data.stream, shapes)
    for spec in (*engine.inputs, *engine.outputs):
        shape = tuple(context.get_tensor_shape(spec.name))
        buffer = data.buffer(spec, shape, filled=spec in engine.inputs)
        if not context.set_tensor_address(spec.name, buffer.address):
            raise ToolchainError(f"TensorRT refused the address of tensor '{spec.name}'")
    return context


if __name__ == "__main__":
    serve(measure)
