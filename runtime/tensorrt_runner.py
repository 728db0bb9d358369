"""Runs an engine: TensorRT 8.6, 10, 11 or TensorRT-RTX, by names it asks the engine for."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime import cuda, gpu
from runtime.engine_file import engine_manifest, read_engine
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.flavors import Flavor, load_flavor
from runtime.manifest import Manifest, rebuild_advice
from runtime.plugins import find_plugin, is_plugin, load_plugin, needs_plugin
from runtime.runner import DYNAMIC, TensorSpec, check_feed, element_count

# TensorRT's DataType, by name: numpy's name for it.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
# Each costs a context: its graph and tables, not activations, which are shared.
_MOST_SHAPES = 16

ShapeSet = tuple[tuple[int, ...], ...]


class TensorRTRunner:
    """Engine file → runner, on GPU number `device`.

    The engine must have its manifest beside it and belong to this flavor, version and GPU, which is checked before
    the GPU is touched. `flavor` None takes the manifest's; another than the manifest's is an EngineMismatch. `plugins`
    are libraries loaded before the engine; ours is found where the engine needs it and none is given. With
    `cuda_graph`, a shape set is run plainly once and from then on replayed from a graph that holds the copies too.
    `infer` may be called from several threads; calls take turns. A gate still pending is left to the caller, in
    `manifest`.

    Raises InputError, EngineMismatch and AccuracyError as `check_engine` does, ToolchainError without a GPU.
    """

    def __init__(
        self,
        engine_path: str | os.PathLike[str],
        flavor: str | None = None,
        device: int = 0,
        cuda_graph: bool = True,
        plugins: Sequence[str | os.PathLike[str]] = (),
    ):
        path = Path(engine_path)
        built_by = engine_manifest(path).key.flavor
        name = flavor or built_by
        chosen = _choose_gpu(device)
        self._trt = load_flavor(name)
        usable = Flavor(name, str(self._trt.__version__), sys.executable, can_build=True, can_run=True)
        self.manifest, plan = read_engine(path, usable, chosen)
        self._device = device
        self._cuda_graph = cuda_graph
        self._lock = threading.Lock()
        self._shapes: OrderedDict[ShapeSet, _Prepared] = OrderedDict()
        with contextlib.ExitStack() as stack:
            cuda.set_device(device)
            self._log = _make_log(self._trt)
            _load_plugins(self._trt, self._log, _needed_plugins(self.manifest, plugins))
            # TensorRT's objects free themselves with their last reference: contexts, then engine, then runtime.
            runtime = _create_runtime(self._trt, self._log)
            engine = _deserialize(runtime, plan, path, self.manifest, self._log)
            self.inputs, self.outputs = _specs(self._trt, engine)
            self._engine, self._runtime = engine, runtime
            self._stream = stack.enter_context(cuda.Stream())
            self._activations = stack.enter_context(cuda.DeviceBuffer(_activation_bytes(engine)))
            self._tensors = self._allocate(stack)
            stack.callback(self._close_shapes)
            self._resources: contextlib.ExitStack | None = stack.pop_all()

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. Raises InputError as `check_feed` does, ToolchainError where the GPU fails or this is closed."""
        check_feed(self.inputs, feed)
        with self._lock:
            if self._resources is None:
                raise ToolchainError("this TensorRT runner is closed; make a new one")
            cuda.set_device(self._device)
            prepared = self._prepare(tuple(feed[spec.name].shape for spec in self.inputs))
            for spec in self.inputs:
                tensor = prepared.tensors[spec.name]
                np.copyto(tensor.array, feed[spec.name])
            prepared.run()
            self._stream.synchronize()
            return {spec.name: prepared.tensors[spec.name].array.copy() for spec in self.outputs}

    def close(self) -> None:
        """Free all that is on the GPU; a second call does nothing."""
        with self._lock:
            resources, self._resources = self._resources, None
            if resources is None:
                return
            cuda.set_device(self._device)
            resources.close()
            self._engine = self._runtime = None

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def _allocate(self, stack: contextlib.ExitStack) -> dict[str, _Buffers]:
        """Buffers for the largest shapes, once: a captured graph keeps their addresses."""
        context = self._context()
        largest = tuple(spec.maximum or spec.shape for spec in self.inputs)
        self._set_shapes(context, largest)
        tensors = {}
        for spec in self.inputs + self.outputs:
            shape = spec.maximum or tuple(context.get_tensor_shape(spec.name))
            size = element_count(shape) * spec.numpy_dtype.itemsize
            if spec in self.outputs:
                size = max(size, int(context.get_max_output_size(spec.name)))
            buffers = _Buffers(
                stack.enter_context(cuda.PinnedBuffer(size)), stack.enter_context(cuda.DeviceBuffer(size))
            )
            tensors[spec.name] = buffers
        return tensors

    def _prepare(self, shapes: ShapeSet) -> _Prepared:
        prepared = self._shapes.get(shapes)
        if prepared is None:
            while len(self._shapes) >= _MOST_SHAPES:
                self._shapes.popitem(last=False)[1].close()
            prepared = self._shapes[shapes] = self._bind(shapes)
        self._shapes.move_to_end(shapes)
        return prepared

    def _bind(self, shapes: ShapeSet) -> _Prepared:
        # One context a shape set: to change a context that a graph was captured from is undefined (TensorRT's guide).
        context = self._context()
        self._set_shapes(context, shapes)
        tensors = {}
        for spec in self.inputs + self.outputs:
            buffers = self._tensors[spec.name]
            shape = tuple(context.get_tensor_shape(spec.name))
            tensors[spec.name] = _Bound(buffers, buffers.pinned.view(spec.numpy_dtype, shape))
            if not context.set_tensor_address(spec.name, buffers.device.address):
                raise ToolchainError(f"TensorRT refused the address of tensor '{spec.name}'{self._log.last()}")
        names = [spec.name for spec in self.inputs], [spec.name for spec in self.outputs]
        return _Prepared(context, tensors, names, self._stream, self._log, self._cuda_graph)

    def _context(self) -> Any:
        """A new execution context that works in the shared activation memory; calls take turns, so one is enough."""
        context = _create_context(self._trt, self._engine)
        if context is None:
            raise ToolchainError(f"TensorRT could not make an execution context{self._log.last()}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(self._activations.address, self._activations.size)
        else:
            context.device_memory = self._activations.address
        return context

    def _set_shapes(self, context: Any, shapes: ShapeSet) -> None:
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(spec.name, shape):
                raise InputError(f"TensorRT refused shape {list(shape)} for input '{spec.name}'{self._log.last()}")
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise InputError(
                f"TensorRT refused the input shapes {list(map(list, shapes))}{self._log.last()}"
            ) from error
        if missing:
            raise ToolchainError(f"TensorRT cannot tell the output shapes without tensors {', '.join(missing)}")

    def _close_shapes(self) -> None:
        while self._shapes:
            self._shapes.popitem()[1].close()


class _Buffers:
    """A tensor's place on both sides."""

    def __init__(self, pinned: cuda.PinnedBuffer, device: cuda.DeviceBuffer):
        self.pinned = pinned
        self.device = device


class _Bound:
    """A tensor of one shape: its buffers, and the pinned one as an array."""

    def __init__(self, buffers: _Buffers, array: np.ndarray):
        self.buffers = buffers
        self.array = array


class _Prepared:
    """One shape set, ready to run: plainly the first time, from a captured graph after that."""

    def __init__(
        self,
        context: Any,
        tensors: dict[str, _Bound],
        names: tuple[list[str], list[str]],
        stream: cuda.Stream,
        log: Any,
        cuda_graph: bool,
    ):
        self.tensors = tensors
        self._context = context
        self._inputs, self._outputs = names
        self._stream = stream
        self._log = log
        self._wants_graph = cuda_graph
        self._graph: cuda.Graph | None = None
        self._warm = False

    def run(self) -> None:
        """Give the work to the stream."""
        if self._wants_graph and self._warm and self._graph is None:
            # TensorRT-RTX knows plans that cannot be captured; for the others the question does not exist.
            capturable = getattr(self._context, "is_stream_capturable", None)
            self._wants_graph = capturable is None or bool(capturable(self._stream.address))
            if self._wants_graph:
                self._graph = cuda.Graph(self._stream, self._enqueue)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
            self._warm = True

    def _enqueue(self) -> None:
        for name in self._inputs:
            bound = self.tensors[name]
            cuda.copy_to_device(bound.buffers.device, bound.buffers.pinned, bound.array.nbytes, self._stream)
        if not self._context.execute_async_v3(self._stream.address):
            raise ToolchainError(f"TensorRT could not run the engine{self._log.last()}")
        for name in self._outputs:
            bound = self.tensors[name]
            cuda.copy_to_host(bound.buffers.pinned, bound.buffers.device, bound.array.nbytes, self._stream)

    def close(self) -> None:
        if self._graph is not None:
            self._graph.close()


def _choose_gpu(device: int) -> gpu.Gpu:
    gpus = gpu.find_gpus()
    if not gpus:
        raise ToolchainError(
            f"running an engine needs an NVIDIA GPU: {gpu.no_gpu_reason()}; run the ONNX file in ONNX Runtime instead"
        )
    if not 0 <= device < len(gpus):
        listed = ", ".join(f"{each.index} ({each.name})" for each in gpus)
        raise InputError(f"there is no GPU {device}; expected one of {listed}")
    return gpus[device]


@functools.cache
def _make_log(trt: Any) -> Any:
    """A logger that prints nothing and keeps the last error, which TensorRT says nowhere else.

    One for the whole process: the plugin library keeps the first pointer it is given, and never lets go of it.
    """

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self._error = " ".join(message.split())[:400]

        def last(self) -> str:
            """ ": the last error", or nothing; forgotten once asked for."""
            error, self._error = self._error, ""
            return f": {error}" if error else ""

    return Log()


def _needed_plugins(manifest: Manifest, given: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    if not needs_plugin(manifest) or any(map(is_plugin, given)):
        return list(given)
    return [*given, find_plugin(manifest.key.flavor_version)]


def _load_plugins(trt: Any, log: Any, plugins: Sequence[str | os.PathLike[str]]) -> None:
    # TensorRT-RTX carries the function but has no plugins of its own; where it is absent there is nothing to register.
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    for plugin in plugins:
        load_plugin(plugin)


def _create_runtime(trt: Any, log: Any) -> Any:
    try:
        return trt.Runtime(log)
    except (RuntimeError, TypeError) as error:  # TypeError is the binding's word for a null pointer
        raise ToolchainError(f"TensorRT {trt.__version__} could not start on this GPU{log.last()}") from error


def _deserialize(runtime: Any, plan: bytes, path: Path, manifest: Manifest, log: Any) -> Any:
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineMismatch(f"TensorRT cannot load {path}{log.last()}; {rebuild_advice(path, manifest)}")
    return engine


def _specs(trt: Any, engine: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(_spec(trt, engine, name, is_input))
    return tuple(inputs), tuple(outputs)


def _spec(trt: Any, engine: Any, name: str, is_input: bool) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise InputError(f"tensor '{name}' has type {kind}; expected one of {', '.join(_DTYPES)}")
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise InputError(f"tensor '{name}' is a shape tensor in host memory; give the network only data tensors")
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise InputError(f"tensor '{name}' is not stored row by row; build it with the linear tensor format")
    shape = tuple(engine.get_tensor_shape(name))
    if not is_input or DYNAMIC not in shape:
        return TensorSpec(name, _DTYPES[kind], shape)
    smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
    return TensorSpec(name, _DTYPES[kind], shape, tuple(smallest), tuple(largest))


def _activation_bytes(engine: Any) -> int:
    # 8.6 knows only the first; 11 only the second.
    return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)


def _create_context(trt: Any, engine: Any) -> Any:
    """A context without activation memory of its own, in the form that the version at hand has."""
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:
        return engine.create_execution_context_without_device_memory()
    specialize = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if specialize is None:
        return engine.create_execution_context(strategies.USER_MANAGED)
    # TensorRT-RTX compiles kernels for the shapes it meets, by default in the background; a graph captured before they
    # are ready would keep the slow ones for good.
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = specialize.EAGER
    config.set_execution_context_allocation_strategy(strategies.USER_MANAGED)
    return engine.create_execution_context(config)
