"""Triton's life: functions warmed up, the server started, and stopped when what was accepted is answered."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import numpy as np
from pytriton.client.exceptions import PyTritonClientError
from pytriton.exceptions import PyTritonError
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy, TimeoutAction
from pytriton.triton import Triton, TritonConfig

from runtime.errors import ToolchainError
from serving import rows
from serving.arrivals import Arrivals
from serving.binding import Binding
from serving.front import Front
from serving.function import Field, Function, StreamFunction
from serving.log import JsonLog, LineLog, LogHandler
from serving.proxy import with_patience
from serving.settings import Settings, libpython_folder
from serving.streams import LastOnly, StreamBinding, Turns
from serving.tally import Tally
from serving.tensors import INPUT, OUTPUT, TensorBinding, Tensors
from serving.workspace import workspace

_WATCH_SECONDS = 0.5
# A Triton whose server was killed ends by itself, and holds its ports until then: some 7 s, and as long as the server
# would have given itself to stop where it was answering.
_AFTER_A_KILL_SECONDS = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Host:
    """Serves functions until it is told to stop.

    `stop` (a signal calls it) may be called from anywhere; `wait` returns the exit code: 0 after a stop that was asked
    for, 1 where Triton or the GPU was lost.
    """

    def __init__(self, served: Sequence[Function | StreamFunction | Tensors], settings: Settings, log: JsonLog):
        self._resources = contextlib.ExitStack()
        self._workspace, was_killed = self._resources.enter_context(workspace())
        self.settings = settings.chosen(_AFTER_A_KILL_SECONDS + settings.stop if was_killed else 0.0)
        self.tally = Tally()
        self._arrivals = Arrivals()
        self._functions = [each for each in served if not isinstance(each, Tensors)]
        self._tensors = [each for each in served if isinstance(each, Tensors)]
        self._log = log
        self._stopping = threading.Event()
        self._why = ""
        self._failed = False
        self._triton: Triton | None = None
        self._bindings: list[StreamBinding] = []
        self._front: Front | None = None

    def start(self) -> None:
        """Warm up, then let Triton load the functions: it is ready when they are."""
        libpython = libpython_folder()
        for function in self._functions:
            began = time.monotonic()
            function.warm_up()
            self._log("warm-up", function=function.name, seconds=time.monotonic() - began)
        _add_library_folder(str(libpython))
        with_patience()
        began = time.monotonic()
        try:
            self._triton = self._make_triton()
            for function in self._functions:
                self._bind(self._triton, function)
            for tensors in self._tensors:
                self._bind_tensors(self._triton, tensors)
            self._triton.run()
            self._front = Front(self._functions, self.settings, self._log, self.tally, self._arrivals)
            self._front.start()
        except (PyTritonError, PyTritonClientError, OSError) as error:
            self.close()
            raise ToolchainError(f"Triton does not start: {' '.join(str(error).split())}; the log says more") from error
        here = self.settings
        self._log(
            "ready",
            seconds=time.monotonic() - began,
            host=here.host,
            http=here.http,
            grpc=here.grpc,
            metrics=here.metrics,
            page=here.page,
        )

    def stop(self, why: str) -> None:
        """Ask `wait` to return. What was accepted is still answered, when `close` is called."""
        self._why = self._why or why
        self._stopping.set()

    def wait(self) -> int:
        """Until it is stopped, or Triton is gone."""
        assert self._triton is not None
        while not self._stopping.wait(_WATCH_SECONDS):
            if not self._triton.is_alive():
                self._failed = True
                self.stop("Triton ended by itself")
        self._log("stopping", why=self._why)
        return 1 if self._failed else 0

    def close(self) -> None:
        """Stop the front, then Triton: new requests are refused, accepted ones answered; then free the functions."""
        if self._front is not None:
            self._front.close()
            self._front = None
        if self._triton is not None:
            began = time.monotonic()
            self._triton.stop()
            self._triton = None
            self._log("stopped", seconds=time.monotonic() - began)
        for binding in self._bindings:
            binding.close()
        for function in self._functions:
            function.close()
        self._resources.close()

    def _lost(self, error: BaseException) -> None:
        self._failed = True
        self.stop(f"{error}")

    def _make_triton(self) -> Triton:
        here = self.settings
        return Triton(
            workspace=self._workspace,
            config=TritonConfig(
                http_address=here.host,
                http_port=here.http,
                grpc_address=here.host,
                grpc_port=here.grpc,
                metrics_address=here.host,
                metrics_port=here.metrics,
                allow_metrics=True,
                exit_timeout_secs=max(1, int(here.stop)),
                strict_readiness=True,
            ),
        )

    def _bind(self, triton: Triton, function: Function | StreamFunction) -> None:
        if isinstance(function, StreamFunction):
            turns = Turns(function, self.settings.queue, self.settings.timeout)
            streams = StreamBinding(
                function, turns, self._log, self.tally, self._arrivals, self._lost, self.settings.queue
            )
            self._bindings.append(streams)
            triton.bind(
                f"{function.name}_stream",
                streams.infer,
                _tensors(function.inputs),
                _tensors((*function.outputs, rows.STATUS, rows.REASON)),
                config=ModelConfig(batching=False, decoupled=True),
            )
            function = LastOnly(function, turns)
        binding = Binding(function, self._log, self.tally, self._arrivals, self._lost)
        triton.bind(
            function.name,
            binding.infer_functions(),
            _tensors(function.inputs),
            _tensors((*function.outputs, rows.STATUS, rows.REASON)),
            config=ModelConfig(max_batch_size=function.most_batch, batcher=self._batcher()),
            strict=True,
        )

    def _bind_tensors(self, triton: Triton, tensors: Tensors) -> None:
        binding = TensorBinding(tensors, self._log, self.tally, self._arrivals, self._lost)
        triton.bind(
            tensors.name,
            binding.infer_functions(),
            [Tensor(name=INPUT, dtype=np.uint8, shape=tensors.shape)],
            [Tensor(name=OUTPUT, dtype=np.uint8, shape=tensors.shape), *_tensors((rows.STATUS, rows.REASON))],
            config=ModelConfig(max_batch_size=tensors.most_batch, batcher=self._batcher()),
            strict=True,
        )

    def _batcher(self) -> DynamicBatcher:
        policy = QueuePolicy(
            timeout_action=TimeoutAction.REJECT,
            default_timeout_microseconds=int(self.settings.timeout * 1e6),
            allow_timeout_override=True,  # a request may ask for less, not for more
            max_queue_size=self.settings.queue,
        )
        return DynamicBatcher(max_queue_delay_microseconds=int(self.settings.gather * 1e6), default_queue_policy=policy)


def _tensors(fields: Sequence[Field]) -> list[Tensor]:
    return [Tensor(name=each.name, dtype=rows.numpy_type(each), shape=(1,), optional=each.optional) for each in fields]


def _add_library_folder(folder: str) -> None:
    """Triton's Python backend is started with this process's environment."""
    before = os.environ.get("LD_LIBRARY_PATH", "")
    if folder not in before.split(":"):
        os.environ["LD_LIBRARY_PATH"] = f"{folder}:{before}" if before else folder


@contextlib.contextmanager
def one_log(log: JsonLog) -> Iterator[None]:
    """What PyTriton and Triton say goes into the log as well, and nothing of it to stdout."""
    handler = LogHandler(log)
    logger = logging.getLogger("pytriton")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(LineLog(log, "triton")):
            yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def stopped_by_signals(host: Host) -> Iterator[None]:
    """SIGTERM and Ctrl-C stop the host; a second one no longer waits for anything."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else handler)
        host.stop(name)

    before = {each: signal.signal(each, on_signal) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
