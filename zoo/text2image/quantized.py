"""The denoiser in INT8, as Q/DQ ONNX by ONNX Runtime's quantizer: for its CPU, and for TensorRT and TensorRT-RTX.

Weights by output channel, activations by tensor, symmetric, scales from the largest magnitudes of calibration inputs.
Convolutions and products with weights are quantized; attention's own products, and the convolutions at the two ends of
a UNet, stay as they are: the first sees the noise itself, the last makes it.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engines.batch import BatchProfile
from engines.build import BuildRequest, Built, build
from engines.lowering import load, lower
from engines.validation import Validation
from export.recipe import Recipe
from runtime.errors import InputError, ToolchainError

# Of one answer; what it does to a whole picture is measured by `zoo.text2image.compare`.
JUDGE = ("cosine", 0.99)
_ENDS = ("conv_in", "conv_out")
_MOST_BATCH = 2
_GATE_SAMPLES = 2
# Above this a protobuf cannot hold the weights.
_INLINE_BYTES = 1 << 30


def quantized(neutral: Path, target: Path, calibration: Mapping[str, np.ndarray]) -> Path:
    """Write `target`, the FP32 graph `neutral` with Q/DQ pairs; `calibration` are its inputs, samples first.

    Raises InputError where there is nothing to quantize, ToolchainError where the quantizer fails.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    lowered = lower(neutral, "decomposed", BatchProfile(1, 1, _MOST_BATCH)).path
    model = load(lowered)
    nodes = quantizable(model)
    if not nodes:
        raise InputError(f"{neutral} has no convolution or product with weights to quantize")
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    with tempfile.TemporaryDirectory(prefix="cat2dog-quantize-") as folder, _quiet():
        whole = Path(folder) / "whole.onnx"
        # The quantizer looks for weights in the graph's own folder only.
        ir.external_data.load_to_model(model)
        ir.save(model, whole, external_data="whole.onnx.data" if size > _INLINE_BYTES else None)
        try:
            quantize_static(
                str(whole),
                str(target),
                _Samples(calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=nodes,
                use_external_data_format=size > _INLINE_BYTES,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "DedicatedQDQPair": True,
                    "QuantizeBias": False,  # to INT32, of which TensorRT's parser has no DequantizeLinear
                },
            )
        except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
            target.unlink(missing_ok=True)
            raise ToolchainError(
                f"ONNX Runtime cannot quantize {neutral}: {' '.join(str(error).split())[:300]}"
            ) from error
    return target


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


class _Samples:
    """Calibration inputs one by one, as the quantizer asks for them."""

    def __init__(self, feed: Mapping[str, np.ndarray]):
        count = len(next(iter(feed.values())))
        self._rows = iter([{name: array[row : row + 1] for name, array in feed.items()} for row in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer recommends preprocessing that the exporter has done already."""
    root: Any = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
