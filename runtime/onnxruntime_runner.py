"""Runs an ONNX file in ONNX Runtime: on the CPU, where no GPU is needed, or by its CUDA provider.

The CUDA provider comes with the package onnxruntime-gpu instead of onnxruntime: both put their files in the same place,
so only one of them can be installed. Its 1.31.1 is built for CUDA 13.0, wants Python 3.11 or newer, links
libcudart.so.13, libcublas.so.13, libcublasLt.so.13 and libcurand.so.10, and opens cuFFT 12 and cuDNN 9 when they are
needed; its extras `[cuda,cudnn]` bring them all (cuBLAS comes with nvidia-cudnn-cu13). The last one for Python 3.10,
1.23.2, has extras for CUDA 12 and cuDNN 9.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, MissingExtra, ToolchainError
from runtime.onnx_guard import check_onnx
from runtime.runner import DYNAMIC, TensorSpec, check_feed

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_ERRORS_ONLY = 3


class OnnxRuntimeRunner:
    """ONNX file → runner. Loaded from its path, so that external data beside it is found.

    `providers` are "cpu", "cuda" or ONNX Runtime's own names, the preferred one first; what it has no kernel for runs
    on the CPU. `threads` bounds the threads inside one operator on the CPU (None: all cores). Without `optimize` every
    node is run as it is written, in the order of the file: FP8 graphs need that, INT8 ones are then not computed by
    integer kernels, some of which saturate, and what is read early is freed early. Inputs and outputs of bfloat16 are
    numpy arrays of ml_dtypes' type. `infer` may be called from several threads.

    Raises InputError for a file that is no ONNX model or lacks its data and for a provider that is not there or does
    not start, MissingExtra without onnxruntime.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
        optimize: bool = True,
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
        check_onnx(path)
        wanted = [PROVIDERS.get(name, name) for name in providers]
        _check_available(onnxruntime, wanted)
        if PROVIDERS["cuda"] in wanted:
            _load_cuda(onnxruntime)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            # By default it walks back from the outputs, and keeps values that are read by late ones and early ones.
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        self._faults = _fault_types()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=wanted, enable_fallback=0
            )
        except self._faults as error:
            raise InputError(f"{path} cannot be loaded by ONNX Runtime: {_reason(error)}") from error
        _check_started(wanted, self._session.get_providers())
        self._device = "cuda" if wanted[:1] == [PROVIDERS["cuda"]] else None
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
            elif self._device is not None:
                arrays = self._run_bound(names, feed, self._device)
            else:
                arrays = self._session.run(names, dict(feed))
        except self._faults as error:
            raise ToolchainError(f"ONNX Runtime failed: {_reason(error)}") from error
        return dict(zip(names, arrays, strict=True))

    def _run_bound(self, names: list[str], feed: Mapping[str, np.ndarray], device: str) -> list[np.ndarray]:
        """Outputs stay on the device until they are copied into numpy's memory, once; `run` copies them twice."""
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in names:
            binding.bind_output(name, device)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

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


def _check_available(onnxruntime: Any, wanted: Sequence[str]) -> None:
    available = onnxruntime.get_available_providers()
    missing = next((name for name in wanted if name not in available), None)
    if missing == PROVIDERS["cuda"]:
        raise InputError(
            f"ONNX Runtime has no CUDA provider here, only {', '.join(available)}; put the package for GPUs in place "
            "of the one for CPUs: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    if missing is not None:
        raise InputError(f"ONNX Runtime has no provider '{missing}' here; expected one of {', '.join(available)}")


def _load_cuda(onnxruntime: Any) -> None:
    """Load CUDA and cuDNN out of NVIDIA's wheels, where the dynamic loader would not look for them."""
    if hasattr(onnxruntime, "preload_dlls"):
        # It prints what it does not find; whether it was needed is seen when the provider starts.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls(directory="")


def _check_started(wanted: Sequence[str], started: Sequence[str]) -> None:
    """ONNX Runtime goes on with the CPU where a provider does not start, which nobody who asked for a GPU wants."""
    missing = next((name for name in wanted if name not in started), None)
    if missing == PROVIDERS["cuda"]:
        from onnxruntime.capi import build_and_package_info as built

        version = getattr(built, "cuda_version", "") or "13"
        raise InputError(
            f"ONNX Runtime's CUDA provider does not start here: it needs an NVIDIA GPU, CUDA {version} and cuDNN 9, "
            "which pip install 'onnxruntime-gpu[cuda,cudnn]' brings; or use the CPU"
        )
    if missing is not None:
        raise InputError(f"ONNX Runtime's provider '{missing}' does not start here, only {', '.join(started)}")


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
