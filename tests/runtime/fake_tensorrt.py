"""TensorRT's Python API as far as the runner uses it, with a network that copies each input to the output of its rank.

`style` picks which version's API: "8.6", "10" or "rtx". The copies go through `runtime.cuda`, so they run on a real GPU
as on a fake one.
"""

from __future__ import annotations

import threading
import time
import weakref
from enum import Enum
from types import SimpleNamespace

import numpy as np

from runtime import cuda

Mode = Enum("Mode", "INPUT OUTPUT")
Location = Enum("Location", "DEVICE HOST")
Format = Enum("Format", "LINEAR CHW4")
Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
Strategy = Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
Specialization = Enum("Specialization", "LAZY EAGER NONE")


class ILogger:
    Severity = Severity

    def log(self, severity, message):
        raise NotImplementedError


class Tensor:
    def __init__(self, name, mode, shape, dtype="UINT8", location=Location.DEVICE, form=Format.LINEAR, profile=None):
        self.name, self.mode, self.shape, self.dtype = name, mode, shape, dtype
        self.location, self.format, self.profile = location, form, profile

    def bytes(self, shape):
        return int(np.prod(shape)) * {"UINT8": 1, "FLOAT": 4, "HALF": 2, "BF16": 2}[self.dtype]


class Context:
    """Insists on what TensorRT insists on: memory, shapes and addresses set before it runs."""

    def __init__(self, engine, log, style):
        self.engine, self.log = engine, log
        self.shapes: dict = {}
        self.addresses: dict = {}
        self.memory = None
        self.busy = False
        self.active_optimization_profile = 0
        if style == "8.6":
            # As 8.6's documentation has it: only the first context on a profile gets it without asking.
            self.active_optimization_profile = -1 if engine.profile_users else 0
            engine.profile_users.add(self)
            return
        self.set_device_memory = self._set_device_memory
        if style == "rtx":
            self.is_stream_capturable = lambda stream: engine.capturable

    def __setattr__(self, name, value):
        super().__setattr__("memory" if name == "device_memory" else name, value)

    def _set_device_memory(self, memory, size):
        assert size >= 4096
        self.memory = memory

    def set_optimization_profile_async(self, index, stream):
        if not self.engine.profile_sharing:
            self.log.log(Severity.ERROR, "Profile 0 has been chosen by another IExecutionContext")
            return False
        self.active_optimization_profile = index
        return True

    def set_input_shape(self, name, shape):
        assert self.active_optimization_profile == 0 or not any(tensor.profile for tensor in self.engine.inputs)
        tensor = self.engine.tensor(name)
        smallest, _, largest = tensor.profile or (shape, shape, shape)
        if any(not low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            self.log.log(Severity.ERROR, "shape is\noutside the profile")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        if self.engine.inconsistent:
            self.log.log(Severity.ERROR, "a and b differ")
            raise RuntimeError("shape inference failed")
        return [tensor.name for tensor in self.engine.inputs if tensor.name not in self.shapes]

    def get_tensor_shape(self, name):
        tensor = self.engine.tensor(name)
        if tensor.mode is Mode.OUTPUT:
            tensor = self.engine.inputs[self.engine.outputs.index(tensor)]
        return self.shapes[tensor.name]

    def get_max_output_size(self, name):
        return self.engine.tensor(name).bytes(self.get_tensor_shape(name))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        self.engine.runs += 1
        if self.engine.fail:
            self.log.log(Severity.ERROR, "it is\nbroken")
            return False
        assert self.memory
        with self.engine.lock:
            assert not self.busy, "one context is used by two threads"
            assert self.memory not in self.engine.memory_in_use, "two contexts at once in one activation memory"
            self.busy = True
            self.engine.memory_in_use.add(self.memory)
            self.engine.most_at_once = max(self.engine.most_at_once, len(self.engine.memory_in_use))
        time.sleep(self.engine.seconds)
        with self.engine.lock:
            self.engine.memory_in_use.remove(self.memory)
            self.busy = False
        api = cuda.bindings()
        for source, target in zip(self.engine.inputs, self.engine.outputs, strict=True):
            size = source.bytes(self.shapes[source.name])
            kind = api.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            cuda.check(
                api.cudaMemcpyAsync(self.addresses[target.name], self.addresses[source.name], size, kind, stream)
            )
        return True


class Engine:
    def __init__(self, tensors, style):
        self.tensors, self.style = tensors, style
        self.inputs = [tensor for tensor in tensors if tensor.mode is Mode.INPUT]
        self.outputs = [tensor for tensor in tensors if tensor.mode is Mode.OUTPUT]
        self.num_io_tensors = len(tensors)
        self.runs = self.contexts = 0
        self.seconds = 0.0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self.memory_in_use: set[int] = set()
        self.profile_users: weakref.WeakSet = weakref.WeakSet()
        self.profile_sharing = True
        self.plan: object = None
        self.fail = self.inconsistent = False
        self.capturable = True
        self.log = None
        if style == "8.6":
            self.device_memory_size = 4096
            self.create_execution_context_without_device_memory = self._context
            return
        self.device_memory_size_v2 = 4096
        self.create_execution_context = self._checked_context
        if style == "rtx":
            self.create_runtime_config = RuntimeConfig

    def _context(self):
        self.contexts += 1
        return Context(self, self.log, self.style)

    def _checked_context(self, how):
        if self.style == "rtx":
            assert how.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
            how = how.strategy
        assert how is Strategy.USER_MANAGED
        return self._context()

    def tensor(self, name):
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def get_tensor_name(self, index):
        return self.tensors[index].name

    def get_tensor_mode(self, name):
        return self.tensor(name).mode

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensor(name).dtype)

    def get_tensor_location(self, name):
        return self.tensor(name).location

    def get_tensor_format(self, name):
        return self.tensor(name).format

    def get_tensor_shape(self, name):
        return self.tensor(name).shape

    def get_tensor_profile_shape(self, name, profile):
        assert profile == 0
        return [*self.tensor(name).profile]


class RuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = None
    strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy


class FakeTensorRT:
    """Stands for the module; deserializes any plan to `engine`, and the plan b"bad" to nothing."""

    __version__ = "1.0"
    starts = True
    ILogger = ILogger
    TensorIOMode = Mode
    TensorLocation = Location
    TensorFormat = Format

    def __init__(self, tensors, style="10"):
        self.engine = Engine(tensors, style)
        self.registered: list = []
        if style != "8.6":
            self.ExecutionContextAllocationStrategy = Strategy
        if style == "rtx":
            self.DynamicShapesKernelSpecializationStrategy = Specialization

    def init_libnvinfer_plugins(self, log, namespace):
        self.registered.append(namespace)
        return True

    def Runtime(self, log):
        self.engine.log = log
        if self.starts is False:
            log.log(Severity.INTERNAL_ERROR, "CUDA initialization failure")
            raise TypeError("factory function returned nullptr")

        def deserialize(plan):
            if plan == b"bad":
                log.log(Severity.ERROR, "magic tag does not match")
                return None
            self.engine.plan = plan
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)
