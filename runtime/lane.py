"""All that one run at a time needs on the GPU, so that runs in different lanes share nothing but the weights."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict

from runtime import cuda
from runtime.loaded_engine import LoadedEngine, ShapeSet
from runtime.replay import Buffers, Replay

# Each costs a context: its graph and tables, not activations, which are shared in a lane.
MOST_SHAPES = 16


class Lane:
    """A stream, activation memory, pinned and device buffers for the largest shapes, and a replay for each shape set.

    One thread uses it at a time. Buffers are made once: captured graphs keep their addresses. `preparing` is the lock
    of all lanes of an engine, under which contexts are made and graphs captured; with `cuda_graph` False there are no
    graphs. With `blocking`, whoever waits for the GPU sleeps instead of spinning.
    """

    def __init__(self, engine: LoadedEngine, preparing: threading.Lock, cuda_graph: bool, blocking: bool):
        self._engine = engine
        self._preparing = preparing
        self._cuda_graph = cuda_graph
        self._replays: OrderedDict[ShapeSet, Replay] = OrderedDict()
        with contextlib.ExitStack() as stack:
            self._stream = stack.enter_context(cuda.Stream())
            self._done = stack.enter_context(cuda.Event(blocking=True)) if blocking else None
            self._memory = stack.enter_context(cuda.DeviceBuffer(engine.activation_bytes))
            self._buffers = {}
            for name, size in engine.tensor_bytes(self._memory, self._stream).items():
                pinned = stack.enter_context(cuda.PinnedBuffer(size))
                self._buffers[name] = Buffers(pinned, stack.enter_context(cuda.DeviceBuffer(size)))
            stack.callback(self._close_replays)
            self._resources = stack.pop_all()

    def prepare(self, shapes: ShapeSet) -> Replay:
        """What runs inputs of these shapes; made where it is not there, the one not used for longest let go for it."""
        replay = self._replays.get(shapes)
        if replay is None:
            while len(self._replays) >= MOST_SHAPES:
                self._replays.popitem(last=False)[1].close()
            with self._preparing:
                replay = Replay(
                    self._engine,
                    shapes,
                    self._memory,
                    self._stream,
                    self._buffers,
                    self._preparing if self._cuda_graph else None,
                )
            self._replays[shapes] = replay
        self._replays.move_to_end(shapes)
        return replay

    def wait(self) -> None:
        """Until all that was started is done."""
        if self._done is None:
            self._stream.synchronize()
        else:
            self._done.record(self._stream)
            self._done.synchronize()

    def forget(self) -> None:
        """Let go of all that was prepared; it is made again when it is asked for."""
        self._close_replays()

    def close(self) -> None:
        """Free all of it, once."""
        self._resources.close()

    def _close_replays(self) -> None:
        with contextlib.ExitStack() as stack:
            while self._replays:
                stack.callback(self._replays.popitem()[1].close)
