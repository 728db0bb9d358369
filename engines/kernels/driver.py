"""Runs launch plans on the GPU at hand through CUDA's driver: what the plugin library does inside an engine, in Python.

Tuning and the kernels' own tests use it. It takes addresses, so it needs neither TensorRT nor torch.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engines.kernels.launch import DTYPES, Argument, Launch, LaunchPlan, Null, Number, Pointer, TensorMap
from engines.kernels.sizes import evaluate
from runtime.errors import MissingExtra, ToolchainError

_MAP_BYTES = 128
_MAP_TYPES = {"fp16": "FLOAT16", "bf16": "BFLOAT16", "fp32": "FLOAT32", "i32": "INT32", "u8": "UINT8", "i8": "UINT8"}
_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,31}")


def bindings() -> Any:
    """cuda-bindings' module of the driver API. Raises MissingExtra where it is not installed."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise MissingExtra("cuda-bindings", "running a kernel", "cuda-bindings") from error
    return driver


def check(result: tuple[Any, ...]) -> Any:
    """What a driver call returned after its status. Raises ToolchainError for a bad status."""
    if int(result[0]) != 0:
        raise ToolchainError(f"CUDA's driver failed: {result[0].name}")
    return result[1] if len(result) > 1 else None


class LoadedPlan:
    """A plan's images in the current CUDA context (make one first; torch and cuda.set_device do)."""

    def __init__(self, plan: LaunchPlan):
        self.plan = plan
        self._driver = bindings()
        self._modules: list[Any] = []
        try:
            for image in plan.images:
                self._modules.append(check(self._driver.cuModuleLoadData(image.data)))
            self._functions = [self._function(launch) for launch in plan.launches]
        except BaseException:
            self.close()
            raise

    def workspace_bytes(self, names: Mapping[str, int]) -> int:
        """How many bytes `launch` needs for these shapes."""
        return evaluate(self.plan.workspace, names)

    def prepare(
        self, inputs: Sequence[int], outputs: Sequence[int], workspace: int, names: Mapping[str, int]
    ) -> Prepared:
        """Everything for a launch over these addresses, so that launching costs little."""
        addresses = {"input": inputs, "output": outputs, "workspace": [workspace]}
        calls = []
        for launch, function in zip(self.plan.launches, self._functions, strict=True):
            grid = tuple(evaluate(size, names) for size in launch.grid)
            if 0 in grid:
                continue
            values = [self._value(argument, addresses, names) for argument in launch.arguments]
            calls.append(_Call(self._config(launch, grid), function, values))
        return Prepared(self._driver, calls)

    def close(self) -> None:
        """Unload the images."""
        results = [self._driver.cuModuleUnload(module) for module in reversed(self._modules)]
        self._modules.clear()
        for result in results:
            check(result)

    def __enter__(self) -> LoadedPlan:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def _function(self, launch: Launch) -> Any:
        driver = self._driver
        function = check(driver.cuModuleGetFunction(self._modules[launch.image], launch.name.encode()))
        if launch.shared > 48 << 10:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(driver.cuFuncSetAttribute(function, attribute, launch.shared))
        return function

    def _config(self, launch: Launch, grid: tuple[int, ...]) -> Any:
        driver = self._driver
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block, 1, 1
        config.sharedMemBytes = launch.shared
        attributes = []
        if launch.programmatic:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            attributes.append(attribute)
        if launch.cluster != 1:
            attribute = driver.CUlaunchAttribute()
            attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            attribute.value.clusterDim.x = launch.cluster
            attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1
            attributes.append(attribute)
        config.attrs = attributes
        config.numAttrs = len(attributes)
        return config

    def _value(self, argument: Argument, addresses: Mapping[str, Sequence[int]], names: Mapping[str, int]) -> Any:
        if isinstance(argument, Null):
            return ctypes.c_uint64(0)
        if isinstance(argument, Pointer):
            return ctypes.c_uint64(_address(argument, addresses, names))
        if isinstance(argument, Number):
            if argument.kind == "f32":
                return ctypes.c_float(float(argument.value))
            value = evaluate(argument.value, names)  # type: ignore[arg-type]
            if argument.kind == "i64":
                return ctypes.c_int64(value)
            if value >= 1 << 31:
                raise ValueError(f"argument {argument.value} is {value}, which an i32 does not hold")
            return ctypes.c_int32(value)
        return self._tensor_map(argument, addresses, names)

    def _tensor_map(self, argument: TensorMap, addresses: Mapping[str, Sequence[int]], names: Mapping[str, int]) -> Any:
        driver = self._driver
        rank = len(argument.dims)
        encoded = check(
            driver.cuTensorMapEncodeTiled(
                getattr(driver.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{_MAP_TYPES[argument.dtype]}"),
                rank,
                _address(argument.at, addresses, names),
                [driver.cuuint64_t(evaluate(size, names)) for size in argument.dims],
                [driver.cuuint64_t(evaluate(size, names)) for size in argument.strides],
                [driver.cuuint32_t(size) for size in argument.box],
                [driver.cuuint32_t(1)] * rank,
                driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
                getattr(driver.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{argument.swizzle.upper()}"),
                driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        )
        # The descriptor must lie on a 64-byte boundary.
        raw = (ctypes.c_uint8 * (_MAP_BYTES + 64))()
        aligned = (ctypes.addressof(raw) + 63) & ~63
        ctypes.memmove(aligned, int(encoded.getPtr()), _MAP_BYTES)
        # A view of `raw`, which it keeps alive.
        return (ctypes.c_uint8 * _MAP_BYTES).from_buffer(raw, aligned - ctypes.addressof(raw))


class _Call:
    def __init__(self, config: Any, function: Any, values: list[Any]):
        self.config, self.function, self.values = config, function, values
        self.pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))


class Prepared:
    """Launches over fixed addresses."""

    def __init__(self, driver: Any, calls: list[_Call]):
        self._driver, self._calls = driver, calls

    def launch(self, stream: int) -> None:
        """Give every launch of the plan to `stream` (a handle as a number)."""
        for call in self._calls:
            call.config.hStream = stream
            check(self._driver.cuLaunchKernelEx(call.config, call.function, ctypes.addressof(call.pointers), 0))


def bind(plan: LaunchPlan, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The names that these input shapes bind. Raises ValueError where a shape does not fit the plan."""
    names: dict[str, int] = {}
    if len(shapes) != len(plan.inputs):
        raise ValueError(f"{len(shapes)} shapes for {len(plan.inputs)} inputs")
    for tensor, shape in zip(plan.inputs, shapes, strict=True):
        if len(tensor.shape) != len(shape):
            raise ValueError(f"shape {list(shape)} does not fit {tensor}")
        for size, actual in zip(tensor.shape, shape, strict=True):
            if isinstance(size, str) and size not in names and _NAME.fullmatch(size):
                names[size] = actual
            elif evaluate(size, names) != actual:
                raise ValueError(f"shape {list(shape)} does not fit {tensor}")
    return names


def bytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense tensor."""
    count = DTYPES[dtype]
    for size in shape:
        count *= size
    return count


def _address(pointer: Pointer, addresses: Mapping[str, Sequence[int]], names: Mapping[str, int]) -> int:
    return addresses[pointer.operand][pointer.index] + evaluate(pointer.offset, names)
