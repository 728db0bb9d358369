"""What a device reaches at best: a large matrix product, and a copy. Floors and percentages are of these."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_GPU_SIZE, _GPU_BYTES = 8192, 1 << 30
_CPU_SIZE, _CPU_BYTES = 2048, 1 << 28


def cpu_ceilings() -> dict[str, Any]:
    """FP32, by numpy's BLAS with all its threads."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((_CPU_SIZE, _CPU_SIZE), np.float32) for _ in range(2))
    product = _seconds(lambda: a @ b)
    source = rng.integers(0, 256, _CPU_BYTES, np.uint8)
    target = np.empty_like(source)
    copy = _seconds(lambda: np.copyto(target, source))
    return {
        "device": "cpu",
        "precision": "fp32",
        "tflops": _digits(2 * _CPU_SIZE**3 / product / 1e12),
        "gb_per_s": _digits(2 * _CPU_BYTES / copy / 1e9),
        "how": f"numpy: {_CPU_SIZE}^3 matrix product, copy of {_CPU_BYTES >> 20} MiB; median of 5",
    }


def gpu_ceilings(precision: str) -> dict[str, Any]:
    """In `precision`, by torch: random data, because a GPU multiplies zeros faster."""
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(_GPU_SIZE, _GPU_SIZE, device="cuda").to(dtype) for _ in range(2))
    source = torch.randint(0, 256, (_GPU_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def timed(work: Callable[[], object]) -> float:
        def whole() -> None:
            work()
            torch.cuda.synchronize()

        return _seconds(whole)

    product, copy = timed(lambda: a @ b), timed(lambda: target.copy_(source))
    return {
        "device": "gpu",
        "precision": precision,
        "tflops": _digits(2 * _GPU_SIZE**3 / product / 1e12),
        "gb_per_s": _digits(2 * _GPU_BYTES / copy / 1e9),
        "how": f"torch: {_GPU_SIZE}^3 matrix product, copy of {_GPU_BYTES >> 20} MiB; median of 5",
    }


def _seconds(work: Callable[[], object]) -> float:
    work()
    work()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
