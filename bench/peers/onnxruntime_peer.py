"""ONNX Runtime as a peer, on the CPU or by its CUDA provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.machine import versions
from bench.peers.peer import Clock, host_bytes
from bench.timing import wall_ms

if TYPE_CHECKING:
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

_SETS, _WARM_UP = 3, 3


class OnnxRuntimePeer:
    """`spec`: `onnx`, a path; `provider`, "cpu" or "cuda".

    The network alone is timed with input and output on the device: bound there by ONNX Runtime's own I/O binding.
    """

    def __init__(self, spec: Mapping[str, Any]):
        self._path, self._provider = spec["onnx"], spec["provider"]
        self._runner: OnnxRuntimeRunner | None = None
        self._bindings: list[Any] = []
        self._turn = 0
        self._before = 0

    def open(self, image: np.ndarray, clock: Clock) -> None:
        """Session, and one run."""
        import onnxruntime  # noqa: F401 (its import is a stage of its own)

        from runtime.onnxruntime_runner import OnnxRuntimeRunner

        clock.lap("import")
        if self._provider == "cuda":
            from runtime import cuda

            cuda.set_device(0)
            self._before = cuda.memory_taken()
        self._runner = OnnxRuntimeRunner(self._path, [self._provider])
        clock.lap("load")
        self.run(image)
        clock.lap("first run")

    def prepare(self, batch: int) -> None:
        """Inputs on the device, and a warm-up."""
        assert self._runner is not None
        session, spec = self._runner._session, self._runner.inputs[0]
        self._bindings = []
        for seed in range(_SETS):
            images = np.random.default_rng(seed).integers(0, 256, (batch, *spec.shape[1:]), np.uint8)
            binding = session.io_binding()
            binding.bind_ortvalue_input(spec.name, _value(images, self._provider))
            binding.bind_output(self._runner.outputs[0].name, self._provider)
            self._bindings.append(binding)
        self.network(_WARM_UP)

    def network(self, repeats: int) -> list[float]:
        """Wall milliseconds; `run_with_iobinding` returns when the outputs are there."""
        assert self._runner is not None
        session = self._runner._session

        def work(index: int) -> None:
            session.run_with_iobinding(self._bindings[(self._turn + index) % _SETS])

        times = wall_ms(work, repeats)
        self._turn += repeats
        return times

    def run(self, images: np.ndarray) -> np.ndarray:
        """By the runtime's own runner."""
        assert self._runner is not None
        return self._runner.infer({self._runner.inputs[0].name: images})[self._runner.outputs[0].name]

    def facts(self) -> dict[str, Any]:
        """Versions and memory."""
        if self._provider == "cuda":
            from runtime import cuda

            taken = max(0, cuda.memory_taken() - self._before)
        else:
            taken = host_bytes()
        return {"versions": versions(("onnxruntime", "onnxruntime-gpu", "numpy")), "device_bytes": taken}

    def layers(self) -> list[dict[str, Any]]:
        """ONNX Runtime tells them only to a file of its own."""
        return []

    def ceilings(self) -> dict[str, Any]:
        """What numpy's BLAS reaches on this CPU, in FP32; nothing for a GPU."""
        if self._provider == "cuda":
            return {}
        from bench.ceilings import cpu_ceilings

        return cpu_ceilings()

    def close(self) -> None:
        """Let go of the session."""
        self._bindings = []
        if self._runner is not None:
            self._runner.close()


def _value(images: np.ndarray, provider: str) -> Any:
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(images, provider, 0)
