"""Results for the tests of the report: whole ones, of made-up figures."""

from __future__ import annotations

from pathlib import Path

from bench.machine import machine
from bench.schema import SCHEMA, write_result

CEILINGS = [
    {
        "device": "gpu", "precision": "fp16", "tflops": 800.0, "gb_per_s": 4000.0, "peak_tflops": 1000.0,
        "peak_source": "a data sheet", "how": "by hand",
    }
]  # fmt: skip


def timing(ms, spread=0.1):
    return {
        "median": ms, "p95": ms * 1.1, "least": ms * 0.9, "most": ms * 2, "low": ms - spread / 2,
        "high": ms + spread / 2, "spread": spread, "count": 50, "rounds": 5,
    }  # fmt: skip


def latency(level, batch, ms, **more):
    return {"level": level, "batch": batch, "ms": timing(ms), "images_per_second": round(1000 * batch / ms, 1), **more}


def peer(name, ms, **more):
    return {
        "name": name, "about": f"about {name}", "device": "gpu", "precision": "fp16", "status": "measured",
        "latency": [
            latency("network", 1, ms, tflops=0.5 / ms * 1000, mfu_percent=50 / ms, mfu_of_tflops=1000.0),
            latency("network", 4, ms * 3, tflops=2 / ms * 1000, mfu_percent=60 / ms, mfu_of_tflops=1000.0),
            latency("picture", 1, ms + 1),
        ],
        "startup": {
            "alone": name.startswith("tensorrt"), "runs": 3, "seconds": {"python": 0.5, "import": 2.25, "load": 1.125},
            "total": 3.875,
        },
        "device_bytes": 1_234_000_000, "device_bytes_at": {"1": 1_234_000_000, "4": 2_345_000_000},
        "psnr_db": {"mean": 60.5, "worst": 59.25, "each": [61.75, 59.25]}, **more,
    }  # fmt: skip


ENGINE = {
    "file": "a.engine", "bytes": 987_000_000, "build_seconds": 61.0, "flavor": "tensorrt 10.0", "attention": "plugin",
    "batch": [1, 1, 1], "gate": {"state": "passed", "scores": ["59.25"], "proxy_scores": []}, "notes": [],
}  # fmt: skip
LAYERS = [
    {"name": "embed/MatMul", "us": 5.0, "type": "MatrixMultiply"},
    {"name": "blocks.0/FusedAttention", "us": 30.0, "type": "PluginV2"},
    {"name": "blocks.0.up/MatMul", "us": 45.0, "type": "PluginV2"},
    {"name": "weights", "us": 0.0, "type": "Constant"},
]


def peers(checkpoint="500m-256", resolution=256, parameters=474_000_000, factor=1.0, kind="peers"):
    """A result with an engine, a torch peer, and one that is absent."""
    absent = {**peer("onnxruntime-cuda", 1), "status": "absent", "latency": [], "reason": "no CUDA provider"}
    about = {**machine(("numpy",), "cat2dog bench"), "gpu": "NVIDIA H1", "driver": "1.2"}
    return {
        "schema": SCHEMA, "kind": kind, "complete": True, "machine": about, "method": "by hand",
        "subject": {
            "checkpoint": checkpoint, "resolution": resolution, "tokens": resolution**2 // 256,
            "parameters": parameters, "precision": "fp16", "images": 2,
            "flops": 250_000_000_000 * resolution**2 // 256**2, "attention_flops": 10_000_000_000,
        },
        "ceilings": CEILINGS,
        "peers": [
            peer("torch-sdpa", 4.75 * factor),
            peer("tensorrt-plugin", 1.625 * factor, engine=ENGINE, layers=LAYERS, layers_batch=1),
            absent,
        ],
    }  # fmt: skip


def growth(checkpoint="500m-1024", resolution=1024, parameters=474_000_000, factor=20.0):
    """Engines of one checkpoint at two batch sizes, without a ceiling of their own."""
    made = peers(checkpoint, resolution, parameters, factor, kind="growth")
    engine = made["peers"][1]
    return {**made, "ceilings": [], "peers": [{**engine, "latency": engine["latency"][:2]}]}


def ladder():
    """Three rungs, the last streamed, and one that could not be climbed."""
    made = peers(kind="ladder")
    rungs = [peer(name, ms) for name, ms in (("research form", 9.0), ("SDPA", 5.0), ("overlap", 1.0))]
    rungs[-1]["latency"] = [latency("network", 1, 1.0), latency("stream", 1, 2.0)]
    failed = {**peer("fp16", 1), "status": "failed", "latency": [], "reason": "out of memory"}
    return {**made, "peers": [rungs[0], rungs[1], failed, rungs[2]]}


def codecs():
    """Two encoders that are right, one that is wrong, one that is absent."""
    made = {key: value for key, value in peers().items() if key in ("schema", "complete", "machine", "method")}
    row = {"step": "encode png", "pixels": 256, "library": "runtime", "settings": ""}
    rows = [
        {**row, "status": "measured", "ms": timing(0.25), "bytes": 132_000, "psnr_db": None},
        {**row, "library": "slow", "status": "measured", "ms": timing(17.5), "bytes": 111_000, "psnr_db": None},
        {**row, "library": "lossy", "status": "wrong", "reason": "38.5 dB, expected at least inf", "psnr_db": 38.5},
        {**row, "library": "other", "status": "absent", "reason": "No module named 'other'"},
    ]
    return {**made, "kind": "codecs", "codecs": rows}


def write_all(folder: Path) -> Path:
    """One of each kind, and checkpoints of other resolutions and sizes."""
    for name, content in {
        "a": peers(),
        "b": peers("500m-512", 512, factor=3),
        "c": peers("1b-256", 256, 1_020_000_000, factor=2),
        "ladder": ladder(),
        "codecs": codecs(),
    }.items():
        write_result(folder / f"{name}.json", content)
    return folder
