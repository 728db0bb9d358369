"""INT8 and FP8 as Q/DQ ONNX by NVIDIA's Model Optimizer, which lives in a Python of its own.

Schemes are symmetric: weights by output channel, activations by tensor, scales from the largest magnitude (`max`) or
the range that loses least information (`entropy`) of the calibration inputs.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engines.lowering import load
from engines.process import Progress, run_child
from runtime.errors import InputError

PYTHON_VARIABLE = "CAT2DOG_PYTHON_MODELOPT"
MODES, CALIBRATORS = ("int8", "fp8"), ("max", "entropy")


@dataclass(frozen=True)
class Scheme:
    """What is quantized how: `mode` of MODES, `calibrator` of CALIBRATORS, and which products of matrices.

    `layers` are ends of module paths ("mlp.up"); none leaves the choice to Model Optimizer, which then quantizes what
    TensorRT could fuse: attention, embedding and additions too.
    """

    name: str
    mode: str
    calibrator: str
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.calibrator not in CALIBRATORS:
            raise InputError(
                f"scheme {self.name}: {self.mode} by {self.calibrator}; expected one of {', '.join(MODES)} by one of "
                f"{', '.join(CALIBRATORS)}"
            )

    def nodes(self, model: ir.Model) -> list[str]:
        """Names of the nodes that the scheme quantizes, empty where that is left open. Raises InputError for none."""
        if not self.layers:
            return []
        products = [str(node.name) for node in model.graph if node.op_type in ("MatMul", "Gemm", "Conv")]
        chosen = [name for name in products if name.rpartition("/")[0].endswith(self.layers)]
        if not chosen:
            raise InputError(f"scheme {self.name}: no matrix product of the graph is in a layer {self.layers}")
        return chosen


_MLP, _ATTENTION = ("mlp.up", "mlp.down", "mlp.gate"), ("attention.qkv", "attention.out")
SCHEMES = tuple(
    Scheme(f"{mode}-{calibrator}-{what}", mode, calibrator, layers)
    for mode in MODES
    for calibrator in CALIBRATORS
    for what, layers in (
        ("all", ()),
        ("linear", (*_MLP, *_ATTENTION)),
        ("mlp", _MLP),
        ("projections", _ATTENTION),
    )
)


def modelopt_python() -> str:
    """The Python that has Model Optimizer. Raises InputError with the way to get one where none is named."""
    python = os.environ.get(PYTHON_VARIABLE)
    if not python:
        raise InputError(
            "quantizing needs NVIDIA's Model Optimizer, in an environment of its own: python3 -m venv .venv-modelopt, "
            f".venv-modelopt/bin/pip install -r accuracy/modelopt.txt, and {PYTHON_VARIABLE}=.venv-modelopt/bin/python"
        )
    return python


def quantize(
    source: Path,
    target: Path,
    scheme: Scheme,
    calibration: Mapping[str, np.ndarray],
    python: str,
    progress: Progress = lambda phase, fraction: None,
) -> dict[str, str]:
    """Write `target`, the FP32 graph `source` with Q/DQ pairs by `scheme`; returns versions of what wrote it.

    `source` takes one sample and has no local functions (a lowered graph); `calibration` are its inputs, samples first.
    Raises InputError where `python` has no Model Optimizer or the scheme finds nothing, ToolchainError where it fails.
    """
    nodes = scheme.nodes(load(source))
    with tempfile.TemporaryDirectory(prefix="cat2dog-calibration-") as folder:
        file = Path(folder) / "calibration.npz"
        arrays: dict[str, Any] = dict(calibration)
        np.savez(file, **arrays)
        request = {
            "source": str(source.resolve()),
            "target": str(target.resolve()),
            "mode": scheme.mode,
            "calibrator": scheme.calibrator,
            # Model Optimizer takes them for regular expressions.
            "nodes": [f"{re.escape(name)}$" for name in nodes],
            "calibration": str(file),
        }
        return run_child(python, "accuracy.modelopt_child", request, progress)["versions"]


def calibration_of(feed: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Inputs to calibrate with, and what they are: pictures mirrored and upside down, so that none is judged too.

    Of other inputs than uint8 pictures `[B,H,W,C]`, the samples themselves.
    """
    if all(array.dtype == np.uint8 and array.ndim == 4 for array in feed.values()):
        turned = {name: np.concatenate([array[:, :, ::-1], array[:, ::-1]]) for name, array in feed.items()}
        return turned, "the validation pictures, mirrored and upside down"
    return dict(feed), "the validation samples themselves"
