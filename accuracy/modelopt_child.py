"""Quantizes one graph under the Python of NVIDIA's Model Optimizer: `python -m accuracy.modelopt_child`.

A request on stdin, the written file as the answer; knows numpy and modelopt only (`accuracy/modelopt.txt`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from engines.answer import serve
from runtime.errors import InputError, ToolchainError

_PACKAGES = ("nvidia-modelopt", "onnx", "onnxruntime", "torch", "numpy")


def quantize(request: Mapping[str, Any], progress: Any) -> dict[str, Any]:
    """Write `request["target"]`, the graph `request["source"]` with Q/DQ pairs; calibrated with an `.npz` of inputs."""
    progress(phase="loading Model Optimizer", step=0, steps=0)
    warnings.simplefilter("ignore")
    try:
        from modelopt.onnx.quantization import quantize as with_modelopt
    except ImportError as error:
        raise InputError(f"this Python has no Model Optimizer for ONNX ({error})") from error
    with np.load(request["calibration"], allow_pickle=False) as arrays:
        calibration = {name: arrays[name] for name in arrays.files}
    progress(phase="calibrating", step=0, steps=0)
    nodes = list(request["nodes"])
    try:
        with_modelopt(
            request["source"],
            quantize_mode=request["mode"],
            calibration_data=calibration,
            calibration_method=request["calibrator"],
            calibration_eps=["cpu"],
            op_types_to_quantize=["MatMul", "Gemm", "Conv"] if nodes else None,
            nodes_to_quantize=nodes or None,
            use_external_data_format=True,
            # What is not quantized stays FP32, so that only the quantization is measured.
            high_precision_dtype="fp32",
            output_path=request["target"],
            log_level="ERROR",
        )
    except (ValueError, RuntimeError, AssertionError, KeyError, NotImplementedError) as error:
        raise ToolchainError(f"Model Optimizer failed: {' '.join(str(error).split())[:300]}") from error
    return {"versions": {package: version(package) for package in _PACKAGES}}


if __name__ == "__main__":
    serve(quantize)
