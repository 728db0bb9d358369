"""`python -m soak.gpu_cases CASE ENGINE FLAVOR SECONDS`: one case of `soak.gpu`; prints its report as JSON.

Needs numpy, cuda-bindings and the engine's TensorRT, no onnx: it runs under TensorRT's own Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime import cuda
from runtime.errors import Busy, GpuLost, InputError, ToolchainError
from runtime.tensorrt_runner import TensorRTRunner

SIDE = 16
_BATCHES = (1, 2, 3, 4)
_MOST_GROWTH_BYTES = 8 << 20
# Writes to address 8, which is no memory of anyone's.
_PTX = b""".version 6.0
.target sm_52
.address_size 64
.visible .entry bad() {
  .reg .b64 %rd<2>; .reg .b32 %r<2>;
  mov.u64 %rd1, 8; mov.u32 %r1, 1; st.global.u32 [%rd1], %r1; ret;
}
\0"""


def first(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """One load, one answer."""
    with TensorRTRunner(path, flavor, lanes=1) as runner:
        return {"sha256": hashlib.sha256(runner.infer({"image": _pictures(4)})["dog"].tobytes()).hexdigest()}


def inferences(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """As many inferences as fit, by four threads on two lanes, batches in turn, some calls given up or refused."""
    feed, counts, ends = _pictures(4), {"equal": 0, "given_up": 0, "refused": 0}, time.monotonic() + seconds
    lock, memory = threading.Lock(), []
    with TensorRTRunner(path, flavor, lanes=2) as runner:
        right = {batch: runner.infer({"image": feed[:batch]})["dog"] for batch in _BATCHES}

        def work(number: int) -> None:
            turn = number
            while time.monotonic() < ends:
                batch = _BATCHES[turn % len(_BATCHES)]
                turn += 1
                what = "equal"
                try:
                    if turn % 97 == 0:
                        runner.infer({"image": feed[:batch].astype(np.float32)})
                    dog = runner.infer({"image": feed[:batch]}, timeout=0.0 if turn % 53 == 0 else None)["dog"]
                    _promise(np.array_equal(dog, right[batch]), "an answer has other bits than the first")
                except Busy:
                    what = "given_up"
                except InputError:
                    what = "refused"
                with lock:
                    counts[what] += 1

        threads = [threading.Thread(target=_noted, args=(work, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 5)
        while any(thread.is_alive() for thread in threads):
            memory.append((_resident(), cuda.memory_taken()))
            time.sleep(max(0.1, seconds / 10))
        for thread in threads:
            thread.join()
    _promise(not _FAILED, f"a thread failed: {_FAILED[:1]}")
    growth = [memory[-1][index] - memory[0][index] for index in (0, 1)]
    _promise(max(growth) < _MOST_GROWTH_BYTES, f"memory of host and device grew by {growth} bytes")
    return {**counts, "host_growth_bytes": growth[0], "device_growth_bytes": growth[1]}


def loads(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """Load and release, 200 times or as long as there is time."""
    memory, ends, count = [], time.monotonic() + seconds, 0
    while count < 200 and time.monotonic() < ends:
        with TensorRTRunner(path, flavor, lanes=1) as runner:
            runner.infer({"image": _pictures(2)})
        count += 1
        memory.append((_resident(), cuda.memory_taken()))
    start = memory[len(memory) // 4]  # what libraries keep for good is kept by then
    growth = [memory[-1][index] - start[index] for index in (0, 1)]
    _promise(max(growth) < _MOST_GROWTH_BYTES, f"memory of host and device grew by {growth} bytes over {count} loads")
    return {"loaded": count, "host_growth_bytes": growth[0], "device_growth_bytes": growth[1]}


def out_of_memory_loading(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """Load with no memory left; then with memory again, in the same process."""
    cuda.set_device(0)
    with _memory_filled():
        said = _said(lambda: TensorRTRunner(path, flavor, lanes=1).close())
    with TensorRTRunner(path, flavor, lanes=1) as runner:
        runner.infer({"image": _pictures(1)})
    return {"said": said, "went_on": True}


def out_of_memory_running(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """Another batch size, which wants a context and a graph of its own, with no memory left; then with memory again."""
    with TensorRTRunner(path, flavor, lanes=1) as runner:
        right = runner.infer({"image": _pictures(1)})["dog"]
        with _memory_filled():
            said = _said(lambda: runner.infer({"image": _pictures(4)}))
            _promise(np.array_equal(runner.infer({"image": _pictures(1)})["dog"], right), "what was prepared is lost")
        runner.infer({"image": _pictures(4)})
        _promise(np.array_equal(runner.infer({"image": _pictures(1)})["dog"], right), "the first answer has changed")
    return {"said": said, "went_on": True}


def failing_kernel(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """A kernel that writes where nothing is, while threads run the engine: they are told that the GPU is lost."""
    return _lost(path, flavor, _launch_bad)


def lost_context(path: str, flavor: str, seconds: float) -> dict[str, Any]:
    """The context is destroyed while threads run the engine. The driver may end the process for it."""
    return _lost(path, flavor, lambda: cuda.bindings().cudaDeviceReset())


def _lost(path: str, flavor: str, break_it: Callable[[], Any]) -> dict[str, Any]:
    said: list[BaseException] = []
    with TensorRTRunner(path, flavor, lanes=2) as runner:
        feed = {"image": _pictures(2)}
        runner.infer(feed)
        ends = time.monotonic() + 10

        def work(number: int) -> None:
            try:
                while time.monotonic() < ends:
                    runner.infer(feed)
            except ToolchainError as error:
                said.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        break_it()
        for thread in threads:
            thread.join()
        _promise(len(said) == 3, f"only {len(said)} of 3 threads noticed within 10 s")
        after = _said(lambda: runner.infer(feed))
        with contextlib.suppress(ToolchainError):
            runner.close()
    kinds = sorted({type(error).__name__ for error in said})
    _promise(all("\n" not in str(error) for error in said), "an error has several lines")
    return {"threads": 3, "kinds": kinds, "said": str(said[0]), "afterwards": after,
            "says_it_cannot_go_on": all(isinstance(error, GpuLost) for error in said)}  # fmt: skip


def _launch_bad() -> None:
    try:
        from cuda.bindings import driver
    except ImportError:
        from cuda import cuda as driver
    cuda.set_device(0)
    error, module = driver.cuModuleLoadData(_PTX)
    _promise(int(error) == 0, f"the failing kernel cannot be loaded: {error}")
    error, function = driver.cuModuleGetFunction(module, b"bad")
    driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    driver.cuCtxSynchronize()


@contextlib.contextmanager
def _memory_filled() -> Iterator[None]:
    """All of the GPU's memory taken, to the last megabyte."""
    held: list[cuda.DeviceBuffer] = []
    size = 16 << 30
    try:
        while size >= 1 << 20:
            try:
                held.append(cuda.DeviceBuffer(size))
            except ToolchainError:
                size //= 2
        yield
    finally:
        for buffer in held:
            buffer.close()


def _said(work: Callable[[], Any]) -> str | None:
    """What the expected error says; None where there was none."""
    try:
        work()
    except ToolchainError as error:
        _promise("\n" not in str(error), f"an error has several lines: {error}")
        return f"{type(error).__name__}: {error}"
    return None


_FAILED: list[str] = []


def _noted(work: Callable[[int], None], number: int) -> None:
    try:
        work(number)
    except BaseException as error:  # noqa: BLE001 - a thread's end must be seen
        _FAILED.append(repr(error))


def _promise(kept: bool, text: str) -> None:
    if not kept:
        raise AssertionError(text)


def _pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


CASES: dict[str, Callable[[str, str, float], dict[str, Any]]] = {
    each.__name__: each
    for each in (
        first, inferences, loads, out_of_memory_loading, out_of_memory_running, failing_kernel, lost_context,
    )
}  # fmt: skip


if __name__ == "__main__":
    try:
        report = CASES[sys.argv[1]](sys.argv[2], sys.argv[3], float(sys.argv[4]))
    except (AssertionError, ToolchainError) as error:
        report = {"broken": f"{type(error).__name__}: {error}"}
    print(json.dumps(report), flush=True)
    # Whatever the driver does when such a process ends is no part of the case.
    os._exit(0)
