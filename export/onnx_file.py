"""An exported file and its manifest: `X.onnx`, `X.onnx.data`, `X.json`. Needs no torch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.files import sha256_file, write_text

SCHEMA = 1
_MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class OnnxFile:
    """What an export left: where it lies, what it depends on (`key`) and what it holds.

    `files` gives size in bytes, modification time in ns and SHA-256 of the graph and of its external data.
    """

    path: Path
    key: dict[str, Any]
    files: dict[str, dict[str, Any]]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    attention_nodes: int
    nodes: dict[str, int]
    seconds: float
    peak_memory_bytes: int
    date: str
    versions: dict[str, str]
    schema: int = SCHEMA
    notes: list[str] = field(default_factory=list)

    @property
    def graph_sha256(self) -> str:
        """Content hash of the graph without its external data."""
        return self.files[self.path.name]["sha256"]

    @property
    def data_sha256(self) -> str:
        """Content hash of the external data."""
        return self.files[f"{self.path.name}.data"]["sha256"]

    def save(self) -> None:
        """Write the manifest; done last, so that a manifest always speaks of complete files."""
        write_text(
            self.path.with_suffix(".json"), json.dumps({**asdict(self), "path": self.path.name}, indent=2) + "\n"
        )


def describe_files(path: Path) -> dict[str, dict[str, Any]]:
    """Size, time stamp and SHA-256 of a graph and its external data."""
    described = {}
    for file in (path, data_path(path)):
        stat = file.stat()
        described[file.name] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(file)}
    return described


def data_path(path: Path) -> Path:
    """Where the weights of `X.onnx` lie: `X.onnx.data`."""
    return path.with_name(f"{path.name}.data")


def read(path: str | os.PathLike[str]) -> OnnxFile:
    """The manifest of an exported `X.onnx`. Raises InputError where it is missing or is not one of ours."""
    path = Path(path)
    manifest = path.with_suffix(".json")
    try:
        if manifest.stat().st_size > _MOST_BYTES:
            raise InputError(f"{manifest} is larger than a manifest: export the model again")
        fields = json.loads(manifest.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} has no manifest {manifest.name} beside it: export the model again") from error
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{manifest} cannot be read ({reason}): export the model again") from error
    try:
        if fields["schema"] != SCHEMA or fields["path"] != path.name:
            raise InputError(
                f"{manifest} is of schema {fields['schema']!r:.20} for {fields['path']!r:.80}, not of {SCHEMA} for "
                f"'{path.name}': "
                "export the model again"
            )
        if set(fields["files"]) != {path.name, data_path(path).name}:
            raise InputError(f"{manifest} is of other files than {path.name} and its data: export the model again")
        return OnnxFile(**{**fields, "path": path})
    except (TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{manifest} lacks or has odd fields ({reason}): export the model again") from error


def up_to_date(path: str | os.PathLike[str], key: dict[str, Any], verify_hash: bool = False) -> OnnxFile | None:
    """The export at `path` if it was made from the same `key` and is still the file that was written, else None.

    A file whose time stamp moved (a copy, a checkout) is hashed instead of trusted; with `verify_hash` every file is.
    """
    path = Path(path)
    try:
        onnx_file = read(path)
        if onnx_file.key != key:
            return None
        for name, known in onnx_file.files.items():
            file = path.with_name(name)
            stat = file.stat()
            if stat.st_size != known["size"]:
                return None
            if (verify_hash or stat.st_mtime_ns != known["mtime_ns"]) and sha256_file(file) != known["sha256"]:
                return None
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        return None
    return onnx_file
