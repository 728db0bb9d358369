"""CUDA's runtime API over host memory, as far as `runtime.cuda` uses it: for the logic around it, without a GPU."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


GOOD = Status.cudaSuccess


class FakeCuda:
    """Keeps count of everything alive, so that a test can see a leak; `captures` and `launches` count graph use."""

    cudaStreamNonBlocking = 1
    cudaEventDefault = 0
    cudaHostAllocDefault = 0
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3)

    def __init__(self, memory: int = 1 << 30):
        self.alive: dict[int, object] = {}
        self.memory = memory
        self.captures = self.launches = 0
        self._capturing: list | None = None
        self._next = 1000

    def _new(self, what: object):
        self._next += 1
        self.alive[self._next] = what
        return GOOD, self._next

    def _free(self, handle: int):
        return (GOOD if self.alive.pop(int(handle), None) is not None else Status.cudaErrorInvalidValue,)

    def cudaGetErrorString(self, status):
        return GOOD, b"what went wrong"

    def cudaSetDevice(self, index):
        return (GOOD if index == 0 else Status.cudaErrorNoDevice,)

    def cudaStreamCreateWithFlags(self, flags):
        return self._new("stream")

    def cudaEventCreateWithFlags(self, flags):
        return self._new("event")

    cudaStreamDestroy = cudaEventDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _free
    cudaFree = cudaFreeHost = _free

    def cudaStreamSynchronize(self, stream):
        return (GOOD if stream in self.alive else Status.cudaErrorInvalidValue,)

    def cudaMalloc(self, size):
        if size > self.memory:
            return Status.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        self.alive[ctypes.addressof(block)] = block
        return GOOD, ctypes.addressof(block)

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if self._capturing is None:
            ctypes.memmove(target, source, size)
        else:
            self._capturing.append((target, source, size))
        return (GOOD,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert self._capturing is None
        self._capturing = []
        return (GOOD,)

    def cudaStreamEndCapture(self, stream):
        copies, self._capturing = self._capturing, None
        return self._new(copies)

    def cudaGraphInstantiate(self, graph, flags):
        self.captures += 1
        return self._new(self.alive[graph])

    def cudaGraphLaunch(self, executable, stream):
        self.launches += 1
        for copy in self.alive[executable]:
            ctypes.memmove(*copy)
        return (GOOD,)
