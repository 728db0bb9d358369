"""A stand-in for the gate where the plan cannot run: the lowered ONNX in ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from engines.bf16 import compute_wide, has_bf16
from engines.checkable import checkable
from engines.fused_node import has_fused
from engines.lowering import load, widen
from engines.validation import Validation, answers
from runtime.errors import ToolchainError
from runtime.judge import scores
from runtime.manifest import Gate
from runtime.onnxruntime_runner import OnnxRuntimeRunner


def proxy_gate(lowered: Path, validation: Validation, batch: int, why: str) -> Gate:
    """A pending gate for a plan that cannot run here, with the scores of its lowered ONNX in ONNX Runtime.

    The graph is the very one the plan was built from, so a wrong lowering or export shows; every operator's result is
    rounded to its type, as a GPU does, so an overflow shows too; the builder's own faults do not. `failed` where even
    the proxy is below the threshold.
    """
    with rounded(lowered) as path, OnnxRuntimeRunner(path) as runner:
        each = scores(validation.metric, answers(runner, validation, batch), validation.expected)
    state = "pending" if min(each) >= validation.threshold else "failed"
    note = f"not run: {why}; proxy: the lowered ONNX in ONNX Runtime, each operator's result rounded"
    return Gate(state, validation.metric, validation.threshold, validation.against, proxy_scores=tuple(each), note=note)


@contextmanager
def runnable(lowered: Path) -> Iterator[Path]:
    """The graph itself, or where it has BF16 or fused kernels one that ONNX Runtime's CPU can run, rounded alike."""
    model = load(lowered)
    if not has_bf16(model) and not has_fused(model):
        yield lowered
        return
    with beside(lowered) as path:
        try:
            widen(lowered, path)
        except OSError as error:
            raise _cannot_write(lowered, error) from error
        yield path


@contextmanager
def rounded(lowered: Path) -> Iterator[Path]:
    """A copy of the graph that ONNX Runtime's CPU runs, in which every half-precision operator's result is rounded.

    Given an FP16 graph as it is, ONNX Runtime has CPU kernels for few FP16 operators and keeps FP32 between two others:
    an overflow that every GPU would have does not happen there.
    """
    model = checkable(load(lowered))
    for dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        compute_wide(model, dtype)
    with saved_beside(model, lowered) as path:
        yield path


@contextmanager
def saved_beside(model: ir.Model, path: Path) -> Iterator[Path]:
    """The model as a file in the folder of `path`, whose external data it shares; then removed.

    Raises ToolchainError where it cannot be written, a full disk say: the folder is not the one engines go to.
    """
    with beside(path) as copy:
        try:
            ir.save(model, copy)
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield copy


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """An empty file in the folder of `path`, because a copy shares its external data by relative name; then removed.

    Raises ToolchainError where none can be made.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".tmp-{os.getpid()}-", suffix=".onnx", dir=path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> ToolchainError:
    return ToolchainError(f"cannot write into {path.parent}: {error.strerror or error}")
