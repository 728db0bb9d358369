"""A model repository for native Triton: engines, their configurations, models for pictures, plugins, a start script."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from runtime import files
from runtime.engine_file import engine_manifest, refusal
from runtime.errors import AccuracyError, EngineMismatch, InputError
from runtime.flavors import TENSORRT
from runtime.images import Limits
from runtime.manifest import Manifest, rebuild_advice
from runtime.plugins import find_plugin, needs_plugin
from runtime.signing import check_policy
from serving.model_configs import (
    Network,
    Tuning,
    check_name,
    decode_config,
    encode_config,
    network_config,
    picture_config,
)
from serving.pbtxt import pbtxt
from serving.start_script import start_script

MARKER = "cat2dog.json"
_PARTS = (MARKER, "models", "plugins", "start.sh")
# What the Python models need of this toolchain.
_RUNTIME = ("__init__.py", "codecs.py", "errors.py", "files.py", "images.py", "stream.py")


def networks_of(engines: Sequence[Path]) -> list[Network]:
    """The engines by checkpoint; several of one checkpoint must be for different GPU types.

    Raises InputError for engines that cannot stand beside each other, EngineMismatch for altered ones, AccuracyError
    for those whose gate has not passed.
    """
    found: dict[str, Network] = {}
    version: tuple[str, Path] | None = None
    for path in engines:
        manifest = _usable(path)
        if version and version[0] != manifest.key.flavor_version:
            raise InputError(
                f"{path} is of TensorRT {manifest.key.flavor_version} but {version[1]} of {version[0]}; one Triton has "
                "one TensorRT: write a repository for each"
            )
        version = version or (manifest.key.flavor_version, path)
        network = found.setdefault(manifest.key.checkpoint, Network(check_name(manifest.key.checkpoint), {}))
        capability = str(manifest.key.compute_capability)
        if capability in network.engines:
            other = network.engines[capability][0]
            raise InputError(
                f"{path} and {other} are both {network.name} for compute capability {capability}; give one"
            )
        if network.engines and _shape(manifest) != _shape(network.manifest):
            raise InputError(f"{path} has other tensors or batches than the other engines of {network.name}")
        network.engines[capability] = (path, manifest)
    if not found:
        raise InputError("no engine was given; expected at least one, built with `cat2dog build --batch 1-8`")
    return list(found.values())


def write_repository(out: Path, engines: Sequence[Path], tuning: Tuning, limits: Limits) -> list[str]:
    """Write the repository to `out`, whole or not at all; the names of its models.

    One written before is replaced; anything else at `out` is left alone, and InputError raised.
    """
    networks = networks_of(engines)
    plugins = _plugins(networks)
    _check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(out.parent)
    made = out.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        models = _write_models(made / "models", networks, tuning, limits)
        for plugin in plugins:
            (made / "plugins").mkdir(exist_ok=True)
            shutil.copy2(plugin, made / "plugins" / plugin.name)
        script = made / "start.sh"
        script.write_text(start_script([plugin.name for plugin in plugins], networks[0].manifest.key.flavor_version))
        script.chmod(0o755)
        (made / MARKER).write_text(json.dumps({"models": models}, indent=2) + "\n")
        _put(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return models


def _write_models(folder: Path, networks: Sequence[Network], tuning: Tuning, limits: Limits) -> list[str]:
    configs = []
    for network in networks:
        configs.append(network_config(network, tuning))
        version = folder / network.name / "1"
        version.mkdir(parents=True)
        for capability, (path, _) in network.engines.items():
            _link_or_copy(path, version / network.file_name(capability))
        if network.resolution is not None:
            configs += [decode_config(network, tuning, limits), encode_config(network, tuning), picture_config(network)]
            for kind in ("decode", "encode"):
                _write_python(folder / f"{network.name}_{kind}" / "1", kind)
            (folder / f"{network.name}_picture" / "1").mkdir(parents=True)  # Triton wants a version, though it is empty
    for config in configs:
        (folder / config["name"] / "config.pbtxt").write_text(pbtxt(config))
    return [str(config["name"]) for config in configs]


def _write_python(version: Path, kind: str) -> None:
    here = Path(__file__).resolve().parent
    (version / "runtime").mkdir(parents=True)
    shutil.copyfile(here / "triton_models" / f"{kind}.py", version / "model.py")
    for name in _RUNTIME:
        shutil.copyfile(here.parent / "runtime" / name, version / "runtime" / name)


def _usable(path: Path) -> Manifest:
    manifest = engine_manifest(path)
    if manifest.key.flavor != TENSORRT:
        raise InputError(f"{path} is of {manifest.key.flavor}; Triton's backend loads TensorRT's: --flavor tensorrt")
    if manifest.gate.state == "failed":
        raise AccuracyError(refusal(path, manifest))
    if manifest.gate.state != "passed":
        raise AccuracyError(f"{path} has not passed its accuracy gate yet: run it once, `cat2dog run --engine {path}`")
    if manifest.key.targets:
        raise InputError(f"{path} was built ahead of time for several GPUs; Triton wants one plan for each")
    least, _, most = manifest.key.batch
    if least > 1:
        raise InputError(
            f"{path} takes batches of {least} to {most}; Triton sends single ones: build with --batch 1-{most}"
        )
    if path.stat().st_size != manifest.size or files.sha256_file(path) != manifest.sha256:
        raise EngineMismatch(f"engine {path} was altered; {rebuild_advice(path, manifest)}")
    check_policy(path, manifest)
    return manifest


def _shape(manifest: Manifest) -> tuple[object, ...]:
    return (*manifest.tensors, manifest.key.batch, manifest.key.precision)


def _plugins(networks: Sequence[Network]) -> list[Path]:
    """The plugin library where an engine needs it. Raises InputError where it is not built."""
    manifests = [manifest for network in networks for _, manifest in network.engines.values()]
    needed = [manifest for manifest in manifests if needs_plugin(manifest)]
    return [find_plugin(needed[0].key.flavor_version)] if needed else []


def _check_target(out: Path) -> None:
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(f"{out} is no folder; give another place for the repository")
    present = {each.name for each in out.iterdir()}
    if not present:
        return
    if MARKER not in present:
        raise InputError(f"{out} holds something that `cat2dog triton-repo` did not write; give an empty or new folder")
    try:
        known = {str(name) for name in json.loads((out / MARKER).read_text("utf-8"))["models"]}
        models = {each.name for each in (out / "models").iterdir()}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{out / MARKER} is damaged; give another folder") from error
    if foreign := sorted((present - set(_PARTS)) | (models - known)):
        raise InputError(f"{out} holds '{foreign[0]}', which `cat2dog triton-repo` did not write; move it away first")


def _link_or_copy(source: Path, target: Path) -> None:
    # An engine is replaced by renaming, never written into: a link stays what it is, and costs no gigabyte.
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _put(made: Path, out: Path) -> None:
    if not out.exists():
        os.rename(made, out)
        return
    old = made.with_name(made.name + "-old")
    os.rename(out, old)
    try:
        os.rename(made, out)
    except OSError:
        os.rename(old, out)
        raise
    shutil.rmtree(old)
