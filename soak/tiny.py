"""The smallest graph that is still built, judged and run as a real one: what is killed and loaded hundreds of times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.batch import BatchProfile
from engines.build import BuildRequest
from engines.validation import Validation
from runtime.files import atomic_path

SIDE = 16
WIDTH = 32
TARGETS = ("8.6",)


def write_tiny(path: Path, seed: int = 0, width: int = WIDTH) -> Path:
    """A network of two linear layers on uint8 `image` `[B,16,16,3]` → `dog`, weights of `seed` in `X.onnx.data`."""
    random = np.random.default_rng(seed)
    size = SIDE * SIDE * 3
    weights = {
        "up": (random.standard_normal((size, width)) / size**0.5).astype(np.float32),
        "down": (random.standard_normal((width, size)) * 60).astype(np.float32),
        "flat": np.array([0, size], np.int64),
        "square": np.array([0, SIDE, SIDE, 3], np.int64),
        "scale": np.array(1 / 64, np.float32),
        "middle": np.array(128, np.float32),
        "least": np.array(0, np.float32),
        "most": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"], "scale_it"),
        helper.make_node("Reshape", ["scaled", "flat"], ["row"], "flatten"),
        helper.make_node("MatMul", ["row", "up"], ["hidden"], "up_it"),
        helper.make_node("Tanh", ["hidden"], ["active"], "tanh"),
        helper.make_node("MatMul", ["active", "down"], ["grey"], "down_it"),
        helper.make_node("Add", ["grey", "middle"], ["shifted"], "shift"),
        helper.make_node("Clip", ["shifted", "least", "most"], ["clipped"], "clip"),
        helper.make_node("Reshape", ["clipped", "square"], ["picture"], "unflatten"),
        helper.make_node("Cast", ["picture"], ["dog"], "to_bytes", to=TensorProto.UINT8),
    ]
    shape = ["batch", SIDE, SIDE, 3]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)]
    outputs = [helper.make_tensor_value_info("dog", TensorProto.UINT8, shape)]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, f"tiny{seed}", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)  # onnx appends to one that is there
    with atomic_path(path) as temporary:
        onnx.save(
            model, str(temporary), save_as_external_data=True, location=data.name, size_threshold=1024,
            convert_attribute=False,
        )  # fmt: skip
    return path


def pictures(count: int = 2, seed: int = 1) -> np.ndarray:
    """uint8 `[count,16,16,3]`, the same for the same seed."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def validation_of(path: Path) -> Validation:
    """The gate's inputs, with ONNX Runtime's answers of the graph itself as reference."""
    from runtime.onnxruntime_runner import OnnxRuntimeRunner

    feed = {"image": pictures()}
    with OnnxRuntimeRunner(path, threads=1) as runner:
        return Validation(feed, runner.infer(feed), "psnr", 30.0, "ONNX Runtime, the same graph")


def request_of(onnx_file: Path, validation: Validation, root: Path, seed: int = 0, **changes: object) -> BuildRequest:
    """An ahead-of-time TensorRT-RTX build of the tiny graph."""
    fields: dict[str, object] = {
        "onnx": onnx_file,
        "checkpoint": f"tiny-soak{seed}",
        "precision": "fp32",
        "validation": validation,
        "batch": BatchProfile(1, 2, 4),
        "attention": "decomposed",
        "flavor": "tensorrt_rtx",
        "targets": TARGETS,
        "root": root,
        "command": "python -m soak.cache",
    }
    return BuildRequest(**{**fields, **changes})  # type: ignore[arg-type]
