"""The engine store that machines share: plans by content, manifests by key, behind a folder or an fsspec URL.

    plans/{sha256}.plan                                 the plan; written first
    manifests/{folder}/{checkpoint}_..._{key8}.json     the sealed manifest, where `engines.store` files the engine
    leases/{folder}/{checkpoint}_..._{key8}/{n}.json    who builds (`engines.lease`)

A manifest is written after its plan, so that what a manifest names is there. Each machine keeps its own copies under
its `root`, which is what it loads from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from engines.store import engine_path
from runtime import files
from runtime.errors import EngineMismatch, InputError
from runtime.manifest import MAX_BYTES, EngineKey, Manifest, manifest_path, parse_manifest, read_manifest, sealed
from runtime.place import Place, open_place
from runtime.signing import signature_path

# An unnamed plan of this age in seconds belongs to no upload that is still to get its manifest.
GRACE_SECONDS = 24 * 3600.0
_MOST_SIGNATURE = 1 << 16


class RemoteStore:
    """The store at a URL."""

    def __init__(self, url: str | os.PathLike[str]):
        self.place: Place = open_place(url)
        self.url = self.place.url

    def fetch(self, key: EngineKey, root: Path) -> Path | None:
        """The engine of `key`, brought to where `engines.store` files it under `root`; None where the store has none.

        Raises EngineMismatch for a damaged manifest or plan: nothing is brought then.
        """
        manifest = self.manifest(key)
        return self.bring(manifest, root) if manifest else None

    def manifest(self, key: EngineKey) -> Manifest | None:
        """The manifest of `key`, None where the store has none. Raises EngineMismatch for a damaged one."""
        name = manifest_name(key)
        try:
            manifest = self._manifest(name)
        except FileNotFoundError:
            return None
        if manifest.key != key:
            raise EngineMismatch(f"{self.url}/{name} is the manifest of another engine: delete it, and build again")
        return manifest

    def bring(self, manifest: Manifest, root: Path) -> Path:
        """The plan that a manifest of this store names, beneath `root`, with the manifest beside it.

        Raises EngineMismatch unless the plan has the size and hash that the manifest names.
        """
        target = engine_path(root, manifest.key)
        plan = plan_name(manifest.sha256)
        try:
            size = self.place.entry(plan).size
            if size != manifest.size:  # known before a byte of it is on this disk
                raise EngineMismatch(f"{self.url}/{plan} has {size} bytes, but {manifest.size} were built; {_MEND}")
            with files.exclusive(target), files.atomic_path(target) as temporary:
                self.place.download(plan, temporary)
                if files.sha256_file(temporary) != manifest.sha256:
                    raise EngineMismatch(f"{self.url}/{plan} was altered: it has another hash; {_MEND}")
        except FileNotFoundError as error:
            raise EngineMismatch(f"{self.url}/{plan} is missing, but a manifest names it; {_MEND}") from error
        files.write_text(manifest_path(target), self._sealed(manifest))
        try:
            files.write_bytes(signature_path(target), self.place.read(_signature_name(manifest.key), _MOST_SIGNATURE))
        except FileNotFoundError:
            signature_path(target).unlink(missing_ok=True)  # of another plan
        return target

    def publish(self, engine: Path) -> None:
        """Share a filed engine. Raises EngineMismatch where it is not what its manifest says."""
        manifest = read_manifest(engine)
        if engine.stat().st_size != manifest.size or files.sha256_file(engine) != manifest.sha256:
            raise EngineMismatch(f"engine {engine} is not what its manifest says: build it again")
        plan = plan_name(manifest.sha256)
        text = manifest_path(engine).read_bytes()
        # Uploaded even where it is there: it is new then, and no collection of garbage takes it before it is named.
        self.place.upload(engine, plan)
        if signature_path(engine).exists():
            self.place.write(_signature_name(manifest.key), signature_path(engine).read_bytes())
        self.place.write(manifest_name(manifest.key), text)
        try:
            self.place.entry(plan)
        except FileNotFoundError:  # collected between the two
            self.place.upload(engine, plan)

    def manifests(self) -> Iterator[Manifest]:
        """Every manifest. Raises EngineMismatch for a damaged one."""
        for entry in self.place.entries("manifests"):
            if entry.name.endswith(".json"):
                yield self._manifest(entry.name)

    def collect(self, grace_seconds: float = GRACE_SECONDS) -> list[str]:
        """Delete the plans that no manifest names and that are older than the grace; the names of those deleted.

        Raises EngineMismatch, and deletes nothing, while any manifest cannot be read: what it names is not known.
        """
        old = [each for each in self.place.entries("plans") if time.time() - each.modified > grace_seconds]
        named = {plan_name(manifest.sha256) for manifest in self.manifests()}  # after the plans, never before
        deleted = []
        for entry in old:
            if entry.name in named:
                continue
            try:
                if self.place.entry(entry.name).modified != entry.modified:
                    continue  # uploaded again meanwhile
            except FileNotFoundError:
                continue
            self.place.delete(entry.name)
            deleted.append(entry.name)
        return sorted(deleted)

    def drop(self, wanted: Callable[[Manifest], bool]) -> list[str]:
        """Delete the manifests for which `wanted` is true; `collect` takes their plans when nothing names them."""
        names = [manifest_name(manifest.key) for manifest in self.manifests() if wanted(manifest)]
        for name in names:
            self.place.delete(name)
            self.place.delete(str(PurePosixPath(name).with_suffix(".sig")))
        return names

    def _manifest(self, name: str) -> Manifest:
        try:
            return parse_manifest(self.place.read(name, MAX_BYTES))
        except (ValueError, InputError) as error:
            raise EngineMismatch(f"{self.url}/{name} is damaged: {error}; delete it, and build again") from error

    def _sealed(self, manifest: Manifest) -> str:
        name = engine_path(Path(), manifest.key).name
        return sealed((manifest if manifest.engine == name else replace(manifest, engine=name)).to_json())


_MEND = "delete its manifest, and build it again with `cat2dog build --store`"


def plan_name(sha256: str) -> str:
    """`plans/{sha256}.plan`."""
    return f"plans/{sha256}.plan"


def manifest_name(key: EngineKey) -> str:
    """`manifests/{folder}/{name}.json`, as the engine's own path."""
    return engine_path(Path("manifests"), key).with_suffix(".json").as_posix()


def _signature_name(key: EngineKey) -> str:
    return engine_path(Path("manifests"), key).with_suffix(".sig").as_posix()


def lease_name(key: EngineKey) -> str:
    """`leases/{folder}/{name}`."""
    return engine_path(Path("leases"), key).with_suffix("").as_posix()
