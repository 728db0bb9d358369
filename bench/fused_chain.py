"""The fused nodes of a lowered graph on the GPU, as their launches alone: no TensorRT between them.

Weights, tables and activations lie where the launches find them, activations in memory that is used again once nobody
reads it any more, as an engine does. What other operators would give (patches of pixels) is random.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.fused_node import LINEAR, OP_TYPE
from engines.kernels.driver import LoadedPlan, Prepared, bind, bytes_of
from engines.kernels.launch import LaunchPlan
from engines.kernels.read_plan import read_plan
from engines.kernels.sizes import evaluate
from engines.kernels.timing import NUMPY
from engines.lowering import load
from runtime import cuda
from runtime.errors import InputError


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
    constants: Mapping[str, ir.TensorProtocol]

    @property
    def launches(self) -> int:
        """Kernels of one pass."""
        return sum(len(node.plan.launches) for node in self.nodes)


def read_chain(path: Path) -> Chain:
    """The fused nodes of a lowered file. Raises InputError where it is no ONNX or has none."""
    model = load(path)
    nodes, constants = [], {}
    for node in model.graph:
        if node.op_type not in (OP_TYPE, LINEAR):
            continue
        read = [value for value in node.inputs if value is not None]
        constants.update({str(value.name): value.const_value for value in read if value.const_value is not None})
        plan = read_plan(node.attributes["launch"].as_string(), node.attributes["images"].as_tensor().tobytes())
        outputs = tuple(str(value.name) for value in node.outputs)
        variant = node.attributes["variant"].as_string()
        nodes.append(ChainNode(str(node.name), plan, tuple(str(value.name) for value in read), outputs, variant))
    if not nodes:
        raise InputError(
            f"{path} has no fused nodes: expected what `cat2dog build --linear plugin` leaves beside the ONNX"
        )
    return Chain(tuple(nodes), constants)


class ChainOnGpu:
    """A chain with its memory, ready to be captured. Close it, or use it in a `with` block.

    Raises ValueError where a node's shapes do not fit its plan, ToolchainError where the GPU refuses.
    """

    def __init__(self, chain: Chain, batch: int):
        self.chain, self._batch = chain, batch
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._at: dict[str, cuda.DeviceBuffer] = {}
        self._stack = contextlib.ExitStack()
        try:
            self.stream = self._stack.enter_context(cuda.Stream())
            for name, tensor in chain.constants.items():
                self._upload(name, tensor.numpy())
            self._names = [self._shaped(node) for node in chain.nodes]
            self._place()
        except BaseException:
            self._stack.close()
            raise

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
