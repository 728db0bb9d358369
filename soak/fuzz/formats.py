"""Parsers of files: manifests, checkpoints, policies, tables, caches, pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from cat2dog.config import NAMED, Config
from cat2dog.safetensors_file import read_entries
from engines.batch import BatchProfile
from engines.kernels import images as kernel_images
from engines.kernels.tables import read_table
from engines.linear_times import read_times
from engines.timing_cache import read_timing_cache, write_timing_cache
from engines.validation import Validation
from export import onnx_file
from export.policy import policy_for
from export.policy_file import load_policy, save_policy
from runtime import hashes
from runtime.images import Limits, read_image
from runtime.manifest import Build, EngineKey, Gate, Manifest, read_manifest, sealed
from runtime.signing import read_signature
from soak.fuzz.targets import REFUSED, Target, by_path
from zoo.text2image import folder as pipeline_folder

_ROOT = Path(__file__).resolve().parents[2]
# Small pictures: what a large one costs is bounded by `Limits` and measured elsewhere.
_PICTURES = Limits(pixels=1 << 18, file_bytes=1 << 16)


def _manifest(data: bytes) -> None:
    manifest = Manifest.from_json(data.decode())
    if Manifest.from_json(manifest.to_json()) != manifest:
        raise AssertionError("a manifest is another when it is written and read again")


def _manifests() -> list[bytes]:
    key = EngineKey("tiny-128", "a" * 64, "b" * 64, "fp16", "native", "tensorrt_rtx", "1.7", targets=("8.6",))
    gate, build = Gate("pending", "psnr", 30.0, "x", proxy_scores=(51.5,)), Build(1.5, 1, "2026", "cat2dog build")
    return [Manifest("x.engine", "c" * 64, 5, key, gate, build).to_json().encode()]


def _safetensors() -> list[bytes]:
    header = json.dumps({"__metadata__": {"a": "b"}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})
    return [len(header).to_bytes(8, "little") + header.encode() + bytes(8)]


def _config(data: bytes) -> None:
    config = Config.from_json(data.decode())
    if Config.from_json(config.to_json()) != config:
        raise AssertionError("a config is another when it is written and read again")


def _policies() -> list[bytes]:
    fp16, bf16 = policy_for("fp16"), policy_for("bf16")
    return [_written(lambda path, policy=policy: save_policy(path, policy), "p.json") for policy in (fp16, bf16)]


def _onnx_manifest(path: Path) -> None:
    path = path.with_suffix(".onnx")
    onnx_file.up_to_date(path, {})
    onnx_file.read(path)


def _onnx_manifests() -> list[bytes]:
    files = {name: {"size": 1, "mtime_ns": 1, "sha256": "0"} for name in ("x.onnx", "x.onnx.data")}
    made = onnx_file.OnnxFile(Path("x.onnx"), {}, files, [], [], 0, {}, 1.0, 1, "2026", {})
    return [json.dumps({**vars(made), "path": "x.onnx"}).encode()]


def _timing_caches() -> list[bytes]:
    return [_written(lambda path: write_timing_cache(path, b"measured"), "timing.cache")]


def _validations() -> list[bytes]:
    array = np.zeros((1, 2, 2, 3), np.uint8)
    return [_written(Validation({"image": array}, {"dog": array}, "psnr", 30.0, "itself").save, "v.npz")]


def _tables() -> list[bytes]:
    paths = sorted((_ROOT / "engines/kernels/tuned").glob("*.json"))
    table = json.loads(paths[0].read_text())
    table["entries"] = [table["entries"][0], table["entries"][-1]]
    return [json.dumps(table).encode()]


def _pictures() -> list[bytes]:
    grey = (np.arange(12 * 9 * 3) % 251).astype(np.uint8).reshape(9, 12, 3)
    picture, made = Image.fromarray(grey), []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    picture.convert("RGBA").save(buffer, "PNG")
    return [*made, buffer.getvalue()]


def _written(write, name: str) -> bytes:  # type: ignore[no-untyped-def]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


TARGETS = (
    Target("manifest", ("runtime.manifest",), _manifest, (ValueError,), _manifests),
    Target(
        "manifest_file", ("runtime.manifest",), by_path(read_manifest, "x.json"), REFUSED,
        lambda: [sealed(each.decode()).encode() for each in _manifests()],
    ),
    Target("safetensors", ("cat2dog.safetensors_file",), by_path(read_entries, "m.safetensors"), REFUSED, _safetensors),
    Target(
        "config", ("cat2dog.config",), _config, (*REFUSED, UnicodeDecodeError),
        lambda: [NAMED["tiny-128"].to_json().encode()],
    ),
    Target("policy", ("export.policy_file", "export.policy"), by_path(load_policy, "p.json"), REFUSED, _policies),
    Target("onnx_manifest", ("export.onnx_file",), by_path(_onnx_manifest, "x.json"), REFUSED, _onnx_manifests),
    Target(
        "hash_memo", ("runtime.hashes",), by_path(hashes._read, "hashes.json"), (),
        lambda: [json.dumps({"/x|1|2": "a" * 64}).encode()],
    ),
    Target(
        "signature", ("runtime.signing",), read_signature, (ValueError,),
        lambda: [b'{"algorithm": "ed25519", "key": "' + b"0f" * 32 + b'", "signature": "' + b"A" * 86 + b'=="}'],
    ),
    Target("timing_cache", ("engines.timing_cache",), by_path(read_timing_cache, "t.cache"), (), _timing_caches),
    Target(
        "linear_times", ("engines.linear_times",), by_path(read_times, "linear.json"), (),
        lambda: [b'{"unit": {"plugin tensorrt": 0.5}}'],
    ),
    Target("tuning_table", ("engines.kernels.tables", "engines.kernels.variants", "engines.kernels.linear_variants"),
           by_path(read_table, "t.json"), REFUSED, _tables),
    Target(
        "kernel_facts", ("engines.kernels.images",), by_path(lambda path: kernel_images._read(path), "k.json"), (),
        lambda: [b'{"name": "k", "shared": 1, "threads": 128, "sha256": "0"}'],
    ),
    Target("validation", ("engines.validation",), by_path(Validation.load, "v.npz"), REFUSED, _validations),
    Target(
        "batch", ("engines.batch",), lambda data: BatchProfile.parse(data.decode()), (*REFUSED, UnicodeDecodeError),
        lambda: [b"1-2-8", b"4"],
    ),
    Target(
        "picture", ("runtime.images", "PIL"), lambda data: read_image(data, 16, _PICTURES), REFUSED, _pictures,
    ),
    Target(
        "pipeline_index", ("zoo.text2image.folder",),
        by_path(lambda path: pipeline_folder._index(path.parent), pipeline_folder.INDEX), REFUSED,
        lambda: [b'{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'],
    ),
)  # fmt: skip
