"""A plan in TensorRT's hands: what it takes and gives, and contexts to run it in, whichever TensorRT it is."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime import cuda
from runtime.errors import EngineMismatch, InputError, ToolchainError
from runtime.manifest import Manifest, rebuild_advice
from runtime.refit import Refitted, refit
from runtime.runner import DYNAMIC, TensorSpec, element_count

# TensorRT's DataType, by name: numpy's name for it.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

ShapeSet = tuple[tuple[int, ...], ...]


class LoadedEngine:
    """Plan → engine, with its tensors as specs. `plan` is needed no more afterwards: TensorRT copies what it keeps.

    Raises EngineMismatch for a plan that TensorRT refuses, InputError for tensors that cannot be fed.
    """

    def __init__(self, trt: Any, log: Any, plan: memoryview, path: Path, manifest: Manifest | None):
        self.log = log
        self._trt = trt
        # TensorRT's objects free themselves with their last reference: contexts, then engine, then runtime.
        self._runtime = _create_runtime(trt, log)
        # Any buffer will do: the bindings of 8.6, 10, 11 and TensorRT-RTX ask for the buffer protocol, not for bytes.
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineMismatch(f"TensorRT cannot load {path}{log.last()}; {rebuild_advice(path, manifest)}")
        self.inputs, self.outputs = _specs(trt, self._engine)
        self.activation_bytes = _activation_bytes(self._engine)
        self._is_dynamic = any(DYNAMIC in spec.shape for spec in self.inputs)
        self._tensor_bytes: dict[str, int] = {}

    def context(self, memory: cuda.DeviceBuffer, stream: cuda.Stream, shapes: ShapeSet) -> Any:
        """A new execution context for inputs of these shapes, which keeps its activations in `memory`.

        Raises InputError for shapes that TensorRT refuses.
        """
        context = _create_context(self._trt, self._engine)
        if context is None:
            raise ToolchainError(f"TensorRT could not make an execution context{self.log.last()}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(memory.address, memory.size)
        else:
            context.device_memory = memory.address
        if self._is_dynamic:
            self._choose_profile(context, stream)
        self._set_shapes(context, shapes)
        return context

    def tensor_bytes(self, memory: cuda.DeviceBuffer, stream: cuda.Stream) -> dict[str, int]:
        """How many bytes each tensor has at the largest shapes; asked of a context the first time."""
        if self._tensor_bytes:
            return self._tensor_bytes
        context = self.context(memory, stream, tuple(spec.maximum or spec.shape for spec in self.inputs))
        sizes = {}
        for spec in self.inputs + self.outputs:
            shape = spec.maximum or tuple(context.get_tensor_shape(spec.name))
            sizes[spec.name] = element_count(shape) * spec.numpy_dtype.itemsize
        for spec in self.outputs:
            sizes[spec.name] = max(sizes[spec.name], int(context.get_max_output_size(spec.name)))
        self._tensor_bytes = sizes
        return sizes

    def refit(self, weights: Mapping[str, np.ndarray]) -> Refitted:
        """New weights, as `runtime.refit` has it; contexts and graphs made before must be closed, and nothing run."""
        return refit(self._trt, self.log, self._engine, weights)

    def close(self) -> None:
        """Let go of it; contexts that are still there keep it alive."""
        self._engine = self._runtime = None

    def _choose_profile(self, context: Any, stream: cuda.Stream) -> None:
        # 8.6 gives the profile by itself to the first context only; from 9 on every context has it.
        if int(getattr(context, "active_optimization_profile", 0)) >= 0:
            return
        if not context.set_optimization_profile_async(0, stream.address):
            raise ToolchainError(
                f"TensorRT does not let several contexts share the engine's optimisation profile{self.log.last()}; "
                "build the engine again, with the preview feature PROFILE_SHARING_0806"
            )
        stream.synchronize()

    def _set_shapes(self, context: Any, shapes: ShapeSet) -> None:
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(spec.name, shape):
                raise InputError(f"TensorRT refused shape {list(shape)} for input '{spec.name}'{self.log.last()}")
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise InputError(f"TensorRT refused the input shapes {list(map(list, shapes))}{self.log.last()}") from error
        if missing:
            raise ToolchainError(f"TensorRT cannot tell the output shapes without tensors {', '.join(missing)}")


@functools.cache
def make_log(trt: Any) -> Any:
    """A logger that prints nothing and keeps each thread's last error, which TensorRT says nowhere else.

    One for the whole process: the plugin library keeps the first pointer it is given, and never lets go of it.
    """

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: dict[int, str] = {}
            self._lock = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                with self._lock:
                    self._errors[threading.get_ident()] = " ".join(message.split())[:400]

        def last(self) -> str:
            """ ": the last error", or nothing; forgotten once asked for.

            It is this thread's, so that lanes do not tell each other's; or else another's, since TensorRT may work in
            threads of its own.
            """
            with self._lock:
                error = self._errors.pop(threading.get_ident(), "")
                if not error and self._errors:
                    _, error = self._errors.popitem()
            return f": {error}" if error else ""

    return Log()


def _create_runtime(trt: Any, log: Any) -> Any:
    try:
        return trt.Runtime(log)
    except (RuntimeError, TypeError) as error:  # TypeError is the binding's word for a null pointer
        raise ToolchainError(f"TensorRT {trt.__version__} could not start on this GPU{log.last()}") from error


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
    if kind not in DTYPES:
        raise InputError(f"tensor '{name}' has type {kind}; expected one of {', '.join(DTYPES)}")
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise InputError(f"tensor '{name}' is a shape tensor in host memory; give the network only data tensors")
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise InputError(f"tensor '{name}' is not stored row by row; build it with the linear tensor format")
    shape = tuple(engine.get_tensor_shape(name))
    if not is_input or DYNAMIC not in shape:
        return TensorSpec(name, DTYPES[kind], shape)
    smallest, _, largest = engine.get_tensor_profile_shape(name, 0)
    return TensorSpec(name, DTYPES[kind], shape, tuple(smallest), tuple(largest))


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
