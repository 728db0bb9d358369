"""The dogs that an exported checkpoint draws, in ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from runtime.onnxruntime_runner import OnnxRuntimeRunner


def onnx_dogs(folder: Path, cats: np.ndarray, precision: str) -> np.ndarray:
    """uint8 `[B,R,R,3]` to the same; exports `folder` in `precision` first. Raises InputError for a bad checkpoint.

    ONNX Runtime's CPU has no BF16: there, each operator computes in FP32 and its result is rounded to BF16.
    """
    from cat2dog.recipe import Cat2DogRecipe
    from engines.batch import BatchProfile
    from engines.lowering import lower, widen
    from export.export import export

    with tempfile.TemporaryDirectory() as scratch:
        path = export(
            Cat2DogRecipe(folder, Path(scratch) / "cache"), Path(scratch) / f"dog_{precision}.onnx", precision
        ).path
        if precision == "bf16":
            lowered = lower(path, "decomposed", BatchProfile.parse("1")).path
            path = lowered.with_name("widened.onnx")
            widen(lowered, path)
        with OnnxRuntimeRunner(path) as runner:
            return np.concatenate([runner.infer({"image": cat[None]})["dog"] for cat in cats])
