"""Runs an ONNX file in ONNX Runtime: the runner that needs no GPU."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, MissingExtra, ToolchainError
from runtime.runner import DYNAMIC, TensorSpec, check_feed

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_ERRORS_ONLY = 3


class OnnxRuntimeRunner:
    """ONNX file → runner. Loaded from its path, so that external data beside it is found.

    `threads` bounds the threads inside one operator (None: all cores). Inputs and outputs of bfloat16 are numpy
    arrays of ml_dtypes' type. Raises InputError for a file that is no ONNX model or lacks its data, MissingExtra
    without onnxruntime. `infer` may be called from several threads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int | None = None,
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", "running an ONNX file", "onnxruntime") from error
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path} does not exist or is no file; expected an ONNX file: make it with `cat2dog export`"
            )
        unknown = [name for name in providers if name not in onnxruntime.get_available_providers()]
        if unknown:
            available = ", ".join(onnxruntime.get_available_providers())
            raise InputError(f"ONNX Runtime has no provider '{unknown[0]}' here; expected one of {available}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        self._faults = _fault_types()
        try:
            self._session: Any = onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
        except self._faults as error:
            raise InputError(f"{path} cannot be loaded by ONNX Runtime: {_reason(error)}") from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._has_bfloat16 = any(spec.dtype == "bfloat16" for spec in self.inputs + self.outputs)

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. Raises InputError as `check_feed` does, ToolchainError where ONNX Runtime fails."""
        if self._session is None:
            raise ToolchainError("this ONNX Runtime runner is closed; make a new one")
        check_feed(self.inputs, feed)
        names = [spec.name for spec in self.outputs]
        try:
            if self._has_bfloat16:
                arrays = self._run_values(names, feed)
            else:
                arrays = self._session.run(names, dict(feed))
        except self._faults as error:
            raise ToolchainError(f"ONNX Runtime failed: {_reason(error)}") from error
        return dict(zip(names, arrays, strict=True))

    def _run_values(self, names: list[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The longer way: numpy has no bfloat16, so `run` refuses it."""
        values = {name: _value_of(array) for name, array in feed.items()}
        return [_array_of(value) for value in self._session.run_with_ort_values(names, values)]

    def close(self) -> None:
        self._session = None

    def __enter__(self) -> OnnxRuntimeRunner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise InputError(f"tensor '{node.name}' has type {node.type}; expected one of {', '.join(_DTYPES)}")
    # A named or unknown size is dynamic; ONNX Runtime gives its name or None.
    shape = tuple(size if isinstance(size, int) else DYNAMIC for size in node.shape)
    return TensorSpec(node.name, _DTYPES[node.type], shape)


def _value_of(array: np.ndarray) -> Any:
    from onnxruntime import OrtValue

    if array.dtype.name != "bfloat16":
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    return OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array).view(np.uint16), _BFLOAT16)


def _array_of(value: Any) -> np.ndarray:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    spec = TensorSpec("output", "bfloat16", tuple(value.shape()))
    array = np.empty(spec.shape, spec.numpy_dtype)
    ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _fault_types() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions have no common base; which there are depends on its version."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, OSError)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text.partition(" : ")[2].partition(" : ")[2] or text  # drops "[ONNXRuntimeError] : 2 : "
    return text if len(text) <= 400 else text[:400] + " …"
