"""The denoiser in INT8, as Q/DQ ONNX: for ONNX Runtime's CPU, and for TensorRT and TensorRT-RTX.

Convolutions and products with weights are quantized; attention's own products, and the convolutions at the two ends of
a UNet, stay as they are: the first sees the noise itself, the last makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.batch import BatchProfile
from engines.build import BuildRequest, Built, build
from engines.lowering import load, lower
from engines.validation import Validation
from export.recipe import Recipe
from zoo.quantizer import with_qdq

# Of one answer; what it does to a whole picture is measured by `zoo.text2image.compare`.
JUDGE = ("cosine", 0.99)
_ENDS = ("conv_in", "conv_out")
_MOST_BATCH = 2
_GATE_SAMPLES = 2


def quantized(neutral: Path, target: Path, calibration: Mapping[str, np.ndarray]) -> Path:
    """Write `target`, the FP32 graph `neutral` with Q/DQ pairs; `calibration` are its inputs, samples first.

    Raises InputError where there is nothing to quantize, ToolchainError where the quantizer fails.
    """
    lowered = lower(neutral, "decomposed", BatchProfile(1, 1, _MOST_BATCH)).path
    model = load(lowered)
    return with_qdq(model, target, calibration, quantizable(model))


def built(onnx: Path, recipe: Recipe, root: Path, flavor: str = "auto", targets: tuple[str, ...] = ()) -> Built:
    """The engine of an INT8 file, from one sample to the two that guidance asks for; gated by JUDGE.

    Where TensorRT does not run here it is built ahead of time for `targets`, by default those of `cat2dog build`.
    Raises as `engines.build.build` does.
    """
    feed = recipe.validation(_GATE_SAMPLES)
    validation = Validation(feed, recipe.reference(feed), *JUDGE, f"PyTorch FP32 eager, {_GATE_SAMPLES} samples")
    request = BuildRequest(
        onnx=onnx,
        checkpoint=f"{recipe.name}-int8",
        precision="fp32",  # of what is not quantized
        validation=validation,
        batch=BatchProfile(1, _MOST_BATCH, _MOST_BATCH),
        attention="decomposed",
        flavor=flavor,
        targets=targets,
        root=root,
        judge=JUDGE,
    )
    return build(request)


def quantizable(model: ir.Model) -> list[str]:
    """Names of the convolutions and products that have weights, but for those at the ends."""
    return [
        str(node.name)
        for node in model.graph
        if node.op_type in ("Conv", "MatMul", "Gemm")
        and any(value is not None and value.is_initializer() for value in node.inputs[:2])
        and not any(end in str(node.name).split("/")[0].split(".") for end in _ENDS)
    ]
