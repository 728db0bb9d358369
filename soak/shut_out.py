"""Stores that cannot be written, and symbolic links where files are expected."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.build import build, engine_key, find
from engines.store import engine_path, list_engines
from runtime.engine_file import open_engine
from runtime.errors import ToolchainError
from runtime.manifest import manifest_path
from soak.full_disk import disk
from soak.result import promise

if TYPE_CHECKING:
    from soak.cache import Shop


def read_only(shop: Shop) -> dict[str, int]:
    """A store that was written and is then read-only: its engines are found and load, a build says so in one line."""
    first, second = shop.requests[:2]
    counts = {"found": 0, "loaded": 0, "refused": 0}
    with disk(shop.folder / "sealed", 8192) as folder:
        there = [replace(request, root=folder / "engines") for request in (first, second)]
        build(there[0])
        engine_key(there[1], shop.flavor)  # its hashes are known, too
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        found = find(there[0])
        promise(found is not None, "an engine in a read-only store is not found")
        counts["found"] += 1
        assert found is not None
        with open_engine(found.path, shop.flavor, None) as (manifest, plan):
            promise(len(plan) == manifest.size, "an engine in a read-only store does not load")
        counts["loaded"] += 1
        for request in (there[1], replace(there[0], force=True)):
            try:
                build(request)
                promise(False, "a build into a read-only store is said to have worked")
            except ToolchainError as error:
                told = str(error)
                promise(
                    "Read-only file system" in told and "\n" not in told, f"a read-only store is told badly: {told}"
                )
                counts["refused"] += 1
        promise(list_engines(folder / "engines") == [found.path], "a read-only store has changed")
    return counts


def symbolic_links(shop: Shop) -> dict[str, int]:
    """A store behind a link works; a link in place of a file is replaced or refused, its target never written."""
    request, other = shop.requests[:2]
    counts = {"through_a_link": 0, "replaced": 0, "victims_untouched": 0}
    (shop.folder / "real").mkdir()
    (shop.folder / "link").symlink_to("real")
    promise(build(replace(request, root=shop.folder / "link")).fresh, "a store behind a link is not built into")
    promise(find(replace(request, root=shop.folder / "real")) is not None, "a store behind a link is another store")
    counts["through_a_link"] += 1
    root = shop.folder / "linked"
    there = replace(request, root=root)
    path = engine_path(root, engine_key(there, shop.flavor))
    path.parent.mkdir(parents=True)
    for name in (path, manifest_path(path), path.with_name(f".{path.name}.lock")):
        victim = shop.folder / "victim"
        victim.write_bytes(b"precious")
        name.unlink(missing_ok=True)
        name.symlink_to(victim)
        try:
            built = build(there)
            promise(built.manifest.sha256 == shop.right[request.checkpoint], "a link gives another engine")
            promise(not built.path.is_symlink(), "an engine was written through a link")
            counts["replaced"] += 1
        except ToolchainError as error:
            promise("\n" not in str(error), f"a link is told badly: {error}")
        promise(victim.read_bytes() == b"precious", f"{name.name}: what a link points to was written")
        counts["victims_untouched"] += 1
        name.unlink(missing_ok=True)
    _other_engine_behind_a_link(shop, there, replace(other, root=root))
    return counts


def _other_engine_behind_a_link(shop: Shop, request, other) -> None:  # type: ignore[no-untyped-def]
    """An engine whose plan is a link to another engine's is not that engine."""
    right, wrong = build(request).path, build(other).path
    right.unlink()
    os.symlink(wrong, right)
    built = build(request, lambda phase, fraction: None)
    promise(built.manifest.sha256 == shop.right[request.checkpoint], "another engine was taken through a link")
    with open_engine(Path(built.path), shop.flavor, None):
        pass
