"""Disks that fill up at every point of a build: real ones, of a few hundred kilobytes in memory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.build import build, find
from engines.store import list_engines
from runtime.errors import InputError, ToolchainError
from soak.killed import check_unlocked
from soak.result import promise

if TYPE_CHECKING:
    from soak.cache import Shop


@contextlib.contextmanager
def disk(folder: Path, kib: int, options: str = "") -> Iterator[Path]:
    """A file system of `kib` KiB at `folder`. Raises InputError where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k{options}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"no disk can be mounted at {folder} ({done.stderr.strip()}): run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disk(shop: Shop, sizes: int) -> dict[str, int]:
    """Build on disks of growing size, graph and store on them alike; then make room, and build again."""
    request = shop.requests[0]
    names = (request.onnx.name, f"{request.onnx.name}.data")
    graph = sum(request.onnx.with_name(name).stat().st_size for name in names)
    least = graph // 1024 + 16
    most = least + 4 * next(iter(list_engines(request.root))).stat().st_size // 1024
    counts = {"sizes": 0, "refused": 0, "built": 0, "built_after_room_was_made": 0}
    for number in range(sizes):
        kib = least + (most - least) * number // max(1, sizes - 1)
        with disk(shop.folder / "disk", kib) as folder:
            (folder / "onnx").mkdir()
            for name in names:
                shutil.copy(request.onnx.with_name(name), folder / "onnx" / name)
            there = replace(request, onnx=folder / "onnx" / request.onnx.name, root=folder / "engines")
            counts["sizes"] += 1
            try:
                built = build(there)
                promise(built.manifest.sha256 == shop.right[request.checkpoint], "a full disk made another engine")
                counts["built"] += 1
            except ToolchainError as error:
                text = str(error)
                promise("\n" not in text and error.exit_code == 1, f"a full disk is told badly: {text!r}")
                promise("No space left" in text, f"a full disk is not named: {text!r}")
                counts["refused"] += 1
                _check_nothing_is_left(folder, there.root)
                subprocess.run(["mount", "-o", f"remount,size={2 * most}k", str(folder)], check=True)
                promise(build(there).fresh, "with room made, the next build does not build")
                counts["built_after_room_was_made"] += 1
            promise(find(there) is not None, "what was built is not found")
    promise(counts["refused"] > 0 and counts["built"] > 0, f"the sizes do not straddle the edge: {counts}")
    return counts


def _check_nothing_is_left(folder: Path, root: Path) -> None:
    left = [path.name for path in folder.rglob("*") if path.name.startswith(".tmp-") or path.suffix == ".engine"]
    promise(not left, f"a full disk leaves {left}")
    check_unlocked(folder)
    promise(list_engines(root) == [], "a full disk files an engine")
