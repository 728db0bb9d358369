"""Engine files that only look like ones: bytes and a sound manifest. What is in a plan is TensorRT's business."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from runtime.manifest import AttentionChoice, Build, EngineKey, EngineTensor, Gate, Manifest, write_manifest


def write_plan(
    folder: Path,
    checkpoint: str = "tiny-16",
    side: int = 16,
    capability: str = "9.0",
    batch: tuple[int, int, int] = (1, 4, 4),
    date: str = "2026-01-01",
    form: str = "decomposed",
    gate: str = "passed",
    tensors: tuple[EngineTensor, ...] | None = None,
    **key: object,
) -> Path:
    """One engine file with its manifest."""
    leading = batch[0] if batch[0] == batch[2] else -1
    made = EngineKey(
        checkpoint=checkpoint,
        onnx_sha256="0" * 64,
        weights_sha256="1" * 64,
        precision="fp16",
        attention=form,
        flavor="tensorrt",
        flavor_version="10.9.0.34",
        batch=batch,
        gpu=f"GPU {capability}",
        compute_capability=capability,
    )
    made = dataclasses.replace(made, **key)
    plan = f"a plan of {made}{date}".encode()
    path = folder / f"{checkpoint}_fp16_{capability.replace('.', '')}_{made.key8}_{date}.engine"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(plan)
    ends = tuple(
        EngineTensor(name, mode, "uint8", (leading, side, side, 3))
        for name, mode in (("image", "input"), ("dog", "output"))
    )
    manifest = Manifest(
        engine=path.name,
        sha256=hashlib.sha256(plan).hexdigest(),
        size=len(plan),
        key=made,
        gate=Gate(gate, "psnr", 30.0, "PyTorch FP32", (50.0,)),
        build=Build(1.0, 1, date, "cat2dog build --model x"),
        tensors=tensors or ends,
        attention=(AttentionChoice("node", form),),
    )
    write_manifest(path, manifest)
    return path
