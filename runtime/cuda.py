"""CUDA's runtime API as objects with a lifetime: each frees what it holds on `close` or on leaving a `with` block.

Importing this needs no GPU and no cuda-bindings; making the first object does. Every call is checked.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.errors import GpuLost, InputError, MissingExtra, ToolchainError
from runtime.gpu import load_modules_lazily

# Codes after which nothing on a GPU can work, whatever is tried.
_NO_GPU = ("cudaErrorNoDevice", "cudaErrorInsufficientDriver", "cudaErrorStubLibrary", "cudaErrorSystemDriverMismatch")
# CUDA's reference says of each of these (cudaError_t) that it leaves the process in an inconsistent state, in which any
# further CUDA work fails, and that to go on using CUDA "the process must be terminated and relaunched".
_STICKY = (
    "cudaErrorContained",
    "cudaErrorIllegalAddress",
    "cudaErrorLaunchTimeout",
    "cudaErrorAssert",
    "cudaErrorHardwareStackError",
    "cudaErrorIllegalInstruction",
    "cudaErrorMisalignedAddress",
    "cudaErrorInvalidAddressSpace",
    "cudaErrorInvalidPc",
    "cudaErrorLaunchFailure",
    "cudaErrorTensorMemoryLeak",
    "cudaErrorMpsClientTerminated",
    "cudaErrorExternalDevice",
)
_thread = threading.local()


@functools.cache
def bindings() -> Any:
    """cuda-bindings' module of the runtime API. Raises MissingExtra where it is not installed."""
    load_modules_lazily()
    try:
        from cuda.bindings import runtime
    except ImportError:
        try:
            from cuda import cudart as runtime  # before cuda-bindings 12.6.1
        except ImportError as error:
            raise MissingExtra("cuda-bindings", "running an engine", "cuda-bindings") from error
    return runtime


def check(result: tuple[Any, ...]) -> Any:
    """What a call returned after its status: nothing, one value, or a tuple. Raises ToolchainError for a bad status."""
    if result[0] != 0:
        status = result[0]
        _, text = bindings().cudaGetErrorString(status)
        reason = f"{status.name}: {text.decode(errors='replace') if isinstance(text, bytes) else text}"
        if status.name in _NO_GPU:
            raise ToolchainError(f"no NVIDIA GPU can be used ({reason}); run the ONNX file in ONNX Runtime instead")
        if status.name == "cudaErrorMemoryAllocation":
            raise ToolchainError(f"the GPU is out of memory ({reason}); use a smaller batch or close other programs")
        if status.name in _STICKY:
            raise GpuLost(f"the GPU stopped working for this process ({reason}); start the process anew")
        raise ToolchainError(f"CUDA failed ({reason})")
    if len(result) > 2:
        return result[1:]
    return result[1] if len(result) == 2 else None


def set_device(index: int) -> None:
    """Choose the GPU of the calling thread (CUDA keeps the choice per thread)."""
    check(bindings().cudaSetDevice(index))


def use_device(index: int) -> None:
    """As `set_device`, but only where this thread has not done so yet, or another library has chosen another since.

    A thread's first call cannot be left out even for GPU 0: plugins launch by the driver API, which needs the context
    that only setting the device makes current.
    """
    if not getattr(_thread, "chosen", False) or check(bindings().cudaGetDevice()) != index:
        set_device(index)
        _thread.chosen = True


def memory_taken() -> int:
    """Bytes of this GPU's memory that are in use, by whichever process."""
    free, total = check(bindings().cudaMemGetInfo())
    return int(total) - int(free)


class _Held:
    """Frees its handle once."""

    def __init__(self, handle: Any, free: Callable[[Any], tuple[Any, ...]]):
        self._handle = handle
        self._free = free

    @property
    def handle(self) -> Any:
        if self._handle is None:
            raise ToolchainError(f"this {type(self).__name__} is closed; make a new one")
        return self._handle

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            check(self._free(handle))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


class Stream(_Held):
    """A stream that does not wait for the default stream."""

    def __init__(self) -> None:
        cuda = bindings()
        super().__init__(check(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)), cuda.cudaStreamDestroy)

    @property
    def address(self) -> int:
        """The handle as a number, as TensorRT takes it."""
        return int(self.handle)

    def synchronize(self) -> None:
        """Wait until all that was given to the stream is done."""
        check(bindings().cudaStreamSynchronize(self.handle))


class Event(_Held):
    """A point in a stream whose time can be taken; one that is `blocking` cannot, but whoever waits for it sleeps."""

    def __init__(self, blocking: bool = False) -> None:
        cuda = bindings()
        flags = cuda.cudaEventBlockingSync | cuda.cudaEventDisableTiming if blocking else cuda.cudaEventDefault
        super().__init__(check(cuda.cudaEventCreateWithFlags(flags)), cuda.cudaEventDestroy)

    def record(self, stream: Stream) -> None:
        check(bindings().cudaEventRecord(self.handle, stream.handle))

    def synchronize(self) -> None:
        check(bindings().cudaEventSynchronize(self.handle))

    def milliseconds_since(self, start: Event) -> float:
        """GPU time between two recorded events that were reached."""
        return float(check(bindings().cudaEventElapsedTime(start.handle, self.handle)))


class DeviceBuffer(_Held):
    """`size` bytes on the GPU (at least one is taken, so that every buffer has an address)."""

    def __init__(self, size: int):
        cuda = bindings()
        super().__init__(check(cuda.cudaMalloc(_positive(size))), cuda.cudaFree)
        self.size = size

    @property
    def address(self) -> int:
        return int(self.handle)


class PinnedBuffer(_Held):
    """`size` bytes of page-locked memory, which the GPU copies from and to without a detour."""

    def __init__(self, size: int):
        cuda = bindings()
        flags = cuda.cudaHostAllocDefault
        super().__init__(check(cuda.cudaHostAlloc(_positive(size), flags)), cuda.cudaFreeHost)
        self.size = size

    @property
    def address(self) -> int:
        return int(self.handle)

    def view(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The first bytes as an array. It must not be used after `close`: the memory is gone then."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if count > self.size:
            raise InputError(f"an array of {count} bytes does not fit in a buffer of {self.size} bytes")
        memory = (ctypes.c_uint8 * count).from_address(self.address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)


class Graph(_Held):
    """Work captured from a stream, to be launched again as one call."""

    def __init__(self, stream: Stream, work: Callable[[], None]):
        """Capture what `work` gives to `stream`; nothing runs yet. An error in `work` ends the capture and goes on."""
        cuda = bindings()
        # Thread-local: another thread's allocation must not spoil this capture.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            check(cuda.cudaStreamBeginCapture(stream.handle, mode))
            work()
        except BaseException:
            self._abandon(stream)
            raise
        graph = check(cuda.cudaStreamEndCapture(stream.handle))
        try:
            executable = check(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            check(cuda.cudaGraphDestroy(graph))
        super().__init__(executable, cuda.cudaGraphExecDestroy)

    @staticmethod
    def _abandon(stream: Stream) -> None:
        # The stream is unusable until its capture ends; that the capture is spoilt is known already.
        cuda = bindings()
        status, graph = cuda.cudaStreamEndCapture(stream.handle)
        if int(status) == 0:
            check(cuda.cudaGraphDestroy(graph))

    def launch(self, stream: Stream) -> None:
        check(bindings().cudaGraphLaunch(self.handle, stream.handle))

    def milliseconds(self, stream: Stream, first: Event, second: Event) -> float:
        """GPU time of one launch, taken with these two events; waits until it is done."""
        first.record(stream)
        self.launch(stream)
        second.record(stream)
        second.synchronize()
        return second.milliseconds_since(first)


def copy_to_device(target: DeviceBuffer, source: PinnedBuffer, size: int, stream: Stream) -> None:
    """Enqueue a copy of the first `size` bytes."""
    _copy(target, source, size, bindings().cudaMemcpyKind.cudaMemcpyHostToDevice, stream)


def upload(target: DeviceBuffer, array: np.ndarray, stream: Stream) -> None:
    """Copy an array into the first bytes of a buffer and wait until it is there."""
    with PinnedBuffer(array.nbytes) as pinned:
        pinned.view(array.dtype, array.shape)[...] = array
        copy_to_device(target, pinned, array.nbytes, stream)
        stream.synchronize()


def copy_to_host(target: PinnedBuffer, source: DeviceBuffer, size: int, stream: Stream) -> None:
    """Enqueue a copy of the first `size` bytes; they are there once the stream is synchronized."""
    _copy(target, source, size, bindings().cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)


def _copy(
    target: DeviceBuffer | PinnedBuffer, source: DeviceBuffer | PinnedBuffer, size: int, kind: Any, stream: Stream
) -> None:
    if size > min(target.size, source.size):
        raise InputError(f"cannot copy {size} bytes from a buffer of {source.size} to one of {target.size}")
    check(bindings().cudaMemcpyAsync(target.address, source.address, size, kind, stream.handle))


def _positive(size: int) -> int:
    if size < 0:
        raise InputError(f"a buffer of {size} bytes was asked for; expected 0 or more")
    return max(size, 1)
