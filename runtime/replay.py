"""One shape set, ready to run: plainly the first time, from a captured CUDA graph after that."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from runtime import cuda
from runtime.errors import InputError, ToolchainError
from runtime.loaded_engine import LoadedEngine, ShapeSet


class Buffers:
    """A tensor's place on both sides."""

    def __init__(self, pinned: cuda.PinnedBuffer, device: cuda.DeviceBuffer):
        self.pinned = pinned
        self.device = device


class Replay:
    """A context bound to one shape set and to a lane's buffers and stream; its graph holds the copies too.

    It has a context of its own: to change a context that a graph was captured from is undefined (TensorRT's guide).
    `preparing` is held while the graph is captured: captures of several lanes take turns. Without it there is no graph.
    """

    def __init__(
        self,
        engine: LoadedEngine,
        shapes: ShapeSet,
        memory: cuda.DeviceBuffer,
        stream: cuda.Stream,
        buffers: Mapping[str, Buffers],
        preparing: threading.Lock | None,
    ):
        self._log = engine.log
        self._stream = stream
        self._context = engine.context(memory, stream, shapes)
        self._copies_in = []
        self._copies_out = []
        self.inputs: list[np.ndarray] = []
        self.outputs: list[tuple[str, np.ndarray]] = []
        for spec in engine.inputs + engine.outputs:
            there = buffers[spec.name]
            array = there.pinned.view(spec.numpy_dtype, tuple(self._context.get_tensor_shape(spec.name)))
            if spec in engine.inputs:
                self.inputs.append(array)
                self._copies_in.append((there.device, there.pinned, array.nbytes))
            else:
                self.outputs.append((spec.name, array))
                self._copies_out.append((there.pinned, there.device, array.nbytes))
            if not self._context.set_tensor_address(spec.name, there.device.address):
                raise ToolchainError(f"TensorRT refused the address of tensor '{spec.name}'{self._log.last()}")
        self._preparing = preparing
        self._graph: cuda.Graph | None = None
        self._warm = False

    def start(self, given: Sequence[np.ndarray]) -> None:
        """Copy the inputs to where the GPU takes them, and give the work to the stream."""
        for target, source in zip(self.inputs, given):  # noqa: B905 (as many as there are inputs: checked by the runner)
            np.copyto(target, source)
        if self._graph is None and self._preparing is not None and self._warm:
            self._capture(self._preparing)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
            self._warm = True

    def check_outputs(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raise InputError unless `arrays` has exactly the outputs, each writable and of its type and shape."""
        for name, own in self.outputs:
            array = arrays.get(name)
            if not isinstance(array, np.ndarray):
                given = "missing" if array is None else f"a {type(array).__name__}"
                raise InputError(f"output '{name}' is {given}; expected {own.dtype.name} {list(own.shape)}")
            if array.dtype != own.dtype or array.shape != own.shape or not array.flags.writeable:
                given = f"{'' if array.flags.writeable else 'read-only '}{array.dtype.name} {list(array.shape)}"
                raise InputError(f"output '{name}' is {given}; expected {own.dtype.name} {list(own.shape)}")
        if len(arrays) != len(self.outputs):
            unknown = sorted(set(arrays) - {name for name, _ in self.outputs})
            expected = ", ".join(f"'{name}'" for name, _ in self.outputs)
            raise InputError(f"there is no output '{unknown[0]}'; expected {expected}")

    def close(self) -> None:
        """The graph first: it was captured from the context."""
        graph, self._graph = self._graph, None
        try:
            if graph is not None:
                graph.close()
        finally:
            self._context = None

    def _capture(self, preparing: threading.Lock) -> None:
        with preparing:
            # TensorRT-RTX knows plans that cannot be captured; for the others the question does not exist.
            capturable = getattr(self._context, "is_stream_capturable", None)
            if capturable is None or capturable(self._stream.address):
                self._graph = cuda.Graph(self._stream, self._enqueue)
            else:
                self._preparing = None

    def _enqueue(self) -> None:
        for target, source, size in self._copies_in:
            cuda.copy_to_device(target, source, size, self._stream)
        if not self._context.execute_async_v3(self._stream.address):
            raise ToolchainError(f"TensorRT could not run the engine{self._log.last()}")
        for pinned, device, size in self._copies_out:
            cuda.copy_to_host(pinned, device, size, self._stream)
