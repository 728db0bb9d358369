"""Does this engine belong to this machine, and is it what was built? Answered before any work on the GPU."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from runtime import files
from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from runtime.manifest import EngineKey, Manifest, manifest_path, read_manifest, rebuild_advice

# Values of the builder option "hardware_compatibility" (TensorRT's HardwareCompatibilityLevel).
AMPERE_PLUS = "ampere_plus"
SAME_COMPUTE_CAPABILITY = "same_compute_capability"


def check_engine(path: str | os.PathLike[str], flavor: Flavor, gpu: Gpu | None, verify_hash: bool = True) -> Manifest:
    """The manifest of an engine that this flavor (and its version) and GPU may use.

    `gpu` None leaves the GPU out of it (for building ahead of time). With `verify_hash` the whole file is hashed;
    without, its size and time stamps are enough, and it is hashed only where it is newer than its manifest. A gate
    that is still pending passes: whoever loads the plan first runs it.

    Raises InputError for a missing file, EngineMismatch for any disagreement, AccuracyError for an engine that the
    gate refused.
    """
    path = Path(path)
    manifest = _checked_manifest(path, flavor, gpu)
    if verify_hash or _changed_since(path):
        with _readable(path):
            digest = files.sha256_file(path)
        _check_hash(path, manifest, digest)
    return manifest


@contextlib.contextmanager
def open_engine(
    path: str | os.PathLike[str], flavor: Flavor, gpu: Gpu | None, private: bool = False
) -> Iterator[tuple[Manifest, memoryview]]:
    """As `check_engine`, with the plan, readable inside the `with` block: what it shows is what was hashed.

    The file is mapped, not read: hashing it brings it into the page cache, and TensorRT copies from there what it
    needs, so that a plan of gigabytes is in this process's memory once. A plan is replaced by renaming (`files`), which
    leaves a mapping as it is; who writes into the file in place while it is loaded gets what mapped files give. With
    `private` it is read, and nobody else can change what was hashed.
    """
    path = Path(path)
    manifest = _checked_manifest(path, flavor, gpu)
    with contextlib.ExitStack() as stack:
        with _readable(path):
            content = _read(path, manifest.size) if private else _map(path, manifest.size)
        if isinstance(content, mmap.mmap):
            stack.callback(content.close)
        plan = stack.enter_context(memoryview(content))
        if len(plan) != manifest.size:
            raise EngineMismatch(
                f"engine {path} has {len(plan)} bytes, but {manifest.size} were built; {rebuild_advice(path, manifest)}"
            )
        _check_hash(path, manifest, hashlib.sha256(plan).hexdigest())
        yield manifest, plan


def _read(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(size + 1)  # more than was built is no plan, whatever it is: the caller says so


def _map(path: Path, size: int) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size != size or size == 0:
            return file.read(size + 1)  # no plan, whatever it is: the caller says so
        try:
            content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            if error.errno != errno.ENODEV:  # this file system maps no files
                raise
            return file.read(size)
    content.madvise(mmap.MADV_WILLNEED)
    return content


def engine_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of an engine file, wherever it belongs. Raises InputError where `path` is no engine file."""
    path = Path(path)
    if path.suffix != ".engine":
        raise InputError(f"{path} is no engine; expected a file ending in .engine")
    if not path.is_file():
        raise InputError(f"engine {path} does not exist; build it with `cat2dog build`")
    return read_manifest(path)


def refusal(path: str | os.PathLike[str], manifest: Manifest) -> str:
    """Why the accuracy gate refused an engine, and how to find where it goes wrong, in one line."""
    gate, key = manifest.gate, manifest.key
    unit = " dB" if gate.metric == "psnr" else f" ({gate.metric})"
    worst = min(gate.scores or gate.proxy_scores, default=None)
    return (
        f"engine {path} was refused by the accuracy gate{'' if worst is None else f' with {worst:.3g}{unit}'}; "
        f"expected at least {gate.threshold:g}{unit}: find the diverging layer with "
        f"`cat2dog accuracy --model models/{key.checkpoint} --precision {key.precision}`"
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"engine {path} cannot be read: {error.strerror or error}") from error


def _checked_manifest(path: Path, flavor: Flavor, gpu: Gpu | None) -> Manifest:
    manifest = engine_manifest(path)
    key = manifest.key
    advice = rebuild_advice(path, manifest)
    size = path.stat().st_size
    if size != manifest.size:
        raise EngineMismatch(f"engine {path} has {size} bytes, but {manifest.size} were built; {advice}")
    if (key.flavor, key.flavor_version) != (flavor.name, flavor.version):
        built, here = f"{key.flavor} {key.flavor_version}", f"{flavor.name} {flavor.version or '(absent)'}"
        raise EngineMismatch(f"engine {path} was built by {built}, but here is {here}; {advice}")
    if gpu is not None and not _fits(key, gpu):
        here = f"{gpu.name} (compute capability {gpu.compute_capability})"
        raise EngineMismatch(f"engine {path} was built for {_built_for(key)}, but here is {here}; {advice}")
    if manifest.gate.state == "failed":
        raise AccuracyError(refusal(path, manifest))
    return manifest


def _fits(key: EngineKey, gpu: Gpu) -> bool:
    if key.targets:
        return gpu.compute_capability in key.targets
    compatibility = key.options.get("hardware_compatibility")
    if compatibility == AMPERE_PLUS:
        return _capability(gpu.compute_capability) >= (8, 0)
    if compatibility == SAME_COMPUTE_CAPABILITY:
        return gpu.compute_capability == key.compute_capability
    return (gpu.name, gpu.compute_capability) == (key.gpu, key.compute_capability)


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _built_for(key: EngineKey) -> str:
    if key.targets:
        return f"compute capability {', '.join(key.targets)}"
    return f"{key.gpu} (compute capability {key.compute_capability})"


def _changed_since(path: Path) -> bool:
    # The manifest is written after its engine; a copy may turn that round, so a newer engine is hashed, not refused.
    return path.stat().st_mtime_ns > manifest_path(path).stat().st_mtime_ns


def _check_hash(path: Path, manifest: Manifest, actual: str) -> None:
    if actual != manifest.sha256:
        raise EngineMismatch(
            f"engine {path} was altered: its sha256 begins with {actual[:12]}, but {manifest.sha256[:12]} was built; "
            f"{rebuild_advice(path, manifest)}"
        )
