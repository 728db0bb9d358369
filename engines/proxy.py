"""A stand-in for the gate where the plan cannot run: the lowered ONNX in ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.bf16 import has_bf16
from engines.fused_node import has_fused
from engines.lowering import load, widen
from engines.validation import Validation, answers
from runtime.judge import scores
from runtime.manifest import Gate
from runtime.onnxruntime_runner import OnnxRuntimeRunner


def proxy_gate(lowered: Path, validation: Validation, batch: int, why: str) -> Gate:
    """A pending gate for a plan that cannot run here, with the scores of its lowered ONNX in ONNX Runtime.

    The graph is the very one the plan was built from, so a wrong lowering or export shows; the builder's own faults
    do not. `failed` where even the proxy is below the threshold.
    """
    with runnable(lowered) as path, OnnxRuntimeRunner(path) as runner:
        each = scores(validation.metric, answers(runner, validation, batch), validation.expected)
    state = "pending" if min(each) >= validation.threshold else "failed"
    note = f"not run: {why}; proxy: the lowered ONNX in ONNX Runtime"
    return Gate(state, validation.metric, validation.threshold, validation.against, proxy_scores=tuple(each), note=note)


@contextmanager
def runnable(lowered: Path) -> Iterator[Path]:
    """The graph itself, or where it has BF16 or fused kernels one that ONNX Runtime's CPU can run, rounded alike."""
    model = load(lowered)
    if not has_bf16(model) and not has_fused(model):
        yield lowered
        return
    with beside(lowered) as path:
        widen(lowered, path)
        yield path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """An empty file in the folder of `path`, because a copy shares its external data by relative name; then removed."""
    descriptor, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", suffix=".onnx", dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
