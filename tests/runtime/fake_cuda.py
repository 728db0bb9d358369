"""CUDA's runtime API over host memory, as far as `runtime.cuda` uses it: for the logic around it, without a GPU."""

from __future__ import annotations

import ctypes
import threading
import time
from enum import IntEnum
from types import SimpleNamespace


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900


GOOD = Status.cudaSuccess


class FakeCuda:
    """Keeps count of everything alive, so that a test can see a leak; `captures` and `launches` count graph use.

    A launched graph takes `seconds`, and `most_at_once` of them were under way at once; a stream takes one at a time.
    Once `lost`, every call answers that the GPU read an illegal address. Each thread has its own device.
    """

    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaHostAllocDefault = 0
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)

    def __init__(self, memory: int = 1 << 30):
        self.alive: dict[int, object] = {}
        self.memory = memory
        self.captures = self.launches = self.device_choices = 0
        self.most_capturing_at_once = 0
        self.lost = False
        self.seconds = 0.0
        self.most_at_once = 0
        self.waits: list[str] = []
        self._busy: set[int] = set()
        self._capturing: dict[int, list] = {}
        self._thread = threading.local()
        self._next = 1000
        self._lock = threading.Lock()

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name.startswith("cuda") and callable(value) and name != "cudaGetErrorString" and self.lost:
            return lambda *arguments: (Status.cudaErrorIllegalAddress,)
        return value

    def _new(self, what: object):
        with self._lock:
            self._next += 1
            self.alive[self._next] = what
            return GOOD, self._next

    def _free(self, handle: int):
        return (GOOD if self.alive.pop(int(handle), None) is not None else Status.cudaErrorInvalidValue,)

    def cudaGetErrorString(self, status):
        return GOOD, b"what went wrong"

    def cudaGetDevice(self):
        return GOOD, getattr(self._thread, "device", 0)

    def cudaSetDevice(self, index):
        self.device_choices += 1
        self._thread.device = index
        return (GOOD if index == 0 else Status.cudaErrorNoDevice,)

    def cudaStreamCreateWithFlags(self, flags):
        return self._new("stream")

    def cudaEventCreateWithFlags(self, flags):
        return self._new("event")

    cudaStreamDestroy = cudaEventDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _free
    cudaFree = cudaFreeHost = _free

    def cudaEventRecord(self, event, stream):
        return (GOOD if event in self.alive and stream in self.alive else Status.cudaErrorInvalidValue,)

    def cudaEventSynchronize(self, event):
        self.waits.append("block")
        return (GOOD if event in self.alive else Status.cudaErrorInvalidValue,)

    def cudaEventElapsedTime(self, start, end):
        return GOOD, 0.5

    def cudaStreamSynchronize(self, stream):
        self.waits.append("spin")
        return (GOOD if stream in self.alive else Status.cudaErrorInvalidValue,)

    def cudaMalloc(self, size):
        if size > self.memory:
            return Status.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        self.alive[ctypes.addressof(block)] = block
        return GOOD, ctypes.addressof(block)

    def cudaMemGetInfo(self):
        taken = sum(ctypes.sizeof(held) for held in self.alive.values() if isinstance(held, ctypes.Array))
        return GOOD, self.memory - taken, self.memory

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if stream in self._capturing:
            self._capturing[stream].append((target, source, size))
        else:
            ctypes.memmove(target, source, size)
        return (GOOD,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert stream not in self._capturing
        self._capturing[stream] = []
        self.most_capturing_at_once = max(self.most_capturing_at_once, len(self._capturing))
        return (GOOD,)

    def cudaStreamEndCapture(self, stream):
        return self._new(self._capturing.pop(stream))

    def cudaGraphInstantiate(self, graph, flags):
        self.captures += 1
        return self._new(self.alive[graph])

    def cudaGraphLaunch(self, executable, stream):
        with self._lock:
            self.launches += 1
            assert stream not in self._busy
            self._busy.add(stream)
            self.most_at_once = max(self.most_at_once, len(self._busy))
        if self.seconds:
            time.sleep(self.seconds)
        with self._lock:
            self._busy.remove(stream)
        for copy in self.alive[executable]:
            ctypes.memmove(*copy)
        return (GOOD,)
