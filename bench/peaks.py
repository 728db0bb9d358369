"""What vendors promise of their GPUs' matrix units: dense FP16 with FP32 accumulation, in TFLOP/s. MFU is of these."""

from __future__ import annotations

import re

# Name of the GPU as the driver gives it (a pattern), TFLOP/s, and where that stands. BF16 has the same rate on each.
_PEAKS = (
    (r"H200|H100 80GB HBM3|H100 SXM|GH200", 989.4, "NVIDIA H100/H200 data sheet, SXM, without sparsity"),
    (r"H100 PCIe", 756.5, "NVIDIA H100 data sheet, PCIe, without sparsity"),
    (r"A100", 312.0, "NVIDIA A100 data sheet, without sparsity"),
    (r"\bL4\b", 121.0, "NVIDIA L4 data sheet, without sparsity"),
    (r"L40S", 362.05, "NVIDIA L40S data sheet, without sparsity"),
    (r"RTX 4090", 165.2, "NVIDIA Ada GPU architecture white paper, FP16 with FP32 accumulation, without sparsity"),
    (r"RTX 3090(?! Ti)", 71.0, "NVIDIA Ampere GA102 white paper, FP16 with FP32 accumulation, without sparsity"),
)


def peak_tflops(gpu: str | None, precision: str) -> tuple[float | None, str]:
    """Peak TFLOP/s of a GPU in "fp16" or "bf16", and its source; None, and why, where none is known."""
    if gpu is None or precision not in ("fp16", "bf16"):
        return None, "no vendor's figure: MFU is of the matrix product measured here"
    for pattern, tflops, source in _PEAKS:
        if re.search(pattern, gpu):
            return tflops, source
    return None, f"no figure for {gpu} is listed: MFU is of the matrix product measured here"
