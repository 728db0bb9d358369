"""Our runners as Polygraphy's, where it has none of its own, and the choice between the two."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.common import TensorMetadata

from runtime.onnxruntime_runner import OnnxRuntimeRunner
from runtime.runner import Runner


class HouseRunner(BaseRunner):
    """Any runner of `runtime/`, opened when Polygraphy activates it and closed when it is done."""

    def __init__(self, open_runner: Callable[[], Runner], name: str):
        super().__init__(name=name)
        self._open = open_runner

    def activate_impl(self) -> None:
        self._runner = self._open()

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        for spec in self._runner.inputs:
            metadata.add(spec.name, dtype=spec.numpy_dtype, shape=spec.shape)
        return metadata

    def infer_impl(self, feed_dict: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count, feed = padded(self._runner, feed_dict)
        began = time.perf_counter()
        outputs = {name: array[:count] for name, array in self._runner.infer(feed).items()}
        self.inference_time = time.perf_counter() - began
        # Polygraphy's files know numpy's own types; FP32 holds every BF16 number.
        return {name: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for name, a in outputs.items()}

    def deactivate_impl(self) -> None:
        self._runner.close()
        del self._runner


def padded(runner: Runner, feed: dict[str, np.ndarray]) -> tuple[int, dict[str, np.ndarray]]:
    """How many samples `feed` has, and the feed, with copies of the last up to `runner`'s smallest batch."""
    count = len(next(iter(feed.values())))
    least = max((spec.sizes(0)[0] for spec in runner.inputs if spec.shape), default=1)
    if count >= least:
        return count, feed
    return count, {n: np.concatenate([a, np.repeat(a[-1:], least - count, axis=0)]) for n, a in feed.items()}


def onnx_runner(path: Path, name: str) -> BaseRunner:
    """Polygraphy's own runner of an ONNX file; ours where an input or output is BF16, which that cannot pass."""
    with OnnxRuntimeRunner(path) as runner:  # says in one line what is wrong with a file, which Polygraphy does not
        narrow = any(spec.dtype == "bfloat16" for spec in (*runner.inputs, *runner.outputs))
    if narrow:
        return HouseRunner(lambda: OnnxRuntimeRunner(path), name)
    return OnnxrtRunner(SessionFromOnnx(str(path)), name=name)
