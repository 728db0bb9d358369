"""One engine at one batch size, ready to be timed: CUDA graphs over inputs that stay on the GPU."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from runtime import cuda
from runtime.errors import ToolchainError
from runtime.loaded_engine import LoadedEngine
from runtime.runner import DYNAMIC, TensorSpec

SETS = 3
_WARM_UP = 20
_PROFILED, _PROFILE_WARM_UP = 25, 5


class EngineReplay:
    """Contexts and graphs over three sets of random inputs, replayed in turn. Closing it frees them, not the engine.

    With `cuda_graph` False the work is enqueued anew each time. Raises InputError for a batch size that the engine does
    not take, ToolchainError where it cannot run.
    """

    def __init__(self, engine: LoadedEngine, batch: int, cuda_graph: bool = True):
        with contextlib.ExitStack() as stack:
            self._stream = stack.enter_context(cuda.Stream())
            memory = stack.enter_context(cuda.DeviceBuffer(engine.activation_bytes))
            self._contexts = [_context(engine, memory, self._stream, batch, turn, stack) for turn in range(SETS)]
            for context in self._contexts:
                _run(context, self._stream)
            self._stream.synchronize()
            self._launches: list[Callable[[], None]] = [
                partial(_run, context, self._stream) for context in self._contexts
            ]
            if cuda_graph:
                graphs = [stack.enter_context(cuda.Graph(self._stream, work)) for work in self._launches]
                self._launches = [partial(graph.launch, self._stream) for graph in graphs]
            self._first, self._second = stack.enter_context(cuda.Event()), stack.enter_context(cuda.Event())
            self._resources = stack.pop_all()
        self._turn = 0

    def warm_up(self) -> None:
        """Some replays that are not timed."""
        self.times(_WARM_UP)

    def times(self, repeats: int) -> list[float]:
        """GPU milliseconds of one inference, each of a replay."""
        times = []
        for _ in range(repeats):
            self._first.record(self._stream)
            self._launches[self._turn % SETS]()
            self._second.record(self._stream)
            self._second.synchronize()
            times.append(self._second.milliseconds_since(self._first))
            self._turn += 1
        return times

    def layers(self, trt: Any) -> list[dict[str, Any]]:
        """Each layer's name, median microseconds, and what the inspector says of its type and tactic.

        Without a graph and with the profiler's own cost, so that shares say more than the sum.
        """

        class Profiler(trt.IProfiler):
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.times: dict[str, list[float]] = {}

            def report_layer_time(self, name: str, ms: float) -> None:
                self.times.setdefault(name, []).append(ms)

        profiler, context = Profiler(), self._contexts[0]
        context.profiler = profiler
        for _ in range(_PROFILED):
            _run(context, self._stream)
            self._stream.synchronize()
        inspector = context.engine.create_engine_inspector()
        inspector.execution_context = context
        # 8.6 writes raw control characters into its JSON.
        told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON), strict=False)["Layers"]
        facts = {layer["Name"]: layer for layer in told if isinstance(layer, dict)}
        rows = []
        for name, each in profiler.times.items():
            layer = facts.get(name, {})
            us = round(1e3 * statistics.median(each[_PROFILE_WARM_UP:]), 2)
            row = {"name": name[:160], "us": us, "type": layer.get("LayerType")}
            tactic = layer.get("TacticName")
            rows.append({**row, **({"tactic": tactic} if tactic else {})})
        return rows

    def close(self) -> None:
        """Free contexts, graphs and buffers, once."""
        self._resources.close()
        self._contexts, self._launches = [], []  # after the graphs, which were captured from them

    def __enter__(self) -> EngineReplay:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


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
