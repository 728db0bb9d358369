"""An engine file for the stand-in of TensorRT, and what is fed to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from runtime.lane import Lane
from runtime.manifest import Build, EngineKey, Gate, Manifest, write_manifest
from runtime.tensorrt_runner import TensorRTRunner
from tests.runtime.fake_tensorrt import Mode, Tensor

KEY = EngineKey(
    checkpoint="tiny-128",
    onnx_sha256="a" * 64,
    weights_sha256="b" * 64,
    precision="fp16",
    attention="native",
    flavor="tensorrt",
    flavor_version="1.0",
    batch=(1, 4, 8),
    gpu="NVIDIA L4",
    compute_capability="8.9",
)


def image_network(**options):
    dynamic = (-1, 8, 8, 3)
    profile = [(1, 8, 8, 3), (4, 8, 8, 3), (8, 8, 8, 3)]
    return [
        Tensor("dog", Mode.OUTPUT, dynamic),  # an output first: positions must not matter
        Tensor("image", Mode.INPUT, dynamic, profile=profile, **options),
    ]


def file_engine(folder: Path, plan: bytes = b"plan", key: EngineKey = KEY) -> Path:
    path = folder / "x.engine"
    path.write_bytes(plan)
    build = Build(1.0, 1, "2026-11-23", "cat2dog build --model models/tiny-128")
    gate = Gate("passed", "psnr", 30.0, "PyTorch fp32", (50.0,))
    write_manifest(path, Manifest(path.name, hashlib.sha256(plan).hexdigest(), len(plan), key, gate, build))
    return path


def runner_lanes(runner: TensorRTRunner) -> list[Lane]:
    return list(runner._pool._free)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((count, seed)).integers(0, 256, (count, 8, 8, 3), np.uint8)
