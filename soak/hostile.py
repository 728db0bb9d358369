"""`python -m soak.hostile`: files made to hurt, each read in a process of its own; refused in a second and 500 MB.

Seconds are of the reading alone, once its modules are imported; memory is all that the process has taken at its end,
Python and packages included.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from soak.result import measured, promise

MOST_SECONDS, MOST_BYTES = 1.0, 500 << 20

# How each kind of file is read: statements that import, and an expression of `path`.
READERS = {
    "onnx": ("from engines.lowering import load", "load(path)"),
    "onnx_run": ("from runtime.onnxruntime_runner import OnnxRuntimeRunner", "OnnxRuntimeRunner(path)"),
    "safetensors": ("from cat2dog.safetensors_file import read_entries", "read_entries(path)"),
    "config": ("from cat2dog.config import load_config", "load_config(path.parent)"),
    "picture": ("from runtime.images import read_image", "read_image(path, 256)"),
    "npz": ("from engines.validation import Validation", "Validation.load(path)"),
    "manifest": ("from runtime.manifest import read_manifest", "read_manifest(path)"),
    "policy": ("from export.policy_file import load_policy", "load_policy(path)"),
    "table": ("from engines.kernels.tables import read_table", "read_table(path)"),
    "pt": ("from pathlib import Path; from cat2dog.convert import _read", "_read(path)"),
}  # fmt: skip
_PROGRAM = """
import json, sys, time
from pathlib import Path
from runtime.errors import ToolchainError
{imports}
path = Path(sys.argv[1])
began = time.process_time()
try:
    {read}
    said = None
except ToolchainError as error:
    said = str(error)
seconds = time.process_time() - began
# Not getrusage: what the parent had when it started this process counts there, too.
most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, int(most.split()[1]) * 1024, said]))
"""


def files() -> dict[str, tuple[str, str, Callable[[Path], None]]]:
    """Name to reader, file name, and what writes it."""
    from soak import hostile_onnx

    return {
        **{f"onnx: {name}": ("onnx", "x.onnx", write) for name, write in hostile_onnx.FILES.items()},
        **{f"onnx to run: {name}": ("onnx_run", "x.onnx", write) for name, write in hostile_onnx.FILES.items()},
        "safetensors: header of 8 EB": ("safetensors", "m.safetensors", _bytes(b"\xff" * 7 + b"\x7f" + b"{}")),
        "safetensors: lists of 90 MB": ("safetensors", "m.safetensors", _header(b"[" + b"[]," * (30 << 20) + b"1]")),
        "safetensors: header nested 7 million deep": ("safetensors", "m.safetensors", _header(b"[" * 7_000_000)),
        "safetensors: overlapping ranges": ("safetensors", "m.safetensors", _tensors({"a": (0, 8), "b": (4, 12)}, 12)),
        "safetensors: a range of 256 TB": ("safetensors", "m.safetensors", _tensors({"a": (0, (1 << 48) - 1)}, 8)),
        "safetensors: 60000 tensors on one place": (
            "safetensors", "m.safetensors", _tensors({f"t{i}": (0, 8) for i in range(60_000)}, 8)
        ),
        "config: width of 10^300": ("config", "config.json", _bytes(_config(width=10**300))),
        "config: depth of 10^9": ("config", "config.json", _bytes(_config(depth=10**9))),
        "config: 65536 x 65536 pixels": ("config", "config.json", _bytes(_config(resolution=65536))),
        "config: nested a million deep": ("config", "config.json", _bytes(b"[" * 1_000_000)),
        "config: endless": ("config", "config.json", lambda path: os.symlink("/dev/zero", path)),
        "picture: PNG of 50000 x 50000": ("picture", "x.png", _png(50_000, 50_000, b"\0" * 99)),
        "picture: PNG of 2 billion x 2 billion": ("picture", "x.png", _png(2**31 - 1, 2**31 - 1, b"\0" * 99)),
        "picture: PNG of 9999 x 9999, 300 MB out of 0.3 MB": (
            "picture", "x.png", lambda path: path.write_bytes(_png_bytes(9999, 9999, None, 6))
        ),
        "picture: progressive JPEG of 9999 x 9999": ("picture", "x.jpg", _progressive),
        "picture: PNG with a text of 1 GB": ("picture", "x.png", _png_text),
        "picture: TIFF of 16-bit numbers, 8 GB": ("picture", "x.tif", _tiff),
        "picture: a file of 300 MB": ("picture", "x.png", lambda path: _sparse(path, 300 << 20)),
        "picture: a pipe": ("picture", "x.png", lambda path: os.mkfifo(path)),
        "npz: 3 GB out of 3 MB": ("npz", "v.npz", _zip_bomb),
        "npz: an array of 8 EB": ("npz", "v.npz", _npz((1 << 60,))),
        "npz: an object to be unpickled": ("npz", "v.npz", _npz_pickle),
        "manifest: endless": ("manifest", "x.json", lambda path: os.symlink("/dev/zero", path)),
        "manifest: nested a million deep": ("manifest", "x.json", _bytes(b"[" * (1 << 20))),
        "policy: nested a million deep": ("policy", "p.json", _bytes(b"[" * 1_000_000)),
        "policy: 4 GB": ("policy", "p.json", lambda path: _sparse(path, 4 << 30)),
        "tuning table: nested a million deep": ("table", "t.json", _bytes(b"[" * 1_000_000)),
        "weights: a pickle that runs a program": ("pt", "x.pt", _bytes(pickle.dumps(_Runs()))),
        "weights: an archive, 2 GB out of 2 MB": ("pt", "x.pt", _pt_bomb),
    }  # fmt: skip


def read_in_child(kind: str, path: Path) -> tuple[float, int, str | None]:
    """CPU seconds, bytes at most, and what was said (None: it was taken) when a process of its own reads the file."""
    imports, read = READERS[kind]
    program = _PROGRAM.format(imports=imports, read=read)
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=path.parent, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    promise(
        done.returncode == 0 and bool(lines), f"reading {path.name} ended with {done.returncode}: {done.stderr[-300:]}"
    )
    seconds, peak, said = json.loads(lines[-1])
    return seconds, peak, said


def run(folder: Path, only: str = "") -> dict[str, Any]:
    """All files, or those whose name begins so; the counts. Raises Broken where one is taken, or costs too much."""
    rows = []
    for number, (name, (kind, file_name, write)) in enumerate(files().items()):
        if not name.startswith(only):
            continue
        path = folder / str(number) / file_name
        path.parent.mkdir()
        write(path)
        seconds, peak, said = read_in_child(kind, path)
        ran = [each.name for each in path.parent.iterdir() if each.name == "it-ran"]
        promise(said is not None and not ran, f"{name}: it was taken")
        assert said is not None
        promise("\n" not in said, f"{name}: told in several lines: {said!r}")
        promise(seconds <= MOST_SECONDS, f"{name}: refused after {seconds:.1f} s: {said}")
        promise(peak <= MOST_BYTES, f"{name}: refused with {peak >> 20} MB: {said}")
        rows.append(
            {"file": name, "seconds": round(seconds, 3), "peak_bytes": peak, "said": said.replace(str(folder), "")}
        )
    return {
        "refused": len(rows),
        "most_seconds": max(row["seconds"] for row in rows),
        "most_peak_bytes": max(row["peak_bytes"] for row in rows),
        "rows": rows,
    }


class _Runs:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return open, ("it-ran", "w")


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def _header(header: bytes) -> Callable[[Path], None]:
    return _bytes(len(header).to_bytes(8, "little") + header)


def _tensors(ranges: dict[str, tuple[int, int]], size: int) -> Callable[[Path], None]:
    entries = {
        name: {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]}
        for name, (start, end) in ranges.items()
    }
    header = json.dumps(entries).encode()
    return _bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def _config(**changes: int) -> bytes:
    return json.dumps({"resolution": 128, "patch": 8, "width": 192, "depth": 7, "heads": 6, **changes}).encode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_bytes(width: int, height: int, rows: bytes | None, colour: int = 2, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    if rows is None:
        packer, row = zlib.compressobj(9), bytes(1 + width * {2: 3, 6: 4}[colour])
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    else:
        data = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _png(width: int, height: int, rows: bytes) -> Callable[[Path], None]:
    return _bytes(_png_bytes(width, height, rows))


def _progressive(path: Path) -> None:
    """A small picture whose header says that it is large."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", 9999, 9999)
    path.write_bytes(bytes(data))


def _png_text(path: Path) -> None:
    packer = zlib.compressobj(9)
    text = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    path.write_bytes(_png_bytes(8, 8, bytes(8 * 25), extra=_chunk(b"zTXt", b"a\0\0" + text)))


def _tiff(path: Path) -> None:
    tags = [(256, 4, 1, 65535), (257, 4, 1, 65535), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 65535), (279, 4, 1, 2**32 - 1)]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + body)


def _sparse(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def _npy(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def _zip_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("input.image.npy", "w", force_zip64=True) as member,
    ):
        member.write(_npy((3 << 30,)))
        for _ in range(3 << 5):
            member.write(bytes(32 << 20))


def _npz(shape: tuple[int, ...]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("input.image.npy", _npy(shape) + bytes(64))

    return write


def _npz_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", _npy((1,), "|O") + pickle.dumps(_Runs()))


def _pt_bomb(path: Path) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in whole.infolist():
            with archive.open(member.filename, "w", force_zip64=True) as file:
                if member.filename.endswith("data/0"):
                    for _ in range(64):
                        file.write(bytes(32 << 20))
                else:
                    file.write(whole.read(member))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, file the counts; exit code 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.hostile", description="Files made to hurt.")
    parser.add_argument("--only", default="", help="files whose name begins so")
    parser.add_argument("--output", type=Path, help="result file (default: bench/results/reliability/hostile.json)")
    args = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="cat2dog-soak-") as folder:
            measured("hostile", lambda: run(Path(folder), args.only), args.output)
    except AssertionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
