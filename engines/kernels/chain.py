"""Fused nodes one after the other on the GPU, as their launches alone: an engine's work without TensorRT.

Weights, tables and activations lie where the launches find them, activations in memory that is used again once nobody
reads it any more, as an engine does. What is neither a constant nor written by a node (pixels) is random.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.kernels.driver import LoadedPlan, Prepared, bind, bytes_of
from engines.kernels.launch import LaunchPlan
from engines.kernels.sizes import evaluate
from engines.kernels.timing import NUMPY
from runtime import cuda


@dataclass(frozen=True)
class ChainNode:
    """A fused node: what it launches, the names of what it reads and writes, and the kernel's variant in words."""

    name: str
    plan: LaunchPlan
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variant: str


@dataclass(frozen=True)
class Chain:
    """Fused nodes in their order, and the constants that they read by name."""

    nodes: tuple[ChainNode, ...]
    constants: Mapping[str, np.ndarray]

    @property
    def launches(self) -> int:
        """Kernels of one pass."""
        return sum(len(node.plan.launches) for node in self.nodes)


class ChainOnGpu:
    """A chain with its memory, ready to be captured. Close it, or use it in a `with` block.

    `constants` on the GPU, of another chain that stays open, are used where they have the names of this one's. Raises
    ValueError where a node's shapes do not fit its plan, ToolchainError where the GPU refuses.
    """

    def __init__(self, chain: Chain, batch: int, constants: ChainOnGpu | None = None):
        self.chain, self._batch = chain, batch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._at: dict[str, cuda.DeviceBuffer] = {}
        self._stack = contextlib.ExitStack()
        try:
            self.stream = self._stack.enter_context(cuda.Stream())
            for name, array in chain.constants.items():
                if constants is not None and name in constants.chain.constants:
                    self._shapes[name], self._at[name] = array.shape, constants._at[name]
                else:
                    self._upload(name, array)
            self._names = [self._shaped(node) for node in chain.nodes]
            self._place()
        except BaseException:
            self._stack.close()
            raise

    def milliseconds(self, work: Callable[[], None], repeats: int, warm_up: int = 20) -> list[float]:
        """GPU time of each of `repeats` replays of a graph of `work`."""
        work()
        self.stream.synchronize()
        with cuda.Event() as first, cuda.Event() as second, cuda.Graph(self.stream, work) as graph:
            times = [graph.milliseconds(self.stream, first, second) for _ in range(warm_up + repeats)]
        return times[warm_up:]

    def prepared(self, programmatic: bool = True, nodes: Sequence[int] | None = None) -> Callable[[], None]:
        """Gives the stream the launches of `nodes` (numbers; default all); without `programmatic` none starts early."""
        calls: list[Prepared] = []
        loaded: dict[str, LoadedPlan] = {}
        for index in range(len(self.chain.nodes)) if nodes is None else nodes:
            node, names = self.chain.nodes[index], self._names[index]
            plan = node.plan
            if not programmatic:
                plan = replace(plan, launches=tuple(replace(each, programmatic=False) for each in plan.launches))
            text = plan.text()
            if text not in loaded:  # layers with one kernel load it once
                loaded[text] = self._stack.enter_context(LoadedPlan(plan))
            workspace = self._stack.enter_context(cuda.DeviceBuffer(loaded[text].workspace_bytes(names)))
            inputs, outputs = ([self._at[name].address for name in each] for each in (node.inputs, node.outputs))
            calls.append(loaded[text].prepare(inputs, outputs, workspace.address, names))

        def launch() -> None:
            for call in calls:
                call.launch(self.stream.address)

        return launch

    def value(self, name: str, dtype: np.dtype) -> np.ndarray:
        """What lies in the memory of a value now, in the shape that its plan says, as `dtype`."""
        with cuda.PinnedBuffer(self._at[name].size) as pinned:
            cuda.copy_to_host(pinned, self._at[name], pinned.size, self.stream)
            self.stream.synchronize()
            return pinned.view(dtype, self._shapes[name]).copy()

    def close(self) -> None:
        """Free the GPU's memory."""
        self._stack.close()

    def __enter__(self) -> ChainOnGpu:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _upload(self, name: str, array: np.ndarray) -> None:
        self._shapes[name] = array.shape
        self._at[name] = self._stack.enter_context(cuda.DeviceBuffer(array.nbytes))
        cuda.upload(self._at[name], array, self.stream)

    def _shaped(self, node: ChainNode) -> dict[str, int]:
        """Bind the sizes of a node, making up inputs that nobody gives."""
        for name, tensor in zip(node.inputs, node.plan.inputs, strict=True):
            if name not in self._shapes:
                shape = tuple(size if isinstance(size, int) else self._batch for size in tensor.shape)
                made = np.random.default_rng(0).standard_normal(shape, np.float32)
                self._upload(name, made.astype(NUMPY[tensor.dtype]))
        names = bind(node.plan, [self._shapes[name] for name in node.inputs])
        for name, tensor in zip(node.outputs, node.plan.outputs, strict=True):
            self._shapes[name] = tuple(evaluate(size, names) for size in tensor.shape)
        return names

    def _place(self) -> None:
        """Memory for what nodes write: of a value that nobody reads after a node, for the next of its size."""
        last = {name: index for index, node in enumerate(self.chain.nodes) for name in node.inputs}
        free: dict[int, list[cuda.DeviceBuffer]] = {}
        written: set[str] = set()
        for index, node in enumerate(self.chain.nodes):
            for name, tensor in zip(node.outputs, node.plan.outputs, strict=True):
                size = bytes_of(tensor.dtype, self._shapes[name])
                spare = free.get(size)
                self._at[name] = spare.pop() if spare else self._stack.enter_context(cuda.DeviceBuffer(size))
            for name in {name for name in node.inputs if name in written and last[name] == index}:
                free.setdefault(self._at[name].size, []).append(self._at[name])
            written.update(node.outputs)
