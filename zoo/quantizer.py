"""A graph with Q/DQ pairs, by ONNX Runtime's quantizer: for its CPU, and for TensorRT and TensorRT-RTX.

Weights by output channel, activations by tensor, symmetric, scales from the largest magnitudes of calibration inputs
or from ranges that are given.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from runtime.errors import InputError, ToolchainError

# Above this a protobuf cannot hold the weights.
_INLINE_BYTES = 1 << 30


def with_qdq(
    model: ir.Model,
    target: Path,
    calibration: Mapping[str, np.ndarray],
    nodes: Sequence[str],
    ranges: Mapping[str, float] | None = None,
    outputs: bool = True,
    wide_weights: bool = False,
) -> Path:
    """Write `target`, the FP32 `model` with Q/DQ pairs around `nodes`, convolutions and products with weights.

    `calibration` are the graph's inputs, samples first; `ranges` are largest magnitudes of a node's activation, by the
    node's name, that training found and no calibration shall. Without `outputs` only what goes into a node is rounded,
    and for that node alone: norms and the residual stream take it as it is. With `wide_weights` the file keeps weights
    in FP32 behind a Q/DQ pair, as parsers of TensorRT 8 want them; else it has them in INT8.

    Raises InputError where a node is not of the graph or none is given, ToolchainError where the quantizer fails.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    by_name = {str(node.name): node for node in model.graph}
    for name in (*nodes, *(ranges or ())):
        if name not in by_name:
            raise InputError(f"there is no node '{name}' to quantize in the graph of {target.name}")
    if not nodes:
        raise InputError(f"there is no convolution or product with weights to quantize for {target.name}")
    if not outputs:
        for name in nodes:
            _take_alone(model, by_name[name])
    own = {_activation(by_name[name]): [_range(most)] for name, most in (ranges or {}).items()}
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
                nodes_to_quantize=list(nodes),
                use_external_data_format=size > _INLINE_BYTES,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "DedicatedQDQPair": True,
                    "QuantizeBias": False,  # to INT32, of which TensorRT's parser has no DequantizeLinear
                    "TensorQuantOverrides": own,
                    "AddQDQPairToWeight": wide_weights,
                    "OpTypesToExcludeOutputQuantization": [] if outputs else ["Conv", "Gemm", "MatMul"],
                },
            )
        except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
            target.unlink(missing_ok=True)
            raise ToolchainError(
                f"ONNX Runtime cannot quantize for {target}: {' '.join(str(error).split())[:300]}"
            ) from error
    return target


def _activation(node: ir.Node) -> str:
    value = node.inputs[0]
    assert value is not None and value.name
    return value.name


def _take_alone(model: ir.Model, node: ir.Node) -> None:
    """Give `node` its input under a name of its own: the quantizer hands a rounded tensor to all that read it."""
    value = node.inputs[0]
    assert value is not None
    if len(value.uses()) > 1:
        own = ir.Value(name=f"{value.name}_of_{node.name}", type=value.type, shape=value.shape)
        model.graph.insert_before(node, ir.node("Identity", [value], name=f"{node.name}/own", outputs=[own]))
        node.replace_input_with(0, own)


def _range(most: float) -> dict[str, Any]:
    return {"rmin": np.float32(-most), "rmax": np.float32(most)}


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
