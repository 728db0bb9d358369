"""Times launch plans on the GPU at hand over sets of inputs, in CUDA graphs, and brings their answers home."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import ml_dtypes
import numpy as np

from engines.kernels.driver import LoadedPlan, Prepared, bytes_of
from engines.kernels.launch import LaunchPlan
from engines.kernels.sizes import evaluate
from runtime import cuda

NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
_GRAPH_MS = 1.0
_Self = TypeVar("_Self", bound="Feeds")


class Feeds:
    """`sets` sets of a node's inputs on the GPU that launches take in turn, so that none finds its own in a near cache.

    All plans that are timed have the inputs of `feed`, whose sizes bind `names`; outputs may differ. The sets differ by
    a roll of the last axis. The inputs numbered `warm` are the same in all: what an engine has just written when a
    launch reads it. Close it, or use it in a `with` block.
    """

    def __init__(self, feed: Sequence[np.ndarray], names: Mapping[str, int], sets: int, warm: Collection[int] = ()):
        self.feed, self.names = list(feed), names
        self._stack = contextlib.ExitStack()
        try:
            self.stream = self._stack.enter_context(cuda.Stream())
            same = {index: self._upload(self.feed[index], 0) for index in warm}
            self._inputs = [
                [same[index] if index in same else self._upload(array, turn) for index, array in enumerate(self.feed)]
                for turn in range(sets)
            ]
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Free the GPU's memory."""
        self._stack.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def milliseconds(self, plan: LaunchPlan, repeats: int = 20) -> tuple[float, float, float]:
        """Of one launch: median, least and most of `repeats` replays of a graph that holds about 1 ms of launches."""
        with contextlib.ExitStack() as stack:
            loaded, outputs, workspace = self._loaded(plan, stack)
            addresses = [buffer.address for buffer in outputs]
            prepared = [
                loaded.prepare([b.address for b in inputs], addresses, workspace.address, self.names)
                for inputs in self._inputs
            ]
            return replayed(self.stream, prepared, repeats)

    def answers(self, plan: LaunchPlan) -> list[np.ndarray]:
        """What the plan gives for `feed`, one array an output; an element it did not write is NaN."""
        with contextlib.ExitStack() as stack:
            loaded, outputs, workspace = self._loaded(plan, stack)
            arrays = []
            for tensor, buffer in zip(plan.outputs, outputs, strict=True):
                shape = [evaluate(size, self.names) for size in tensor.shape]
                arrays.append(np.full(shape, np.nan, NUMPY[tensor.dtype]))
                cuda.upload(buffer, arrays[-1], self.stream)
            inputs = [buffer.address for buffer in self._inputs[0]]
            addresses = [buffer.address for buffer in outputs]
            loaded.prepare(inputs, addresses, workspace.address, self.names).launch(self.stream.address)
            got = []
            for array, buffer in zip(arrays, outputs, strict=True):
                with cuda.PinnedBuffer(array.nbytes) as pinned:
                    cuda.copy_to_host(pinned, buffer, array.nbytes, self.stream)
                    self.stream.synchronize()
                    got.append(pinned.view(array.dtype, array.shape).copy())
            return got

    def _loaded(
        self, plan: LaunchPlan, stack: contextlib.ExitStack
    ) -> tuple[LoadedPlan, list[cuda.DeviceBuffer], cuda.DeviceBuffer]:
        loaded = stack.enter_context(LoadedPlan(plan))
        sizes = [
            bytes_of(tensor.dtype, [evaluate(size, self.names) for size in tensor.shape]) for tensor in plan.outputs
        ]
        outputs = [stack.enter_context(cuda.DeviceBuffer(size)) for size in sizes]
        workspace = stack.enter_context(cuda.DeviceBuffer(loaded.workspace_bytes(self.names)))
        # Work in flight must not outlive what it reads and writes.
        stack.callback(self.stream.synchronize)
        return loaded, outputs, workspace

    def _upload(self, array: np.ndarray, turn: int) -> cuda.DeviceBuffer:
        buffer = self._stack.enter_context(cuda.DeviceBuffer(array.nbytes))
        cuda.upload(buffer, np.roll(array, turn, axis=-1), self.stream)
        return buffer


def replayed(stream: cuda.Stream, prepared: Sequence[Prepared], repeats: int) -> tuple[float, float, float]:
    """Milliseconds of one of `prepared`, which take turns in a graph: median, least and most of its replays."""
    sets = len(prepared)
    first, second = cuda.Event(), cuda.Event()
    with first, second:

        def run(count: int) -> Callable[[], None]:
            def launches() -> None:
                for turn in range(count):
                    prepared[turn % sets].launch(stream.address)

            return launches

        def timed(graph: cuda.Graph) -> float:
            return graph.milliseconds(stream, first, second)

        run(sets)()
        stream.synchronize()
        with cuda.Graph(stream, run(sets * 2)) as graph:
            timed(graph)
            one = min(timed(graph) for _ in range(3)) / (sets * 2)
        count = max(sets, min(600, int(_GRAPH_MS / max(one, 1e-4)))) // sets * sets
        with cuda.Graph(stream, run(count)) as graph:
            for _ in range(3):
                timed(graph)
            times = [timed(graph) / count for _ in range(repeats)]
    return statistics.median(times), min(times), max(times)
